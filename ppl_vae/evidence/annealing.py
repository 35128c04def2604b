"""Annealed importance sampling: bounds on log p(x) that do not depend on how good the guide is."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

import torch
from torch import Tensor

from ..choices import Engine, Start
from ..compiled.engine import DENSITY_AND_SLOPE, Compiled, worth_compiling
from ..errors import InputError, check_int, check_shape, check_type
from ..programs.conformance import check_program, check_structure
from ..programs.predictions import prior_predictive
from ..programs.protocol import Program, evaluation_mode
from ..programs.sites import require_density, require_density_anywhere
from ..programs.unconstrained import State, Unconstrained, sum_events
from ..programs.weights import log_mean
from ..runtime import derived_seed
from ..storage.memory import refuse_beyond_memory

TARGET_ACCEPTANCE = 0.65  # optimal for HMC in many dimensions (Beskos et al. 2013)
FIRST_STEP, ADAPTATION_RATE, PILOT_CHAINS = 0.1, 0.1, 4
SCHEDULE_SLOPE = 4.0
BLOCK_ROWS = 4096  # chains x data that move together
TENSOR_BYTES = 500  # beside its elements


@dataclass(frozen=True)
class Annealing:
    """How to anneal.

    Attributes:
        chains: Independent chains C for each datum.
        temperatures: Steps from the starting distribution to the posterior.
        leapfrog_steps: Steps of each Hamiltonian trajectory.
        start: What is annealed from: ``"prior"``, as Wu et al. (2017) do, owes nothing to the
            guide; ``"guide"`` is nearer to the posterior and needs fewer temperatures.

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
            raise InputError(f"chains must be at most {BLOCK_ROWS}, got {self.chains}")
        if self.start not in get_args(Start):
            raise InputError(f"start must be one of {get_args(Start)}, got {self.start!r}")

    def inverse_temperatures(self) -> Tensor:
        """From 0 to 1 along a sigmoid, slow at both ends (Grosse et al. 2015, section 5.1)."""
        ramp = torch.linspace(-SCHEDULE_SLOPE, SCHEDULE_SLOPE, self.temperatures + 1).sigmoid()
        return ((ramp - ramp[0]) / (ramp[-1] - ramp[0])).double()


@dataclass(frozen=True)
class Annealed:
    """What came out of annealing.

    Attributes:
        log_weight: Of every chain and datum, of shape (C, N), in nats. The mean of its
            exponential is p(x) for a forward run, 1 / p(x) for a reverse one.
        acceptance: Mean probability of acceptance of the trajectories, of shape (N,); NaN where
            a single temperature leaves none.
    """

    log_weight: Tensor
    acceptance: Tensor

    @property
    def bound(self) -> Tensor:
        """Log of the mean weight of each datum, of shape (N,), in nats."""
        return log_mean(self.log_weight)[0]

    @property
    def error(self) -> Tensor:
        """Standard error of :attr:`bound`, by the delta method; NaN for a single chain."""
        return log_mean(self.log_weight)[1]


def anneal(
    program: Program,
    x: Tensor,
    annealing: Annealing | None = None,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
) -> Annealed:
    r"""Estimate p(x) by annealed importance sampling (Neal 2001) with Hamiltonian transitions.

    Chains of draws go through :math:`\pi_t(z) \propto s(z)^{1 - \beta_t}\, p(x, z)^{\beta_t}`, from
    the start s at :math:`\beta_0 = 0` to the posterior at :math:`\beta_T = 1`, and

    .. math:: \log w = \sum_{t=1}^T (\beta_t - \beta_{t-1}) \log \frac{p(x, z_{t-1})}{s(z_{t-1})}

    has :math:`E[w] = p(x)` exactly, so that its logarithm is a lower bound in expectation; it is
    above log p(x) by b with a probability of at most :math:`e^{-b}` (Grosse et al. 2015, eq. 3).
    The step size of each datum at each temperature is adapted in a pilot run of other chains and
    frozen before the run that counts, which leaves the estimate unbiased. Latent sites are moved
    in unconstrained coordinates; they must be continuous.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, \*data_shape).
        annealing: How to anneal.
        seed: Seed of chains and trajectories.
        on_block: Called with the number of transitions x chains x data done; the total is
            :func:`transitions`.

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
    check_program(program, x)
    _check_latents(program, x, annealing.start)
    parts = []
    with evaluation_mode(program, derived_seed(seed, "annealing")):
        for path in _paths(program, x, annealing, on_block):
            steps = _pilot(path)
            start = path.draw(annealing.chains)
            parts.append(_run(path, start, steps))
    return _joined(parts)


def bidirectional(
    program: Program,
    data_shape: tuple[int, ...],
    size: int,
    annealing: Annealing | None = None,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
) -> tuple[Tensor, Annealed, Annealed]:
    r"""Bound log p(x) from below and above, on data drawn from the model (Grosse et al. 2015).

    For :math:`z, x \sim p(z, x)`, z is an exact draw from p(z | x). Chains that start at it and go
    back to the start of :func:`anneal` have weights of mean 1 / p(x), whose logarithm is, with its
    sign changed, an upper bound in expectation. The two bounds certify each other: in expectation
    both are off by less than their gap. The model must use x at its observed site only.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data_shape: Shape of one datum.
        size: Number of data N to draw.
        annealing: How to anneal.
        seed: Seed of data, chains and trajectories.
        on_block: Called with the number of transitions x chains x data done; the total is
            :func:`transitions` with ``both_ways``.

    Returns:
        The data, and the forward and the reverse run; the upper bound is minus the latter's
        ``bound``.

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
    size = check_int("size", size)
    check_structure(program, torch.zeros(1, *check_shape(data_shape)))
    drawn = prior_predictive(program, data_shape, size, derived_seed(seed, "simulated data"))
    check_program(program, drawn.x)
    _check_latents(program, drawn.x, annealing.start)
    forward, reverse, first = [], [], 0
    with evaluation_mode(program, derived_seed(seed, "annealing")):
        for path in _paths(program, drawn.x, annealing, on_block):
            rows = slice(first, first + len(path.x))
            first += len(path.x)
            steps = _pilot(path)
            forward.append(_run(path, path.draw(annealing.chains), steps))
            exact = {
                site: z[rows].expand(annealing.chains, *z[rows].shape)
                for site, z in drawn.latents.items()
            }
            reverse.append(_run(path, path.posterior.coordinates(exact), steps, reverse=True))
    return drawn.x, _joined(forward), _joined(reverse)


