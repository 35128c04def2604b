"""The posterior in unconstrained coordinates, where Hamiltonian trajectories move."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from ..choices import Start
from ..errors import InputError
from .posterior import Posterior
from .sites import Latents
from .terms import total

State = dict[str, Tensor]  # unconstrained latents by site, each of shape (C chains, N data, ...)


class Unconstrained:
    """Densities of latents in coordinates u that range over all real numbers.

    A density is the site's own, times \\|dz / du\\|.

    Arguments:
        posterior: The posterior of N data points.

    Raises:
        InputError: If a latent site is discrete, or its support cannot be mapped to real numbers.
    """

    def __init__(self, posterior: Posterior) -> None:
        self.posterior = posterior
        supports = posterior.sites.supports()
        self.transforms = {site: _bijection(site, s) for site, s in supports.items()}

    def draw(self, chains: int, source: Start) -> State:
        """Draws of shape (C, N, ...)."""
        return self.coordinates(self.posterior.sample(chains, source))

    def coordinates(self, latents: Mapping[str, Tensor]) -> State:
        """Where latents are."""
        place = self.posterior.device, self.posterior.dtype
        return {site: t.inv(latents[site].to(*place)) for site, t in self.transforms.items()}

    def latents(self, state: State) -> Latents:
        """The latents that are there."""
        return {site: self.transforms[site](u) for site, u in state.items()}

    def densities(self, state: State, with_guide: bool = False) -> tuple[Tensor, Tensor]:
        """Log densities of the prior, or the guide, and of the model with the data, of shape
        (C, N)."""
        latents = self.latents(state)
        volume = total(
            {
                site: sum_events(self.transforms[site].log_abs_det_jacobian(u, latents[site]))
                for site, u in state.items()
            }
        )
        terms = self.posterior.score(latents, with_guide)
        prior = total(terms.prior) + volume
        if not with_guide:
            return prior, prior + terms.reconstruction
        return total(terms.guide) + volume, prior + terms.reconstruction


def _bijection(site: str, support: Constraint) -> Any:
    if support.is_discrete:
        raise InputError(
            f"the latent site {site!r}",
            "is discrete, and Hamiltonian transitions need a gradient",
            "use the importance-weighted estimator",
        )
    try:
        return biject_to(support)
    except NotImplementedError:
        raise InputError(
            f"the latent site {site!r}",
            f"has the support {support}, which cannot be mapped to real numbers",
            "use the importance-weighted estimator",
        ) from None


def sum_events(values: Tensor) -> Tensor:
    """Sum over all dimensions behind those of chains and data."""
    return values.flatten(2).sum(-1) if values.dim() > 2 else values
