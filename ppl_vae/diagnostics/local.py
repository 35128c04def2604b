"""Where is q off? Ranks of the true latents, compared with where the guide puts the data."""

from collections.abc import Callable
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
import xarray
from scipy.sparse import csr_array
from scipy.spatial import cKDTree
from scipy.stats import norm

from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import simulate
from ..programs.sites import Latents
from ..progress import Progress
from ..runtime import derived_seed
from .latents import ACTIVE, as_units, describe_units, unit_names
from .materiality import CAUTION, divergence
from .verdicts import DiagnosticResult, Grade, Verdict, Z, advice, grade, needed

QUESTION = "Is q(z|x) calibrated everywhere?"
DRAWS = 100  # among which each true value is ranked, and as many again for the guide's mean
MIN_SIMULATIONS = 100
PERMUTATIONS = 499  # so that none as large gives 0.002, and 0.004 of two tests
LEVEL = 0.005  # of both tests together
NEIGHBOURS, MOST = 0.05, 100  # share of the simulations that make a region, and their number
MOST_UNITS = 100  # that are compared, the most active
FAR = 4.0  # standard deviations beyond which a mean has no more leverage
SHOWN = 5
SOURCE = "Linhart et al. 2023; Talts et al. 2018"

Smoother = Callable[[np.ndarray], np.ndarray]


class Fit(NamedTuple):
    """What the place of a data point says about its scores; see :func:`local_faults`.

    Attributes:
        effect: How much of the scores of each unit it explains, and the divergence of what all
            data have in common, in nats, of shape (U,).
        error: Its standard error, of shape (U,).
        p_local: p-value of the scores not depending on the place.
        p_common: p-value of their means over all data being zero.
        average: Averages of the scores in the neighbourhood of each simulation, (M, U, 2).
        neighbours: The simulations in the neighbourhood of each, (M, K), nearest first.
    """

    effect: np.ndarray
    error: np.ndarray
    p_local: float
    p_common: float
    average: np.ndarray
    neighbours: np.ndarray

    @property
    def p_value(self) -> float:
        """Of both tests together, by Bonferroni."""
        return min(1.0, 2 * min(self.p_local, self.p_common))


