"""Whether a fit is better than none: than independent columns, and than the mean of the data."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..data.missing import observed
from ..evidence.independent import column_moments, independent_columns
from ..evidence.scores import Estimate, Scores
from ..programs.batches import match_data
from ..programs.posterior import Posterior
from ..programs.predictions import posterior_predictive
from ..programs.protocol import Program
from ..training.history import History
from ..training.settings import Settings

ERRORS = 2.0  # standard errors: what is as good falls below by chance in 2.3 % of fits
FAR_SCALE = 10.0  # from 1, or of an offset from 0 in standard deviations
OUTLIER = 100.0  # robust standard deviations
RARE = 0.01  # of the values of a column: more are no outliers
PRECISION = 1e-3  # of a standard deviation, to which a program should know values
SHOWN = 1000  # data points that are reconstructed
NAMED = 3  # columns, of each cause
COLLAPSED = 0.1  # nats
FEW_STEPS = 1000
CODES = ("category", "ordered")  # kinds of columns whose values have no mean


@dataclass(frozen=True)
class FitQuality:
    """How a fit compares with models without latent variables.

    Attributes:
        independent: Log density of the test data under independent columns; ``None`` where it
            cannot be compared. See :func:`ppl_vae.evidence.independent.independent_columns`.
        gain: How much the bound on log p(x) is above it, in pairs, without outliers.
        warnings: What is wrong, and why, one line each.
    """

    independent: Estimate | None
    gain: Estimate | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Outlier:
    """A value that is far from all others of its column."""

    split: str
    place: int
    row: int
    column: int
    value: float
    deviations: float


def judge_fit(
    program: Program,
    data: DataSet,
    history: History,
    settings: Settings,
    scores: Scores,
) -> FitQuality:
    """Compare a fit with independent columns, and its reconstructions with the mean of the data.

    Outliers, beyond 100 robust standard deviations, are told apart: they alone would decide.

    Arguments:
        program: The fitted program.
        data: What it was fitted to.
        history, settings: How.
        scores: Of the test data, ``data.batch("test", settings.seed)``.

    Example:
        >>> from ppl_vae import fit, make_data, score
        >>> from ppl_vae.models import VAE
        >>> data, settings = make_data(1e6 * torch.randn(100, 2)), Settings(epochs=1)
        >>> vae = VAE((2,), latent_dim=1, hidden=(4,), likelihood="gaussian")
        >>> history = fit(vae, data, settings, progress=False)
        >>> quality = judge_fit(vae, data, history, settings, score(vae, data.batch("test")))
        >>> quality.warnings[0].partition(":")[0]
        'the fit is worse than independent columns'
    """
    data = match_data(program, data)
    train, test = (data.batch(name, settings.seed) for name in ("train", "test"))
    posterior = Posterior(program, test, data.test.rows)
    numbers = _is_table_of_numbers(data, posterior)
    outliers = find_outliers(data) if numbers else []
    keep = torch.ones(test.size, dtype=torch.bool)
    keep[[o.place for o in outliers if o.split == "test"]] = False
    said = []
    bound = scores.per_datum.get("iw_bound")
    independent = gain = None
    if bound is not None and keep.any():
        densities = independent_columns(posterior, train, _without(train.x, outliers))
        if densities is not None:
            independent, gain = Estimate.of(densities), Estimate.of((bound - densities)[keep])
            if gain.mean < -ERRORS * gain.stderr:
                causes = _causes(program, data, history, settings, outliers, numbers)
                said.append(
                    "the fit is worse than independent columns: its bound on log p(x) is "
                    f"{-gain.mean:,.4g} ± {gain.stderr:,.2g} nats per datum below that of a model "
                    f"without latent variables, on test data; {'; '.join(causes)}"
                )
    if not said and outliers:
        said += [f"{_of_outlier(o, data)}" for o in outliers[:NAMED]]
    part = test.rows(keep).rows(slice(SHOWN))
    if part.size and _equal_the_mean(program, data, train, part, settings.seed):
        said.append(
            "reconstructions are no nearer to test data than the mean of the training data, so "
            f"that z tells nothing of x; {_why_so_little(history, settings, data, scores)}"
        )
    return FitQuality(independent, gain, tuple(said))


def find_outliers(data: DataSet) -> list[Outlier]:
    """Values of a table that are far from all others of their column, the farthest first.

    Distances are from the median, in units of the median absolute deviation over 0.6745; where more
    than half of the values agree, of the standard deviation of all but the farthest.

    Example:
        >>> from ppl_vae import make_data
        >>> x = torch.randn(100, 2)
        >>> x[37, 1] = 1e10
        >>> [(o.row, o.column, o.value) for o in find_outliers(make_data(x))]
        [(37, 1, 10000000000.0)]
    """
    splits = {name: getattr(data, name) for name in ("train", "validation", "test")}
    masks = [observed(s.x, s.covariates) for s in splits.values()]
    rows = torch.cat([split.rows for split in splits.values()])
    places = [(name, i) for name, split in splits.items() for i in range(len(split))]
    found = []
    for column in range(data.train.x.shape[1]):
        x = torch.cat([split.x[:, column] for split in splits.values()]).double()
        seen = torch.cat([mask[:, column] for mask in masks])
        values = x[seen]
        if len(values) < 10:
            continue
        distance = (x - values.median()).abs()
        own = distance[seen]
        spread = own.median() / 0.6745
        if not spread > 0:
            spread = own[own < own.max()].std() if (own < own.max()).sum() > 1 else spread
        far = seen & (distance > OUTLIER * spread) & (spread > 0)
        if not 0 < far.sum() <= max(1, RARE * len(values)):
            continue
        for i in far.nonzero().flatten().tolist():
            value, deviations = x[i].item(), (distance[i] / spread).item()
            split, place = places[i]
            found.append(Outlier(split, place, int(rows[i]), column, value, deviations))
    return sorted(found, key=lambda outlier: -outlier.deviations)


def _is_table_of_numbers(data: DataSet, posterior: Posterior) -> bool:
    stored = data.train.x
    return stored.dim() == 2 and stored.is_floating_point() and not posterior.sites.is_discrete


def _without(x: Tensor, outliers: Sequence[Outlier]) -> Tensor | None:
    """Which values of the training data are none."""
    if not outliers:
        return None
    seen = torch.ones(x.shape, dtype=torch.bool)
    for outlier in outliers:
        if outlier.split == "train":
            seen[outlier.place, outlier.column] = False
    return seen


def _name(data: DataSet, column: int) -> str:
    return repr(data.columns[column].name) if data.columns else f"column {column}"


def _of_outlier(outlier: Outlier, data: DataSet) -> str:
    return (
        f"row {outlier.row} holds {outlier.value:.4g} in {_name(data, outlier.column)}, "
        f"{outlier.deviations:,.3g} standard deviations from the others: mend or remove it"
    )


def _causes(
    program: Program,
    data: DataSet,
    history: History,
    settings: Settings,
    outliers: Sequence[Outlier],
    numbers: bool,
) -> list[str]:
    """Why a fit may be so poor, and what to do about it; the data first."""
    causes = [_of_outlier(outlier, data) for outlier in outliers[:NAMED]]
    if numbers:
        causes += _of_scales(program, data, outliers)
    epochs = history.epochs
    scored = [row["elbo"] for row in epochs if "elbo" in row]
    if scored and history.best_epoch:
        best = epochs[history.best_epoch - 1]
        fallen = scored[-1] < best["elbo"] - 10 * best.get("elbo_stderr", math.inf)
        if fallen or not all(map(math.isfinite, scored)):
            causes.append(
                f"the validation ELBO fell from {best['elbo']:.4g} in epoch {history.best_epoch} "
                f"to {scored[-1]:.4g}: lower the learning rate of {settings.learning_rate:g}"
            )
    return causes or [_of_length(history, settings, data)]


def _of_length(history: History, settings: Settings, data: DataSet) -> str:
    steps = len(history.epochs) * math.ceil(len(data.train) / settings.batch_size)
    count = f"{steps:,} step{'s' * (steps > 1)}"
    if history.best_epoch == len(history.epochs):
        return (
            f"the validation ELBO was best after the last of {count}: fit for more epochs, or at a "
            "higher learning rate"
        )
    if steps < FEW_STEPS:
        return f"there were {count}: fit for more epochs, or in smaller batches"
    return "nothing in the data explains it: try another likelihood, or more latent variables"


def _of_scales(program: Program, data: DataSet, outliers: Sequence[Outlier]) -> list[str]:
    """Columns that are far from what weights are initialized for, or from single precision."""
    train = data.train
    seen = observed(train.x, train.covariates)
    if (without := _without(train.x, outliers)) is not None:
        seen = seen & without
    _, mean, variance = column_moments(train.x, seen)
    scale = variance.sqrt()
    # A likelihood that was told of the columns knows their names, and standardizes them.
    causes, standardizes = [], bool(getattr(getattr(program, "likelihood", None), "names", ()))
    varies = scale > 0
    steps = 2.0**-23 * torch.maximum(train.x.amax(0), -train.x.amin(0)).double()
    if coarse := _indices(varies & (steps > PRECISION * scale)):
        causes.append(
            f"single precision does not tell values of {_list(data, coarse)} apart to a thousandth "
            "of a standard deviation: subtract an offset"
        )
    far = varies & ((scale > FAR_SCALE) | (scale < 1 / FAR_SCALE))
    if not standardizes and (wide := _indices(far)):
        scales = ", ".join(f"{scale[i].item():.3g}" for i in wide[:NAMED])
        causes.append(
            f"the standard deviation of {_list(data, wide)} is far from 1 ({scales}): standardize"
        )
    offset = varies & (mean.abs() > FAR_SCALE * scale.clamp(min=1.0))
    if not standardizes and (moved := _indices(offset)):
        means = ", ".join(f"{mean[i].item():.3g}" for i in moved[:NAMED])
        causes.append(f"the mean of {_list(data, moved)} is far from 0 ({means}): standardize")
    return causes


def _indices(where: Tensor) -> list[int]:
    found: list[int] = where.nonzero().flatten().tolist()
    return found


def _list(data: DataSet, columns: Sequence[int]) -> str:
    names = [_name(data, column) for column in columns[:NAMED]]
    more = len(columns) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _equal_the_mean(program: Program, data: DataSet, train: Batch, test: Batch, seed: int) -> bool:
    """Whether reconstructions are not significantly nearer to data than the training mean.

    Squared errors are in units of the variance of each column of a table, so that none decides.
    """
    prediction = posterior_predictive(program, test, seed)
    if torch.equal(prediction.mean, prediction.batch.x):
        return False  # the likelihood has no mean, and this is a draw
    of_test = observed(test.x, test)
    _, mean, variance = column_moments(train.x, observed(train.x, train))
    weight = torch.ones_like(mean)
    if train.x.dim() == 2:
        weight = torch.where(variance > 0, 1 / variance, 0.0)
        coded = [column.kind in CODES for column in data.columns]
        if coded:
            weight[torch.tensor(coded)] = 0.0
    if not (weight > 0).any():
        return False
    errors = [(test.x.double() - m).square() for m in (mean, prediction.mean.double())]
    gain = torch.where(of_test, weight * (errors[0] - errors[1]), 0.0).flatten(1).sum(1)
    found = Estimate.of(gain)
    return found.n > 1 and found.mean <= ERRORS * found.stderr


def _why_so_little(history: History, settings: Settings, data: DataSet, scores: Scores) -> str:
    found: dict[str, Any] = scores.estimates()
    steps = len(history.epochs) * math.ceil(len(data.train) / settings.batch_size)
    if steps >= FEW_STEPS and "kl" in found and found["kl"].mean < COLLAPSED:
        return (
            f"the guide is the prior (KL {found['kl'].mean:.2g} nats), so that the posterior has "
            "collapsed: let the weight of the KL rise over some epochs, or give it free bits"
        )
    return _of_length(history, settings, data)
