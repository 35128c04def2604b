"""A mixture of normals, learned."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import NormalMixture
from ..networks import inverse_positive, positive
from ..parts import COMPONENTS


class MixturePrior(nn.Module):
    r""":math:`\sum_k \pi_k N(\mu_k, \mathrm{diag}(\sigma_k^2))`, as in Dilokthanakul et al. (2016).

    It begins with equal shares, unit scales, and means drawn from N(0, I).

    Arguments:
        latent_dim: Number of latent variables L.
        components: Number of components K.
    """

    def __init__(self, latent_dim: int, components: int = COMPONENTS) -> None:
        super().__init__()
        self.components = components
        self.logits = nn.Parameter(torch.zeros(components))
        self.locs = nn.Parameter(torch.randn(components, latent_dim))
        self.raw_scales = nn.Parameter(inverse_positive(torch.ones(components, latent_dim)))

    @property
    def scales(self) -> Tensor:
        """Standard deviations of the components, of shape (K, L)."""
        return positive(self.raw_scales)

    def forward(self, encode: Any) -> dist.Distribution:
        return NormalMixture(self.locs, self.scales, self.logits)
