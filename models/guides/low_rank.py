"""Normal, with a few directions of correlation."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..networks import positive


class LowRank(nn.Module):
    r""":math:`N(\mu, S (I + V V^\top) S)`, with a diagonal S and V of at most five columns.

    As :math:`\mathrm{diag}(\sigma^2) + F F^\top` (Ong et al. 2018, section 3) with F = S V: what is
    factorized is :math:`I + V^\top V`, which stays well conditioned however small the scales are.

    Arguments:
        latent_dim: Number of latent variables L.
    """

    RANK = 5

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.shape = (latent_dim, min(self.RANK, latent_dim))
        self.features = (2 + self.shape[1]) * latent_dim

    def forward(self, features: Tensor) -> dist.Distribution:
        size, rank = self.shape
        loc, raw_scale, factor = features.split([size, size, size * rank], dim=-1)
        scale = positive(raw_scale)
        factor = scale.unsqueeze(-1) * factor.unflatten(-1, self.shape)
        return dist.LowRankMultivariateNormal(loc, factor, scale.square())
