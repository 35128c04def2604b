"""A normal distribution, bent by couplings."""

import pyro.distributions as dist
from torch import Tensor, nn

from ..distributions import Coupling, make_couplings, make_flow
from ..networks import positive


class FlowGuide(nn.Module):
    r"""Normal draws through four couplings (Dinh et al. 2017) that depend on the datum.

    .. math::
        z = \mu + \sigma \, f(\epsilon; c), \quad \epsilon \sim N(0, I_L)

    It begins as the diagonal guide, with f the identity. Its density is known at any z.

    Arguments:
        latent_dim: Number of latent variables L, at least 2.

    Raises:
        ValueError: If there is one latent variable only.
    """

    CONTEXT = 64  # features c of the datum, beside mean and scale
    coupling: type[nn.Module] = Coupling

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.couplings = make_couplings(latent_dim, self.CONTEXT, self.coupling)
        self.sizes = [latent_dim, latent_dim, self.CONTEXT]
        self.features = sum(self.sizes)

    def forward(self, features: Tensor) -> dist.Distribution:
        loc, raw_scale, context = features.split(self.sizes, dim=-1)
        return make_flow(loc, positive(raw_scale), self.couplings, context)
