"""Annealed importance sampling: bounds on log p(x) that do not depend on how good the guide is."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor

from ..choices import Engine, Start
from ..compiled.engine import DENSITY_AND_SLOPE, Compiled, worth_compiling
from ..errors import InputError, check_int, check_shape, check_type
from ..programs.conformance import check_structure
from ..programs.posterior import Data, Posterior
from ..programs.predictions import prior_predictive
from ..programs.protocol import Program
from ..programs.sites import Latents
from ..programs.unconstrained import State, Unconstrained, sum_events
from ..progress import OnProgress, Progress
from ..runtime import derived_seed
from ..storage.memory import refuse_beyond_memory
from .annealed import Annealed, spread_of_starts

TARGET_ACCEPTANCE = 0.65  # optimal for HMC in many dimensions (Beskos et al. 2013)
FIRST_STEP, ADAPTATION_RATE, PILOT_CHAINS = 0.1, 0.1, 4
SCHEDULE_SLOPE = 4.0
BLOCK_ROWS = 4096  # chains x data that move together
TENSOR_BYTES = 500  # beside its elements


@dataclass(frozen=True)
class Annealing:
    """How to anneal.

    Attributes:
        chains: Independent chains C for each data point.
        temperatures: Steps from the starting distribution to the posterior.
        leapfrog_steps: Steps of each Hamiltonian trajectory.
        start: What is annealed from: ``"prior"``, as Wu et al. (2017) do, owes nothing to the
            guide; ``"guide"`` is nearer to the posterior and needs fewer temperatures;
            ``"mixture"``, half of the chains from each, finds modes that the guide misses.

    Raises:
        InputError: If a value is out of its range.
    """

    chains: int = 16
    temperatures: int = 500
    leapfrog_steps: int = 10
    start: Start = "prior"

    def __post_init__(self) -> None:
        for name in ("chains", "temperatures", "leapfrog_steps"):
            check_int(name, getattr(self, name))
        if self.chains > BLOCK_ROWS:
            raise InputError("chains", f"must be at most {BLOCK_ROWS}, got {self.chains}")
        if self.start not in get_args(Start):
            raise InputError("start", f"must be one of {get_args(Start)}, got {self.start!r}")

    def inverse_temperatures(self) -> Tensor:
        """From 0 to 1 along a sigmoid, slow at both ends (Grosse et al. 2015, section 5.1)."""
        ramp = torch.linspace(-SCHEDULE_SLOPE, SCHEDULE_SLOPE, self.temperatures + 1).sigmoid()
        return ((ramp - ramp[0]) / (ramp[-1] - ramp[0])).double()


def anneal(
    program: Program,
    data: Data,
    annealing: Annealing | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Annealed:
    r"""Estimate p(x) by annealed importance sampling (Neal 2001) with Hamiltonian transitions.

    Chains of draws go through :math:`\pi_t(z) \propto s(z)^{1 - \beta_t}\, p(x, z)^{\beta_t}`, from
    the start s at :math:`\beta_0 = 0` to the posterior at :math:`\beta_T = 1`, and

    .. math:: \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{s(z_{t-1})}

    has :math:`E[w] = p(x)` exactly, so that its logarithm is a lower bound in expectation; it is
    above log p(x) by b with a probability of at most :math:`e^{-b}` (Grosse et al. 2015, eq. 3).
    The step size of each data point at each temperature is adapted in a pilot run of other chains
    and frozen before the run that counts, which leaves the estimate unbiased. Latent sites are
    moved in unconstrained coordinates; they must be continuous.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        annealing: How to anneal.
        seed: Seed of chains and trajectories.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Raises:
        InputError: If the program does not conform, its guide is a point mass, or a latent site
            cannot be moved.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(20, 5, dtype=torch.float64)
        >>> found = anneal(ppca, x, Annealing(chains=50, temperatures=30))
        >>> (found.bound - ppca.evidence(x)).mean().abs().item() < 0.05
        True
    """
    annealing = Annealing() if annealing is None else annealing
    check_type("annealing", annealing, Annealing)
    posterior = Posterior(program, data)
    progress = Progress(on_progress, transitions(len(posterior), annealing))
    return anneal_posterior(posterior, annealing, seed, progress)


def anneal_posterior(
    posterior: Posterior,
    annealing: Annealing,
    seed: int,
    progress: Progress,
    keep: bool = False,
) -> Annealed:
    """:func:`anneal`, of a posterior; progress is told of each transition of each chain.

    With ``keep``, what comes out has the latents where chains end.
    """
    _check_latents(posterior, annealing.start)
    parts = []
    with posterior.evaluation_mode(derived_seed(seed, "annealing")):
        for _, path in _paths(posterior, annealing, progress):
            steps = _pilot(path)
            start = path.draw(annealing.chains)
            parts.append(_run(path, start, steps, keep=keep))
    return _joined(parts)


def bidirectional(
    program: Program,
    data_shape: tuple[int, ...],
    size: int,
    annealing: Annealing | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    covariates: Mapping[str, Tensor] | None = None,
) -> tuple[Any, Annealed, Annealed]:
    r"""Bound log p(x) from below and above, on data drawn from the model (Grosse et al. 2015).

    For :math:`z, x \sim p(z, x)`, z is an exact draw from p(z | x). Chains that start at it and go
    back to the start of :func:`anneal` have weights of mean 1 / p(x), whose logarithm is, with its
    sign changed, an upper bound in expectation. The two bounds certify each other: in expectation
    both are off by less than their gap. The model must use x at its observed site only.

    There is one exact draw for each datum, and all reverse chains of the datum start at it. The
    spread of the gap over data tells what that adds to the upper bound's error: see
    :func:`spread_of_starts`.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data_shape: Shape of one data point.
        size: Number of data points N to draw.
        annealing: How to anneal.
        seed: Seed of data, chains and trajectories.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.
        covariates: What the program takes beside ``x``, one row a data point to draw.

    Returns:
        The data, ``x`` or, given covariates, a batch; and the forward and the reverse run. The
        upper bound is minus the latter's ``bound``, and its ``error`` the latter's.

    Raises:
        InputError: As :func:`anneal` does.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca = LinearGaussian((5,))
        >>> x, lower, upper = bidirectional(ppca, (5,), 20, Annealing(temperatures=100))
        >>> (lower.bound.mean() <= -upper.bound.mean()).item()
        True
    """
    annealing = Annealing() if annealing is None else annealing
    check_type("annealing", annealing, Annealing)
    size, shape = check_int("size", size), check_shape(data_shape)
    first_rows = {name: tensor[:1] for name, tensor in (covariates or {}).items()}
    check_structure(program, {"x": torch.zeros(1, *shape), **first_rows})
    seed_of_data = derived_seed(seed, "simulated data")
    drawn = prior_predictive(program, shape, size, seed_of_data, covariates)
    posterior = Posterior(program, drawn.batch)
    progress = Progress(on_progress, transitions(size, annealing, both_ways=True))
    lower, upper = anneal_both_ways(posterior, drawn.latents, annealing, seed, progress)
    return (drawn.batch if covariates else drawn.x), lower, upper


def anneal_both_ways(
    posterior: Posterior,
    exact: Latents,
    annealing: Annealing,
    seed: int,
    progress: Progress,
) -> tuple[Annealed, Annealed]:
    """The forward and the reverse run of :func:`bidirectional`.

    Arguments:
        posterior: The posterior of simulated data.
        exact: The latents that they were simulated from, each of shape (N, *event shape).
        annealing: How to anneal.
        seed: Seed of chains and trajectories.
        progress: Told of each transition of each chain.
    """
    _check_latents(posterior, annealing.start)
    forward, reverse = [], []
    with posterior.evaluation_mode(derived_seed(seed, "annealing")):
        for rows, path in _paths(posterior, annealing, progress):
            steps = _pilot(path)
            forward.append(_run(path, path.draw(annealing.chains), steps))
            start = {s: z[rows].expand(annealing.chains, *z[rows].shape) for s, z in exact.items()}
            reverse.append(_run(path, path.coordinates.coordinates(start), steps, reverse=True))
    lower, upper = _joined(forward), _joined(reverse)
    return lower, replace(upper, shared=spread_of_starts(lower, upper))


def transitions(size: int, annealing: Annealing, both_ways: bool = False) -> int:
    """Transitions x chains x data that a run on ``size`` data takes, for progress bars."""
    chains = PILOT_CHAINS + annealing.chains * (2 if both_ways else 1)
    return size * chains * (annealing.temperatures - 1)


class _Path:
    """The distributions between start and posterior, for some of the data."""

    def __init__(self, posterior: Posterior, annealing: Annealing, progress: Progress) -> None:
        self.coordinates, self.annealing = Unconstrained(posterior), annealing
        self.x, self.progress, program = posterior.placed.x, progress, posterior.program
        calls = annealing.temperatures * (annealing.leapfrog_steps + 1)
        compiles = worth_compiling(calls, annealing.chains * self.x.numel(), DENSITY_AND_SLOPE)
        engine: Engine = "compiled" if compiles else "eager"
        self._fast_slope = Compiled(self._slope, engine, [program], type(program).__name__)

    def draw(self, chains: int) -> State:
        """Draws from the start, of shape (C, N, ...)."""
        return self.coordinates.draw(chains, self.annealing.start)

    def energies(self, state: State) -> tuple[Tensor, Tensor]:
        """Log densities of the start, and of the model with the data, each of shape (C, N)."""
        return self.coordinates.densities(state, self.annealing.start)

    def slope(self, state: State, beta: Tensor) -> tuple[Tensor, State]:
        """Log density at an inverse temperature, of shape (C, N), and its gradient."""
        chains = len(next(iter(state.values())))
        # The pilot's chains are few, and not worth a graph of their own.
        slope = self._fast_slope if chains == self.annealing.chains else self._slope
        return slope(state, beta)

    def _slope(self, state: State, beta: Tensor) -> tuple[Tensor, State]:
        with torch.enable_grad():
            state = {site: u.detach().requires_grad_() for site, u in state.items()}
            start, joint = self.energies(state)
            log_density = start + beta.to(start) * (joint - start)
            gradient = torch.autograd.grad(log_density.sum(), list(state.values()))
        return log_density.detach(), dict(zip(state, gradient, strict=True))

    def move(self, state: State, beta: Tensor, step: Tensor) -> tuple[State, Tensor]:
        """One Hamiltonian transition with unit masses (Neal 2011, figure 2).

        Arguments:
            state: Where the chains are.
            beta: The inverse temperature, a scalar.
            step: The step size of each data point, of shape (N,).

        Returns:
            Where the chains are after it, and the probability with which each proposal was
            accepted, of shape (C, N).
        """
        steps = {site: step.reshape(-1, *(1,) * (u.dim() - 2)) for site, u in state.items()}
        momentum = {site: torch.randn_like(u) for site, u in state.items()}
        log_density, gradient = self.slope(state, beta)
        before = log_density - _kinetic(momentum)
        proposal = state
        for _ in range(self.annealing.leapfrog_steps):
            momentum = {s: m + steps[s] / 2 * gradient[s] for s, m in momentum.items()}
            proposal = {s: u + steps[s] * momentum[s] for s, u in proposal.items()}
            log_density, gradient = self.slope(proposal, beta)
            momentum = {s: m + steps[s] / 2 * gradient[s] for s, m in momentum.items()}
        change = log_density - _kinetic(momentum) - before
        # A trajectory that diverged ends where no density is known: stay.
        probability = change.clamp(max=0).exp().nan_to_num(0.0)
        accepted = torch.rand_like(probability) < probability
        self.progress.advance(probability.numel())
        return {s: _where(accepted, proposal[s], u) for s, u in state.items()}, probability


def _paths(
    posterior: Posterior, annealing: Annealing, progress: Progress
) -> Iterator[tuple[slice, _Path]]:
    """The paths of some data points at a time, with their places."""
    rows = min(len(posterior), BLOCK_ROWS // annealing.chains)
    taken = annealing.temperatures * (TENSOR_BYTES + 3 * 8 * rows)  # step sizes and acceptance
    refuse_beyond_memory(taken, f"temperatures={annealing.temperatures}", "take fewer")
    for start in range(0, len(posterior), rows):
        place = slice(start, start + rows)
        yield place, _Path(posterior[place], annealing, progress)


def _pilot(path: _Path) -> Tensor:
    """The step size of each data point at all inverse temperatures but the last, (T, N)."""
    state = path.draw(PILOT_CHAINS)
    log_step = torch.full((len(path.x),), math.log(FIRST_STEP)).to(path.x)
    table = [log_step]
    for beta in path.annealing.inverse_temperatures()[1:-1]:
        state, probability = path.move(state, beta, log_step.exp())
        log_step = log_step + ADAPTATION_RATE * (probability.mean(0) - TARGET_ACCEPTANCE)
        table.append(log_step)
    return torch.stack(table).exp()


def _run(
    path: _Path, state: State, steps: Tensor, reverse: bool = False, keep: bool = False
) -> Annealed:
    """Go along the path, or back from its end, with frozen step sizes."""
    betas = path.annealing.inverse_temperatures()
    indices = range(len(betas))
    log_weight: Any = 0.0
    acceptance = []
    for here, there in pairwise(reversed(indices) if reverse else indices):
        start, joint = path.energies(state)
        log_weight = log_weight + (betas[there] - betas[here]) * (joint - start).double()
        if there not in (0, len(betas) - 1):
            state, probability = path.move(state, betas[there], steps[there])
            acceptance.append(probability.mean(0))
    mean = torch.stack(acceptance).mean(0) if acceptance else torch.full((len(path.x),), math.nan)
    ends = path.coordinates.latents(state) if keep else {}
    return Annealed(log_weight.cpu(), mean.cpu(), latents={s: z.cpu() for s, z in ends.items()})


def _joined(parts: list[Annealed]) -> Annealed:
    """The same run, of the data of all parts."""
    log_weight = torch.cat([part.log_weight for part in parts], dim=1)
    # Minus infinity is a weight of zero; NaN and infinity are no weights.
    if not (finite := (log_weight < math.inf).all(0)).all():
        raise InputError(
            f"datum {int((~finite).nonzero()[0])}",
            "has an annealed weight that is not finite",
            "check it, and whether log p(x, z) is finite wherever the prior has draws",
        )
    ends = {s: torch.cat([p.latents[s] for p in parts], dim=1) for s in parts[0].latents}
    return Annealed(log_weight, torch.cat([p.acceptance for p in parts]), latents=ends)


def _check_latents(posterior: Posterior, start: Start) -> None:
    posterior.sites.require_density()
    if start != "prior":
        posterior.sites.require_tractable_density()
    Unconstrained(posterior)


def _kinetic(momentum: State) -> Tensor:
    return torch.stack([sum_events(m.square()) for m in momentum.values()]).sum(0) / 2


def _where(accepted: Tensor, proposal: Tensor, state: Tensor) -> Tensor:
    shape = accepted.shape + (1,) * (state.dim() - 2)
    return torch.where(accepted.reshape(shape), proposal, state)