def ask_local(
    posterior: Posterior, simulations: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Look for places where the guide is off, on data that the model simulates.

    For an exact guide the rank of :math:`z^*` among draws of :math:`q(z | x^*)` is uniform whatever
    x* is, and so independent of the guide's mean, which stands for the place of x* (Linhart et al.
    2023). A guide that is off for a few data, or to either side by turns, has uniform ranks on
    average, and is found here alone. With u the rank as a share, :math:`r = \Phi^{-1}(u)` is a
    standard normal for an exact guide; its mean over data near x is the error of the guide's mean
    there, and :math:`(r^2 - 1) / \sqrt 2` has the error of its scale, both in units in which the
    Jeffreys divergence of a small fault is the sum of their squares.

    Both are regressed on the guide's mean (:func:`local_faults`). The worst region is the
    neighbourhood, of 5 % of the simulations and 100 at most, where the sum of squares is largest.
    Draws that give the mean are others than those that are ranked, for it would depend on these.

    Arguments:
        posterior: The posterior of some data. Those that lie in the worst region are named.
        simulations: Data points M to simulate.
        seed: Seed of simulations, draws and permutations.
        progress: Told of the share of the work that has been done.

    Returns:
        ``local``: ``mean``, ``shift``, ``scale_error`` (simulation, unit), ``in_region``
        (simulation), ``datum_in_region`` (datum), ``effect``, ``effect_error``, ``centre`` (unit).

    Raises:
        InputError: If there are too few simulations, or the guide's mean is the same for all data.
    """
    if simulations < MIN_SIMULATIONS:
        raise InputError(
            "simulations",
            f"must be at least {MIN_SIMULATIONS}, for ranks to be compared, got {simulations}",
        )
    posterior.sites.require_density()
    program, batch = posterior.program, posterior.batch
    drawn = simulate(program, batch, simulations, derived_seed(seed, "simulations"))
    simulated = Posterior(program, drawn.batch)
    counted = (progress or Progress()).part(1.0, total=1.25 * simulations * 2 * DRAWS)
    truth = {site: value[None] for site, value in drawn.latents.items()}
    generator = np.random.default_rng(derived_seed(seed, "ranks"))
    ranks = _ranks(simulated, truth, derived_seed(seed, "draws"), generator, counted)
    # By other draws: the mean of those that are ranked among would tell of their ranks.
    units = describe_units(simulated, DRAWS, derived_seed(seed, "units"), counted)
    mean, active = units.mean, units.activity
    compared = active.argsort(descending=True, stable=True)[:MOST_UNITS].sort().values
    names = [unit_names(truth)[i] for i in compared]
    ranks, mean, used = ranks[:, compared.numpy()], mean[:, compared], active[compared] > ACTIVE
    if not used.any():
        raise InputError(
            "the guide's mean", "is the same for all data, so that there are no places to compare"
        )
    centre, spread = mean[:, used].mean(0), mean[:, used].std(0)
    places = ((mean[:, used] - centre) / spread).numpy()
    fit = local_faults(ranks, DRAWS, places, generator)
    at = int(np.square(fit.average).sum(-1).max(1).argmax())
    region = fit.neighbours[at]
    observed = describe_units(posterior, DRAWS, derived_seed(seed, "observed")).mean[:, compared]
    apart = ((observed[:, used] - centre) / spread).numpy() - places[at]
    radius = np.linalg.norm(places[region[-1]] - places[at])
    inside = np.linalg.norm(apart, axis=1) <= radius
    dataset = _dataset(fit, mean.numpy(), at, inside, names)
    dataset["used"] = variable("unit", used.numpy().astype(int), "whether the unit is active")
    rows = posterior.rows.numpy()[inside]
    return DiagnosticResult(_verdict(fit, dataset, rows), {"local": dataset})


def local_faults(
    ranks: np.ndarray, draws: int, places: np.ndarray, generator: np.random.Generator
) -> Fit:
    """Regress ranks on places, and test whether they depend on them.

    There are two regressions, by least squares on the places and their squares, and by the mean
    over neighbours, each without the data point that is predicted. What they explain,
    2 y f - f², is compared with that of scores permuted over places, and so is the largest sum of
    squares over neighbourhoods; the largest of all these, standardized, is the test's statistic.

    Arguments:
        ranks: Whole numbers in 0 ... draws, of shape (M, U).
        draws: The highest rank there can be.
        places: Where each data point lies, in standard deviations, of shape (M, L).
        generator: For the permutations.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> places = rng.normal(size=(500, 1))
        >>> fit = local_faults(rng.integers(0, 101, (500, 1)), 100, places, rng)
        >>> fit.p_value > 0.005, bool((fit.effect < 3 * fit.error).all())
        (True, True)
    """
    count, units = ranks.shape
    scores = _scores(ranks, draws).reshape(count, -1)
    common = scores.mean(0)
    centred = scores - common
    size = min(MOST, max(10, round(NEIGHBOURS * count)))
    neighbours = cKDTree(places).query(places, size)[1]
    smoothers = _least_squares(places), _neighbour_mean(neighbours)
    explained = [_explained(smooth(centred), centred, units) for smooth in smoothers]
    permuted = (generator.permutation(centred) for _ in range(PERMUTATIONS))
    table = np.stack([_statistics(y, smoothers, size, units) for y in chain([centred], permuted)])
    deviation = np.where(table.std(0) > 0, table.std(0), np.inf)
    largest = ((table - table.mean(0)) / deviation).max((1, 2))
    p_local = float((largest >= largest[0]).mean())
    # Means of scores are normal, with a variance of 1 / M.
    p_common = float(min(1.0, 2 * norm.sf(np.abs(common).max() * count**0.5) * len(common)))
    gains = table[0, :2] - table[1:, :2].mean(0)
    spread = np.stack([values.std(0) for values in explained]) / count**0.5
    errors = np.maximum(spread, table[1:, :2].std(0))
    # The regression that shows more beyond its own noise.
    best, columns = (gains - Z * errors).argmax(0), np.arange(units)
    of_all, of_all_error = _divergence(common.reshape(units, 2), count)
    return Fit(
        effect=gains[best, columns] + of_all,
        error=np.hypot(errors[best, columns], of_all_error),
        p_local=p_local,
        p_common=p_common,
        average=_neighbour_mean(neighbours, leave_out=False)(scores).reshape(count, units, 2),
        neighbours=neighbours,
    )


def _ranks(
    simulated: Posterior,
    truth: Latents,
    seed: int,
    generator: np.random.Generator,
    progress: Progress,
) -> np.ndarray:
    """Ranks of the truth among draws, ties broken at random, of shape (M, U)."""
    exact, first = as_units(truth), 0
    below, ties = [], []
    with simulated.evaluation_mode(seed):
        for part in simulated.blocks(DRAWS, progress):
            units = as_units(part.sample(DRAWS)).cpu()
            if not units.isfinite().all():
                raise InputError(
                    "the guide", "has draws that are not finite on data that the model made"
                )
            true = exact[:, first : first + len(part)]
            first += len(part)
            below.append((units < true).sum(0))
            ties.append((units == true).sum(0))
    tied = torch.cat(ties).numpy()
    return torch.cat(below).numpy() + generator.integers(0, tied + 1)


def _scores(ranks: np.ndarray, draws: int) -> np.ndarray:
    """r and (r² - 1) / sqrt 2, of mean 0 and variance 1 for uniform ranks, of shape (M, U, 2)."""
    r = norm.ppf((np.arange(draws + 1) + 0.5) / (draws + 1))
    table = np.stack([r, np.square(r)], axis=-1)
    table = (table - table.mean(0)) / table.std(0)
    return table[ranks]


def _least_squares(places: np.ndarray) -> Smoother:
    """Regression on places and their squares, with a ridge, each point left out in turn."""
    near = np.clip(places, -FAR, FAR)
    design = np.concatenate([np.ones((len(near), 1)), near, np.square(near) - 1], axis=1)
    inverse = np.linalg.inv(design.T @ design + design.shape[1] * np.eye(design.shape[1]))
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)[:, None]
    return lambda y: (design @ (inverse @ (design.T @ y)) - leverage * y) / (1 - leverage)


def _neighbour_mean(neighbours: np.ndarray, leave_out: bool = True) -> Smoother:
    """The mean over neighbours, each point left out in turn, or not."""
    count, size = neighbours.shape
    others = np.ones(neighbours.shape)
    if leave_out:
        others[neighbours == np.arange(count)[:, None]] = 0.0
    others /= others.sum(1, keepdims=True)
    rows = np.repeat(np.arange(count), size)
    weights = csr_array((others.ravel(), (rows, neighbours.ravel())), shape=(count, count))
    return lambda y: weights @ y


def _explained(fitted: np.ndarray, y: np.ndarray, units: int) -> np.ndarray:
    """What a prediction explains, of both scores of each unit, for each data point: (M, U)."""
    return (2 * y * fitted - np.square(fitted)).reshape(len(y), units, 2).sum(-1)


def _divergence(common: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The Jeffreys divergence between a standard normal and one with the mean and variance that
    average scores (U, 2) give r, and its error, each of shape (U,)."""
    mean = common[:, 0]
    variance = np.maximum(1 + 2**0.5 * common[:, 1] - mean**2, 1 / count)
    found = (variance + 1 / variance) / 2 - 1 + mean**2 * (1 + 1 / variance) / 2
    by_mean = mean * (1 + 1 / variance)
    by_variance = (1 - (1 + mean**2) / variance**2) / 2
    error = np.sqrt((by_mean**2 * variance + by_variance**2 * 2 * variance**2) / count)
    return found - 2 / count, error


