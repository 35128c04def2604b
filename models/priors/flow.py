"""The standard normal, bent by couplings."""

from typing import Any

import pyro.distributions as dist

from ..distributions import make_couplings, make_flow
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
        self.couplings = make_couplings(latent_dim)

    def forward(self, encode: Any) -> dist.Distribution:
        return make_flow(self.loc, self.scale, self.couplings, self.loc[:0])
