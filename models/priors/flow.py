"""The standard normal, bent by couplings."""

from typing import Any

import pyro.distributions as dist

from ..distributions import Flow, couplings
from .standard import Standard


class FlowPrior(Standard):
    r"""Standard normal draws through four couplings (RealNVP, Dinh et al. 2017).

    It begins as the standard normal. Its density is known at any z.

    Arguments:
        latent_dim: Number of latent variables L, at least 2.

    Raises:
        ValueError: If there is one latent variable only.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.layers = couplings(latent_dim)

    def forward(self, encode: Any) -> dist.Distribution:
        return Flow(self.loc, self.scale, self.layers, self.loc[:0])