def transitions(size: int, annealing: Annealing, both_ways: bool = False) -> int:
    """Transitions x chains x data that a run on ``size`` data takes, for progress bars."""
    chains = PILOT_CHAINS + annealing.chains * (2 if both_ways else 1)
    return size * chains * (annealing.temperatures - 1)


class _Path:
    """The distributions between start and posterior, for some of the data."""

    def __init__(
        self,
        program: Program,
        x: Tensor,
        annealing: Annealing,
        on_block: Callable[[int], None] | None,
    ) -> None:
        self.posterior, self.annealing = Unconstrained(program, x), annealing
        self.x = self.posterior.x
        self.on_block = on_block or (lambda done: None)
        calls = annealing.temperatures * (annealing.leapfrog_steps + 1)
        compiles = worth_compiling(calls, annealing.chains * self.x.numel(), DENSITY_AND_SLOPE)
        engine: Engine = "compiled" if compiles else "eager"
        self._fast_slope = Compiled(self._slope, engine, [program], type(program).__name__)

    def draw(self, chains: int) -> State:
        """Draws from the start, of shape (C, N, ...)."""
        return self.posterior.draw(chains, self.annealing.start)

    def energies(self, state: State) -> tuple[Tensor, Tensor]:
        """Log densities of the start, and of the model with the data, each of shape (C, N)."""
        return self.posterior.densities(state, with_guide=self.annealing.start == "guide")

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
            step: The step size of each datum, of shape (N,).

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
        self.on_block(probability.numel())
        return {s: _where(accepted, proposal[s], u) for s, u in state.items()}, probability


def _paths(
    program: Program, x: Tensor, annealing: Annealing, on_block: Callable[[int], None] | None
) -> Iterator[_Path]:
    rows = min(len(x), BLOCK_ROWS // annealing.chains)
    taken = annealing.temperatures * (TENSOR_BYTES + 3 * 8 * rows)  # step sizes and acceptance
    refuse_beyond_memory(taken, f"temperatures={annealing.temperatures}", "take fewer")
    for part in x.split(max(1, BLOCK_ROWS // annealing.chains)):
        yield _Path(program, part, annealing, on_block)


def _pilot(path: _Path) -> Tensor:
    """The step size of each datum at each inverse temperature but the last, of shape (T, N)."""
    state = path.draw(PILOT_CHAINS)
    log_step = torch.full((len(path.x),), math.log(FIRST_STEP)).to(path.x)
    table = [log_step]
    for beta in path.annealing.inverse_temperatures()[1:-1]:
        state, probability = path.move(state, beta, log_step.exp())
        log_step = log_step + ADAPTATION_RATE * (probability.mean(0) - TARGET_ACCEPTANCE)
        table.append(log_step)
    return torch.stack(table).exp()


def _run(path: _Path, state: State, steps: Tensor, reverse: bool = False) -> Annealed:
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
    return Annealed(log_weight.cpu(), mean.cpu())


def _joined(parts: list[Annealed]) -> Annealed:
    """The same run, of the data of all parts."""
    log_weight = torch.cat([part.log_weight for part in parts], dim=1)
    # Minus infinity is a weight of zero; NaN and infinity are no weights.
    if not (finite := (log_weight < math.inf).all(0)).all():
        raise InputError(
            f"the annealed weight of datum {int((~finite).nonzero()[0])} is not finite: check that "
            "datum, and whether log p(x, z) is finite wherever the prior has draws"
        )
    return Annealed(log_weight, torch.cat([part.acceptance for part in parts]))


def _check_latents(program: Program, x: Tensor, start: Start) -> None:
    require_density(program, x)
    if start == "guide":
        require_density_anywhere(program, x)
    Unconstrained(program, x[:1])


def _kinetic(momentum: State) -> Tensor:
    return torch.stack([sum_events(m.square()) for m in momentum.values()]).sum(0) / 2


def _where(accepted: Tensor, proposal: Tensor, state: Tensor) -> Tensor:
    shape = accepted.shape + (1,) * (state.dim() - 2)
    return torch.where(accepted.reshape(shape), proposal, state)
