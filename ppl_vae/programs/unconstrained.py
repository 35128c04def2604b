"""The posterior in unconstrained coordinates, where Hamiltonian trajectories move."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions.constraints import Constraint
from torch.distributions.transforms import Transform

from ..choices import Start
from ..errors import InputError
from .posterior import Posterior
from .sites import Latents
from .supports import is_angle
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
        supports, priors = posterior.sites.supports(), posterior.sites.prior
        self.transforms = {
            site: Turns() if is_angle(priors[site]) else _bijection(site, support)
            for site, support in supports.items()
        }

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

    def densities(self, state: State, source: Start = "prior") -> tuple[Tensor, Tensor]:
        """Log densities of where draws come from, and of the model with the data: (C, N) each.

        A mixture is half of the guide and half of the prior.
        """
        latents = self.latents(state)
        volume = total(
            {
                site: sum_events(self.transforms[site].log_abs_det_jacobian(u, latents[site]))
                for site, u in state.items()
            }
        )
        terms = self.posterior.score(latents, with_guide=source != "prior")
        prior = total(terms.prior) + volume
        joint = prior + terms.reconstruction
        if source == "prior":
            return prior, joint
        guide = total(terms.guide) + volume
        if source == "mixture":
            guide = torch.logaddexp(guide, prior) - math.log(2)
        return guide, joint


class Turns(Transform):
    """From any real number to the angle in [-pi, pi) that it is.

    A density of angles, repeated along the real line, is left as it is by the moves that leave it
    so on the circle.
    """

    domain, codomain, bijective, sign = constraints.real, constraints.real, True, 1

    def _call(self, x: Tensor) -> Tensor:
        return torch.remainder(x + math.pi, 2 * math.pi) - math.pi

    def _inverse(self, y: Tensor) -> Tensor:
        return y

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero: turns keep lengths."""
        return torch.zeros_like(x)


def _bijection(site: str, support: Constraint) -> Any:
    if support.is_discrete:
        raise InputError(
            f"the latent site {site!r}",
            "is discrete: annealing and NUTS move along gradients, which it has none of",
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


def flatten(state: State) -> Tensor:
    """The coordinates of all sites, one after the other: of shape (C, N, D)."""
    return torch.cat([u.flatten(2) if u.dim() > 2 else u[..., None] for u in state.values()], -1)


def unflatten(u: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Coordinates of shape (C, N, D) by site, each site's of a shape of its own."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = zip(shapes.items(), u.split(sizes, -1), strict=True)
    return {site: part.reshape(*u.shape[:-1], *shape) for (site, shape), part in parts}
