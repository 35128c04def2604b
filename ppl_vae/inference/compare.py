"""Programs compared by log p(x) of the same data, in pairs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..choices import ComparisonEstimator, SplitName
from ..data.dataset import DataSet
from ..errors import InputError, check_int, check_type
from ..evidence.scores import Estimate
from ..programs.batches import match_data
from ..programs.posterior import Posterior
from ..programs.protocol import Program
from ..progress import OnProgress, Progress
from .estimate import DATA_POINTS, estimate

BOUNDS: dict[ComparisonEstimator, str] = {
    "iw": "iw_bound",
    "refined": "refined_bound",
    "ais": "ais_bound",
}
"""The bound on log p(x) that each estimator gives."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Programs by their bounds on log p(x), the best first.

    Attributes:
        estimator: What the bounds are.
        bounds: The mean bound of each program, in nats per datum.
        differences: To the best one, in pairs over data; zero for itself.
        better: For how many data points the bound is above that of the best one.
        per_datum: The bounds of each data point, of shape (N,).
    """

    estimator: ComparisonEstimator
    bounds: dict[str, Estimate]
    differences: dict[str, Estimate]
    better: dict[str, int]
    per_datum: dict[str, Tensor]

    def __repr__(self) -> str:
        shown = (f"{name} {difference}" for name, difference in self.differences.items())
        return f"Comparison({self.estimator}: {', '.join(shown)})"


def compare(
    programs: Mapping[str, Program],
    data: DataSet,
    estimator: ComparisonEstimator = "iw",
    draws: int = 100,
    *,
    split: SplitName = "test",
    data_points: int | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Comparison:
    """Compare programs by log p(x) of held-out data: one draw of the data, and one estimator.

    Differences are taken data point by data point, so that what is hard about a data point for all
    of them is in no standard error. What is compared are bounds from below: of two programs with
    the same log p(x), the one whose guide is nearer to its posterior has the higher bound.
    ``"refined"`` and ``"ais"`` owe less to the guide, or nothing, and take longer.

    Arguments:
        programs: Two or more programs by name, all fitted to the training data of ``data``.
        data: The data.
        estimator: ``"iw"``, ``"refined"`` or ``"ais"``; see ``ppl_vae.inference.estimate``.
        draws: Draws from the guide for each data point.
        split: Which data.
        data_points: Compare on the first so many (by default all; 1000 for ``"refined"``, 100 for
            ``"ais"``).
        seed: Seed of binarization and draws, the same for all.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Raises:
        InputError: If there are fewer than two programs, one does not take the data or has a guide
            without a density, or their densities are not of the same thing: discrete and continuous
            ones, of other observed sites, or given other covariates.

    Example:
        >>> from ppl_vae import make_data
        >>> from ppl_vae.models import LinearGaussian
        >>> data = make_data(LinearGaussian((5,)).model(size=100).detach())
        >>> found = compare({"a": LinearGaussian((5,)), "b": LinearGaussian((5,))}, data)
        >>> [found.differences[name].mean <= 0 for name in found.bounds]
        [True, True]
    """
    check_type("programs", programs, dict)
    if len(programs) < 2:
        raise InputError("programs", f"are {len(programs)}: a comparison takes two or more")
    if estimator not in BOUNDS:
        raise InputError("estimator", f"must be one of {', '.join(BOUNDS)}, got {estimator!r}")
    if data_points is not None:
        check_int("data_points", data_points)
    batches = {}
    for name, program in programs.items():
        matched = match_data(program, data)
        count = data_points or DATA_POINTS.get(estimator)
        batches[name] = matched.batch(split, seed).rows(slice(count))
    first = next(iter(batches.values()))
    if data_points is not None and data_points > first.size:
        raise InputError("data_points", f"must be at most {first.size}, got {data_points}")
    _refuse_unlike({n: Posterior(programs[n], batch) for n, batch in batches.items()})
    progress, values = Progress(on_progress, len(programs)), {}
    for name, program in programs.items():
        part = progress.part(1)
        _, scores = estimate(
            estimator, program, batches[name], draws, seed=seed, on_progress=part.advance
        )
        values[name] = scores.per_datum[BOUNDS[estimator]]
        part.finish()
    order = sorted(values, key=lambda name: -values[name].mean().item())
    best = values[order[0]]
    return Comparison(
        estimator,
        {name: Estimate.of(values[name]) for name in order},
        {name: Estimate.of(values[name] - best) for name in order},
        {name: int((values[name] > best).sum()) for name in order},
        {name: values[name] for name in order},
    )


def _refuse_unlike(posteriors: Mapping[str, Posterior]) -> None:
    """Refuse programs whose densities are not of the same thing."""
    known: dict[str, dict[str, Any]] = {}
    for name, posterior in posteriors.items():
        sites = posterior.sites
        if sites.is_point_mass:
            raise InputError(name, "has a guide without a density, and so no bound on log p(x)")
        given = posterior.batch.covariates.keys() - sites.observed.keys() - {"mask"}
        known[name] = {
            "gives probabilities of": _discrete(posterior),
            "observes": ", ".join(sorted(sites.observed)),
            "is given": ", ".join(sorted(given)) or "no covariates",
        }
    first, *others = known
    for name in others:
        for what, value in known[first].items():
            if known[name][what] != value:
                raise InputError(
                    name,
                    f"{what} {known[name][what]}, and {first} {what} {value}: their log p cannot "
                    "be compared",
                    "compare those alone whose densities are of the same thing",
                )


def _discrete(posterior: Posterior) -> str:
    """Which numbers of a datum have probabilities, in words; all others have densities."""
    batch, likelihood = posterior.batch, posterior.sites.observed["x"]
    middle = torch.full(batch.x.shape[1:], 0.3719, device=posterior.device, dtype=posterior.dtype)
    if bool(likelihood.support.is_discrete):
        return "all numbers"
    inside = likelihood.support.check(middle)
    if inside.dim() != 1 or inside.all():
        return "no number, but densities"
    return f"the columns {', '.join(map(str, (~inside).nonzero().flatten().tolist()))}"