def _statistics(
    y: np.ndarray, smoothers: tuple[Smoother, Smoother], size: int, units: int
) -> np.ndarray:
    """What either regression explains, and the largest sum of squares of a region, (3, U)."""
    linear, nearby = (smooth(y) for smooth in smoothers)
    highest = size * np.square(nearby).reshape(len(y), units, 2).sum(-1).max(0)
    gains = (_explained(fitted, y, units).mean(0) for fitted in (linear, nearby))
    return np.stack([*gains, highest])


def _verdict(fit: Fit, dataset: xarray.Dataset, rows: np.ndarray) -> Verdict:
    unit = int(fit.effect.argmax())
    value, error = float(fit.effect[unit]), float(fit.error[unit])
    caution, fail = (2 * bound for bound in divergence(1))
    count, size = fit.neighbours.shape
    worst = fit.average[int(dataset.attrs["worst"])]
    at = int(np.square(worst).sum(1).argmax())
    found = fit.p_value < LEVEL
    given: Grade = grade(value, error, caution, fail)
    if given in ("caution", "fail") and not found:
        given = "cannot say"
    if given in ("pass", "cannot say") and found:
        material = np.abs(worst[at]).max() - Z / size**0.5 > CAUTION
        given = "caution" if material else given
    names = dataset["unit"].values
    if not found:
        meaning = "ranks do not depend on where the guide puts the data"
    elif fit.p_local < LEVEL:
        meaning = f"{_shape(worst[at], names[at])} {_place(dataset)}, {_rows(rows, dataset)}"
    else:
        meaning = f"what is off is off everywhere alike: {_shape(worst[at], names[at])}"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic=f"Jeffreys divergence that ranks and places show, {names[unit]}",
        value=value,
        error=error,
        unit="nats per datum",
        threshold=f"caution above {caution:.2g}, fail above {fail:.2g}, by 3 standard errors: a "
        "quarter or half a standard deviation; caution too where a test of level "
        f"{LEVEL:g} (p = {fit.p_value:.2g}) finds a region of {size / count:.0%} of them that is "
        "off by a quarter",
        source=SOURCE,
        remedy=advice(
            given,
            "a larger encoder, or longer training; more training data like those of the region",
            needed(value, error, caution, count, "simulations"),
        ),
    )


