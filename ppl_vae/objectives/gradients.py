"""Estimators of the guide's gradient: whether they agree, and how noisy each is."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import InputError, check_int
from ..programs.posterior import Data, Posterior
from ..programs.protocol import Program, evaluation_mode, is_random
from ..progress import OnProgress, Progress
from ..runtime import derived_seed
from ..storage.memory import refuse_beyond_memory
from .estimators import make_objective
from .score_function import DetachedDraws, ScoreFunctionELBO

DIRECTIONS = 16  # random directions in which means are compared


@dataclass(frozen=True)
class Gradient:
    """One estimator of the gradient of a bound by the guide's parameters.

    Attributes:
        target: What it is the gradient of, ``"ELBO"`` or ``"importance-weighted bound"``.
        mean: Mean over repeats, of shape (P parameters,), in nats per datum.
        variance: Variance over repeats of each of its entries, of shape (P,).
        projections: Every repeat along some random directions, of shape (R repeats, D).
    """

    target: str
    mean: Tensor
    variance: Tensor
    projections: Tensor

    @property
    def total_variance(self) -> float:
        """The sum of variances: the mean squared distance of an estimate from its mean."""
        return self.variance.sum().item()

    @property
    def signal_to_noise(self) -> float:
        """Length of the mean over the length of a typical deviation from it."""
        if self.total_variance == 0:
            return math.inf
        # The squared length of an average is too long by the average's own variance.
        squared = self.mean.square().sum().item() - self.total_variance / len(self.projections)
        return math.sqrt(max(squared, 0.0) / self.total_variance)

    def agreement(self, other: "Gradient") -> float:
        """The p-value of the hypothesis that two estimators have the same mean.

        Welch's t-test along each of the random directions, combined by Bonferroni's inequality:
        of estimators that agree, at most a share p comes out below p (about, where projections
        are far from normal).
        """
        from scipy.stats import ttest_ind  # an extra: the estimators themselves do without it

        ours, theirs = (g.projections.double().numpy() for g in (self, other))
        if not (np.ptp(ours, axis=0).any() or np.ptp(theirs, axis=0).any()):
            return float(np.allclose(ours[0], theirs[0], atol=1e-9))
        with warnings.catch_warnings():
            # What SciPy says of an estimator that varies by rounding only, where a guide is exact.
            warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
            p = ttest_ind(ours, theirs, equal_var=False).pvalue
        return min(1.0, float(p.min()) * len(p))


ELBO, BOUND = "ELBO", "importance-weighted bound"

ESTIMATORS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "reparameterized": (ELBO, partial(make_objective, "elbo")),
    "score function": (ELBO, partial(make_objective, "elbo")),
    "sticking the landing": (ELBO, partial(make_objective, "stl")),
    "reparameterized, K draws": (BOUND, partial(make_objective, "iw")),
    "doubly reparameterized, K draws": (BOUND, partial(make_objective, "dreg")),
}
"""Target and loss of each estimator, given K draws; for guides that are reparameterized."""

SCORE_FUNCTIONS: dict[str, tuple[str, Callable[[int], Any]]] = {
    "score function": ESTIMATORS["score function"],
    "score function, other draws as baseline": (ELBO, ScoreFunctionELBO),
    "score function, K draws (VIMCO)": (
        BOUND,
        partial(ScoreFunctionELBO, importance_weighted=True),
    ),
}
"""The same for guides that have a site without pathwise draws, such as a discrete one."""


def compare_gradients(
    program: Program,
    data: Data,
    particles: int = 5,
    repeats: int = 200,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> dict[str, Gradient]:
    r"""Estimate the gradient by the guide's parameters over and over, by each estimator.

    Of the ELBO, each of K draws and averaged over them: reparameterized (Kingma & Welling 2014),
    score function (Ranganath et al. 2014), sticking the landing (Roeder et al. 2017). Of the
    importance-weighted bound of K draws: reparameterized (Burda et al. 2015) and doubly
    reparameterized (Tucker et al. 2018). Those of one target have one mean and differ in variance.

    A guide with a site whose draws have no path to its parameters, such as a discrete one, has
    score functions only: of the ELBO without and with the other draws as baseline (Kool et al.
    2019), and of the bound (VIMCO, Mnih & Rezende 2016).

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: The batch whose gradient it is: ``x`` of shape (N, \*data_shape), or a batch of ``x``
            and covariates.
        particles: Draws K for each data point.
        repeats: How often each is estimated, R.
        seed: Seed of the draws.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        By the name of the estimator, as in ``ESTIMATORS`` or ``SCORE_FUNCTIONS``.

    Raises:
        InputError: If the program does not conform, its guide has no density at a given z, or
            ``particles`` or ``repeats`` is less than 2.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(20, 5, dtype=torch.float64)
        >>> found = compare_gradients(ppca, x, repeats=50)
        >>> usual, pathwise = found["reparameterized"], found["sticking the landing"]
        >>> usual.agreement(pathwise) > 0.01
        True
    """
    particles, repeats = check_int("particles", particles, 2), check_int("repeats", repeats, 2)
    posterior = Posterior(program, data)
    taken = 8 * particles * posterior.batch.x.numel()
    refuse_beyond_memory(taken, f"particles={particles}", "take fewer")
    posterior.sites.require_tractable_density()
    estimators = SCORE_FUNCTIONS if posterior.sites.without_path else ESTIMATORS
    batch, size_of_batch = posterior.placed, len(posterior)
    progress = Progress(on_progress, len(estimators) * repeats)
    parameters = _guide_parameters(program, batch, seed)
    size = sum(p.numel() for p in parameters)
    generator = torch.Generator().manual_seed(derived_seed(seed, "directions"))
    directions = torch.randn(DIRECTIONS, size, generator=generator).to(batch.x) / size**0.5
    found = {}
    for name, (target, objective) in estimators.items():
        loss = objective(particles)
        handler = DetachedDraws() if name == "score function" else nullcontext()
        with _differentiating(program, derived_seed(seed, name)), handler:
            moments = _Moments(directions)
            for _ in range(repeats):
                for parameter in parameters:
                    parameter.grad = None
                batch.call(partial(loss.loss_and_grads, program.model, program.guide))
                gradient = torch.cat([_gradient(p) for p in parameters])
                if not gradient.isfinite().all():
                    raise InputError(
                        f"the {name} gradient",
                        "is not finite",
                        "look for outliers in the data, or train longer at a lower rate",
                    )
                moments.add(-gradient / size_of_batch)
                progress.advance(1)
            found[name] = moments.summary(target)
    return found


class _Moments:
    """Mean and variance of vectors that come one by one (Welford 1962)."""

    def __init__(self, directions: Tensor) -> None:
        self.directions = directions
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.projections: list[Tensor] = []

    def add(self, vector: Tensor) -> None:
        self.projections.append((self.directions @ vector).double().cpu())
        vector = vector.double()
        before = vector - self.mean
        self.mean = self.mean + before / len(self.projections)
        self.squares = self.squares + before * (vector - self.mean)

    def summary(self, target: str) -> Gradient:
        variance = self.squares / (len(self.projections) - 1)
        return Gradient(target, self.mean.cpu(), variance.cpu(), torch.stack(self.projections))


@contextmanager
def _differentiating(program: Program, seed: int) -> Iterator[None]:
    """:func:`evaluation_mode`, with gradients; the parameters' own come back as they were."""
    kept = [parameter.grad for parameter in program.parameters()]
    try:
        with evaluation_mode(program, seed), torch.enable_grad(), warnings.catch_warnings():
            # Of a NaN loss Pyro warns, and compare_gradients complains.
            warnings.filterwarnings("ignore", "Encountered", UserWarning)
            yield
    finally:
        for parameter, grad in zip(program.parameters(), kept, strict=True):
            parameter.grad = grad


def _gradient(parameter: nn.Parameter) -> Tensor:
    grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return grad.detach().flatten()


def _guide_parameters(program: Program, batch: Batch, seed: int) -> list[nn.Parameter]:
    """The parameters that the guide's density depends on."""
    trained = [p for p in program.parameters() if p.requires_grad]
    with _differentiating(program, seed):
        trace = batch.rows(slice(1)).call(poutine.trace(program.guide).get_trace)
        trace.compute_log_prob()
        log_q = torch.stack([n["log_prob_sum"] for n in trace.nodes.values() if is_random(n)]).sum()
        if not log_q.requires_grad:
            raise InputError("the guide", "has frozen parameters only", "set requires_grad=True")
        slopes = torch.autograd.grad(log_q, trained, allow_unused=True)
    return [p for p, slope in zip(trained, slopes, strict=True) if slope is not None]
