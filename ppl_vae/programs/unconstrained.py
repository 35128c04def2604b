"""The posterior in unconstrained coordinates, where Hamiltonian trajectories move."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions.constraints import Constraint

from ..errors import InputError
from .protocol import OBSERVED, Program, device_of, dtype_of
from .sites import draw_latents, supports
from .terms import score_latents

State = dict[str, Tensor]  # unconstrained latents by site, each of shape (C chains, N data, ...)


class Unconstrained:
    """Densities of latents in coordinates u that range over all real numbers.

    A density is the site's own, times \\|dz / du\\|.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).

    Raises:
        InputError: If a latent site is discrete, or its support cannot be mapped to real numbers.
    """

    def __init__(self, program: Program, x: Tensor) -> None:
        self.program = program
        self.x = x.to(device_of(program), dtype_of(program))
        self.transforms = {site: _bijection(site, s) for site, s in supports(program, x).items()}

    def draw(self, chains: int, source: Literal["prior", "guide"]) -> State:
        """Draws of shape (C, N, ...)."""
        return self.coordinates(draw_latents(self.program, self.x, chains, source))

    def coordinates(self, latents: dict[str, Tensor]) -> State:
        """Where latents are."""
        return {s: t.inv(latents[s].to(self.x)) for s, t in self.transforms.items()}

    def latents(self, state: State) -> dict[str, Tensor]:
        """The latents that are there."""
        return {site: self.transforms[site](u) for site, u in state.items()}

    def densities(self, state: State, with_guide: bool = False) -> tuple[Tensor, Tensor]:
        """Log densities of the prior, or the guide, and of the model with the data, of shape
        (C, N)."""
        latents = self.latents(state)
        volume = torch.stack(
            [
                sum_events(self.transforms[site].log_abs_det_jacobian(u, latents[site]))
                for site, u in state.items()
            ]
        ).sum(0)
        terms = score_latents(self.program, self.x, latents, with_guide)
        likelihood = terms.model.pop(OBSERVED)
        prior = torch.stack(list(terms.model.values())).sum(0) + volume
        if not with_guide:
            return prior, prior + likelihood
        guide = torch.stack(list(terms.guide.values())).sum(0) + volume
        return guide, prior + likelihood


def _bijection(site: str, support: Constraint) -> Any:
    if support.is_discrete:
        raise InputError(
            f"the latent site {site!r} is discrete, and Hamiltonian transitions need a "
            "gradient: use the importance-weighted estimator"
        )
    try:
        return biject_to(support)
    except NotImplementedError:
        raise InputError(
            f"the latent site {site!r} has the support {support}, which cannot be mapped to "
            "real numbers: use the importance-weighted estimator"
        ) from None


def sum_events(values: Tensor) -> Tensor:
    """Sum over all dimensions behind those of chains and data."""
    return values.flatten(2).sum(-1) if values.dim() > 2 else values