def _shape(scores: np.ndarray, name: str) -> str:
    """What is wrong in a region, in words."""
    shift, spread = float(scores[0]), 1 + 2**0.5 * float(scores[1])
    variance = spread - shift**2
    if abs(shift) >= abs(variance - 1) / 2**0.5:
        side = "above" if shift > 0 else "below"
        return f"the true {name} lies {abs(shift):.1f} of the guide's sd {side} its mean"
    return f"the guide of {name} is too {'narrow' if variance > 1 else 'wide'}"


def _place(dataset: xarray.Dataset) -> str:
    """Where the worst region lies, by the units in which it is smallest."""
    mean, inside = dataset["mean"].values, dataset["in_region"].values > 0
    size = np.where(
        dataset["used"].values > 0,
        mean[inside].std(0) / np.maximum(mean.std(0), np.finfo(float).tiny),
        np.inf,
    )
    chosen = [i for i in np.argsort(size)[:2] if size[i] < 0.5] or [int(size.argmin())]
    ranges = (
        f"{dataset['unit'].values[i]} between {mean[inside, i].min():.2g} and "
        f"{mean[inside, i].max():.2g}"
        for i in chosen
    )
    return f"where the guide puts {' and '.join(ranges)}"


def _rows(rows: np.ndarray, dataset: xarray.Dataset) -> str:
    total = dataset.sizes["datum"]
    if not len(rows):
        return f"where none of {total} data lie"
    named = ", ".join(str(int(row)) for row in rows[:SHOWN])
    more = ", ..." if len(rows) > SHOWN else ""
    return f"with {len(rows)} of {total} data, rows {named}{more}"


def _dataset(
    fit: Fit, mean: np.ndarray, worst: int, inside: np.ndarray, names: list[str]
) -> xarray.Dataset:
    region = np.zeros(len(mean), dtype=int)
    region[fit.neighbours[worst]] = 1
    place, sd = ("simulation", "unit"), "posterior standard deviations"
    arrays = {
        "mean": variable(place, mean, "mean of q(z|x*)", "units of z"),
        "shift": variable(
            place, fit.average[..., 0], "mean of r = norm.ppf(rank) over neighbours", sd
        ),
        "scale_error": variable(
            place, fit.average[..., 1], "mean of (r^2 - 1) / sqrt 2 over neighbours", sd
        ),
        "in_region": variable("simulation", region, "whether it lies in the worst region"),
        "datum_in_region": variable(
            "datum", inside.astype(int), "whether the data point lies in the worst region"
        ),
        "effect": variable("unit", fit.effect, "Jeffreys divergence that ranks show", "nats"),
        "effect_error": variable("unit", fit.error, "standard error of effect", "nats"),
        "centre": variable("unit", mean[worst], "centre of the worst region", "units of z"),
    }
    about = {
        "p_value": fit.p_value,
        "p_local": fit.p_local,
        "p_common": fit.p_common,
        "worst": worst,
        "draws": DRAWS,
    }
    return xarray.Dataset(arrays, {"unit": names}, about)
