"""Normal, with independent units."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..networks import positive


class Diagonal(nn.Module):
    r""":math:`N(\mu, \mathrm{diag}(\sigma^2))` (Kingma & Welling 2014, eq. 9).

    Arguments:
        latent_dim: Number of latent variables L.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.features = 2 * latent_dim

    def forward(self, features: Tensor) -> dist.Distribution:
        loc, raw_scale = features.chunk(2, dim=-1)
        return dist.Normal(loc, positive(raw_scale)).to_event(1)
