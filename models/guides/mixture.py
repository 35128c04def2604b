"""A mixture of normals, with independent units in each."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..distributions import NormalMixture
from ..networks import positive
from ..parts import COMPONENTS


class MixtureGuide(nn.Module):
    r""":math:`\sum_k \pi_k N(\mu_k, \mathrm{diag}(\sigma_k^2))`, reparameterized.

    See :class:`~ppl_vae.models.distributions.NormalMixture` for the gradient of its draws.

    Arguments:
        latent_dim: Number of latent variables L.
        components: Number of components K.
    """

    def __init__(self, latent_dim: int, components: int = COMPONENTS) -> None:
        super().__init__()
        self.components = components
        self.features = components * (2 * latent_dim + 1)

    def forward(self, features: Tensor) -> dist.Distribution:
        logits, normals = features.tensor_split([self.components], dim=-1)
        loc, raw_scale = normals.unflatten(-1, (self.components, -1)).chunk(2, dim=-1)
        return NormalMixture(loc, positive(raw_scale), logits)
