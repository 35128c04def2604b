"""Inference without the guide: Pyro's NUTS on all data points at once."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import NUTS
from pyro.poutine import block
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from ..compiled.engine import Compiled
from ..compiled.kernels import step_by_step
from ..errors import check_type
from ..programs.posterior import Posterior
from ..programs.sites import Latents
from ..programs.unconstrained import State, Unconstrained
from ..progress import Progress
from .own_family import frozen

# Draws for R-hat below 1.01 of every unit of every datum, where chains mix (Vehtari et al. 2021).
CHAINS, WARMUP, DRAWS, TREE_DEPTH = 4, 250, 500, 6


def sample_posterior(
    posterior: Posterior, seed: int = 0, progress: Progress | None = None
) -> Latents:
    r"""Draw from p(z | x) by Pyro's NUTS (Hoffman & Gelman 2014), all data and chains side by side.

    The posteriors of N data points are one posterior of N independent blocks, and so are several
    chains of each. One run of NUTS, with a diagonal mass matrix that is adapted to every coordinate
    of every block, moves all of them for hardly more than the cost of one. Chains start at draws
    from the prior.

    Arguments:
        posterior: The posterior of N data points.
        seed: Seed of the chains.
        progress: Told of the share of the work that has been done.

    Returns:
        Draws by site, each of shape (S draws, C chains, N, \*event shape), on the program's device.

    Raises:
        InputError: If a latent site is discrete, or its support cannot be mapped to real numbers.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(3, 5, dtype=torch.float64)
        >>> sample_posterior(Posterior(ppca, x), seed=0)["z"].shape
        torch.Size([500, 4, 3, 2])
    """
    check_type("posterior", posterior, Posterior)
    counted = (progress or Progress()).part(1.0, total=WARMUP + DRAWS)
    coordinates = Unconstrained(posterior)

    program = posterior.program
    # Ten thousand calls of one shape: Pyro's part of a call is half of it, and takes no graph.
    slope = Compiled(
        lambda state: _slope(coordinates, state),
        "compiled",
        [program],
        type(program).__name__,
    )
    slope.compiler, slope.quiet = step_by_step, True

    def potential(state: State) -> Tensor:
        if not torch.is_grad_enabled():
            return -coordinates.densities(state)[1].sum()
        energy: Tensor = _Potential.apply(slope, list(state), *state.values())
        return energy

    with posterior.evaluation_mode(seed), frozen(program):
        start = coordinates.draw(CHAINS, "prior")
        kernel = NUTS(potential_fn=potential, max_tree_depth=TREE_DEPTH)
        return coordinates.latents(_run(kernel, start, counted))


def _run(kernel: NUTS, start: State, counted: Progress) -> State:
    """Draws after the warm-up, of shape (S, *shape of the start) by site.

    As ``pyro.infer.MCMC`` runs a kernel, but for its handler that hides sites: under a handler no
    graph is run, and there is none to hide them from, unless it is the caller's.
    """
    kept: list[State] = []
    with (
        pyro.validation_enabled(False),
        torch.enable_grad(),
        block() if am_i_wrapped() else nullcontext(),
    ):
        kernel.initial_params = start
        kernel.setup(WARMUP)
        state: Any = start
        for step in range(WARMUP + DRAWS):
            state = kernel.sample(state)
            if step >= WARMUP:
                kept.append({site: u.detach() for site, u in state.items()})
            counted.advance(1)
        kernel.cleanup()
    return {site: torch.stack([u[site] for u in kept]) for site in start}


def _slope(coordinates: Unconstrained, state: State) -> tuple[Tensor, State]:
    """The potential energy of all chains together, and its gradient."""
    with torch.enable_grad():
        state = {site: u.clone().requires_grad_() for site, u in state.items()}
        energy = -coordinates.densities(state)[1].sum()
        gradient = torch.autograd.grad(energy, list(state.values()))
    return energy.detach(), dict(zip(state, gradient, strict=True))


class _Potential(torch.autograd.Function):
    """An energy that comes with its gradient, for Pyro to ask autograd for."""

    @staticmethod
    def forward(ctx: Any, slope: Callable[[State], Any], sites: list[str], *u: Tensor) -> Tensor:
        energy, gradient = slope({s: v.detach() for s, v in zip(sites, u, strict=True)})
        ctx.gradient = [gradient[site] for site in sites]
        found: Tensor = energy
        return found

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        return None, None, *(slopes[0] * gradient for gradient in ctx.gradient)
