"""Inference without the guide: Pyro's NUTS on all data points at once."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
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
from ..storage.arviz_io import chain_statistics
from .own_family import frozen

CHAINS, WARMUP, DRAWS, TREE_DEPTH = 4, 250, 500, 6
MORE = 2  # times as many draws, where chains that mix may have missed the thresholds by chance
MOST_R_HAT, LEAST_ESS = 1.01, 400  # Vehtari et al. 2021, sections 4.1 and 4.2


def sample_posterior(
    posterior: Posterior, seed: int = 0, progress: Progress | None = None
) -> Latents:
    r"""Draw from p(z | x) by Pyro's NUTS (Hoffman & Gelman 2014), all data and chains side by side.

    The posteriors of N data points are one posterior of N independent blocks, and so are several
    chains of each. One run of NUTS, with a diagonal mass matrix that is adapted to every coordinate
    of every block, moves all of them for hardly more than the cost of one. Chains start at draws
    from the prior, and go on for twice as many draws where 500 are not enough for all data.

    Arguments:
        posterior: The posterior of N data points.
        seed: Seed of the chains.
        progress: Told of the share of the work that has been done.

    Returns:
        Draws by site, each of shape (S draws, C chains, N, \*event shape), on the program's device.

    Raises:
        InputError: If a latent site is discrete, or its support cannot be mapped to real numbers.
        ModuleNotFoundError: If ArviZ is not installed, which is in the extra ``diagnose``.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(3, 5, dtype=torch.float64)
        >>> sample_posterior(Posterior(ppca, x), seed=0)["z"].shape[1:]
        torch.Size([4, 3, 2])
    """
    check_type("posterior", posterior, Posterior)
    counted = (progress or Progress()).part(1.0, total=WARMUP + MORE * DRAWS)
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
        return _run(kernel, start, counted, coordinates.latents)


def mixing(drawn: Latents) -> tuple[np.ndarray, np.ndarray]:
    r"""R-hat of the unit of each datum that has mixed least, and the effective draws of one.

    Arguments:
        drawn: Draws by site, of shape (S draws, C chains, N, \*event shape).

    Returns:
        R-hat, and the effective sample size of bulk or tail, whichever is smaller; (N,) each.
    """
    units = [z.flatten(3) if z.dim() > 3 else z[..., None] for z in drawn.values()]
    chains = chain_statistics(torch.cat(units, 3).transpose(0, 1).double().cpu().numpy())
    return chains["r_hat"].max(1), np.minimum(chains["ess_bulk"], chains["ess_tail"]).min(1)


def mixed(r_hat: np.ndarray, ess: np.ndarray) -> np.ndarray:
    """Whether chains have mixed, by what :func:`mixing` gives (Vehtari et al. 2021)."""
    return (r_hat < MOST_R_HAT) & (ess >= LEAST_ESS)


def _run(
    kernel: NUTS, start: State, counted: Progress, latents: Callable[[State], Latents]
) -> Latents:
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
        for step in range(WARMUP + MORE * DRAWS):
            state = kernel.sample(state)
            if step >= WARMUP:
                kept.append({site: u.detach() for site, u in state.items()})
            counted.advance(1)
            if len(kept) == DRAWS and mixed(*mixing(latents(_stacked(kept)))).all():
                break
        kernel.cleanup()
    counted.finish()
    return latents(_stacked(kept))


def _stacked(states: list[State]) -> State:
    return {site: torch.stack([state[site] for state in states]) for site in states[0]}


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
