"""Do the observed data look like the model's own? Calibration and certificate speak of those."""

from typing import NamedTuple

import numpy as np
import torch
import xarray
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist, squareform

from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import simulate
from ..programs.scoring import log_mean
from ..programs.terms import Terms
from ..progress import Progress
from ..runtime import derived_seed
from .latents import ACTIVE, Units, describe_units
from .materiality import total_variation
from .verdicts import GRADES, DiagnosticResult, Grade, Verdict, advice, grade, needed, share

QUESTION = "Do the observed data look like the model's own?"
DRAWS = 20  # from the guide for each data point, for its mean and its evidence
MIN_DATA, MIN_SIMULATIONS = 20, 100
MOST = 1000  # of either sample in the two-sample test, whose cost grows with their square
NEIGHBOUR = 5  # the one whose distance says how far out a data point lies
QUANTILE = 0.99  # of simulated data
CAUTION, FAIL = 0.05, 0.5  # shares of the data, as for k-hat
PERMUTATIONS, LEVEL = 499, 0.005  # of the two-sample test
FARTHEST_LEVEL = 0.001  # of the test that too many data lie farther out than all simulated ones
SHOWN = 5
SOURCE = "Gretton et al. 2012; Schmitt et al. 2021"


class TwoSamples(NamedTuple):
    """What tells two samples apart; see :func:`compare`.

    Attributes:
        mmd: The squared maximum mean discrepancy, unbiased.
        p_value: That of the permutation test.
        variation: A lower bound on the total variation between them.
        error: Its standard error.
    """

    mmd: float
    p_value: float
    variation: float
    error: float


def ask_misspecification(
    posterior: Posterior, simulations: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    """Compare observed data with simulated ones, by what the guide makes of them.

    Each data point is described by the guide's mean in every active unit and by an estimate of its
    log evidence, the same for observed and for simulated data. Two samples are compared by the
    maximum mean discrepancy (Gretton et al. 2012; on an encoder's features, Schmitt et al. 2021):
    :func:`compare`. A data point looks like none of the simulated ones if the distance to its
    fifth neighbour among half of these is above the 99 % quantile of such distances of the other
    half; 1 % of data of the model do, whatever its law. More extreme data may be fewer than that:
    how many of them lie farther out than every simulated one is tested too.

    What the guide does not pass on, and the evidence does not show, goes undetected.

    Arguments:
        posterior: The posterior of N observed data points.
        simulations: Data points to simulate, M in either half.
        seed: Seed of simulations, draws and permutations.
        progress: Told of the share of the work that has been done.

    Returns:
        ``misspecification``: ``distance``, ``p_value`` (datum), ``simulated_distance``
        (simulation), ``mmd``, ``mmd_p_value``, ``total_variation`` and ``share`` with
        their errors.

    Raises:
        InputError: If there are too few data or simulations, the guide is a point mass, or a
            density is not finite.
    """
    if len(posterior) < MIN_DATA or simulations < MIN_SIMULATIONS:
        raise InputError(
            f"the likeness of {len(posterior)} data points and {simulations} simulated ones",
            "is too uncertain",
            f"give at least {MIN_DATA} data points and {MIN_SIMULATIONS} simulations",
        )
    posterior.sites.require_density()
    program, batch = posterior.program, posterior.batch
    drawn = simulate(program, batch, 2 * simulations, derived_seed(seed, "simulations"))
    counted = (progress or Progress()).part(
        1.0, total=1.5 * (2 * simulations + len(posterior)) * DRAWS
    )
    simulated = Posterior(program, drawn.batch)
    units, evidence = _describe(simulated, derived_seed(seed, "simulated"), counted)
    own, own_evidence = _describe(posterior, derived_seed(seed, "observed"), counted)
    used = units.activity > ACTIVE
    active = max(1, int(used.sum()))
    theirs = torch.cat([units.mean[:, used], evidence[:, None]], dim=1)
    observed = torch.cat([own.mean[:, used], own_evidence[:, None]], dim=1)
    centre = theirs[:simulations].mean(0)
    scale = theirs[:simulations].std(0).clamp(min=1e-9)
    simulated_places, ours = (
        ((theirs - centre) / scale).numpy(),
        ((observed - centre) / scale).numpy(),
    )
    reference, others = simulated_places[:simulations], simulated_places[simulations:]
    generator = np.random.default_rng(derived_seed(seed, "permutations"))
    between = compare(ours[:MOST], others[:MOST], generator)
    tree = cKDTree(reference)
    distances, expected = (tree.query(sample, [NEIGHBOUR])[0][:, 0] for sample in (ours, others))
    dataset = _dataset(between, distances, expected, active)
    return DiagnosticResult(
        _verdict(dataset, posterior.rows.numpy()), {"misspecification": dataset}
    )


def compare(ours: np.ndarray, others: np.ndarray, generator: np.random.Generator) -> TwoSamples:
    """Tell two samples apart by a Gaussian kernel, as wide as the median distance.

    The p-value is that of permutations. The kernel's own classifier gives a point to the sample
    that it is nearer to on average, in the half of the data that it is not in. The shares of both
    samples that it gives to the observed one differ by the total variation at most.

    Arguments:
        ours: The observed sample, of shape (N, F).
        others: The simulated one, of shape (M, F).
        generator: For the permutations.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> same = compare(rng.normal(size=(200, 2)), rng.normal(size=(200, 2)), rng)
        >>> other = compare(rng.normal(size=(200, 2)) + 1, rng.normal(size=(200, 2)), rng)
        >>> same.p_value > 0.005, other.p_value
        (True, 0.002)
    """
    count, total = len(ours), len(ours) + len(others)
    distance = pdist(np.concatenate([ours, others]), "sqeuclidean")
    width = float(np.median(distance)) or 1.0
    kernel = np.exp(-squareform(distance) / (2 * width)).astype(np.float32)
    np.fill_diagonal(kernel, 0.0)
    chosen = np.zeros((total, 1 + PERMUTATIONS), dtype=np.float32)
    chosen[:count, 0] = 1
    for column in range(1, 1 + PERMUTATIONS):
        chosen[generator.permutation(total)[:count], column] = 1
    near, near_any = kernel @ chosen, kernel.sum(1, dtype=np.float64)
    within = (chosen * near).sum(0, dtype=np.float64)
    across = chosen.T.astype(np.float64) @ near_any - within
    rest = near_any.sum() - within - 2 * across
    left = total - count
    mmd = within / (count * (count - 1)) + rest / (left * (left - 1)) - 2 * across / (count * left)
    told, in_ours = _classify(kernel, count, generator), chosen[:, 0] > 0
    (right, error), (wrong, other_error) = share(told[in_ours]), share(told[~in_ours])
    # Equal values of the statistic, such as of few data, count as large ones.
    p_value = float((mmd >= mmd[0] - 1e-9).mean())
    return TwoSamples(float(mmd[0]), p_value, right - wrong, float(np.hypot(error, other_error)))


def _classify(kernel: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Whether each point is nearer to the first ``count`` in the half that it is not in."""
    half = np.concatenate([
        generator.permutation(np.arange(size) % 2) for size in (count, len(kernel) - count)
    ])  # fmt: skip
    told = np.zeros(len(kernel), dtype=bool)
    for this in (0, 1):
        others = np.flatnonzero(half != this)
        to_ours = kernel[:, others[others < count]].mean(1)
        to_theirs = kernel[:, others[others >= count]].mean(1)
        told = np.where(half == this, to_ours > to_theirs, told)
    return told


def _describe(posterior: Posterior, seed: int, progress: Progress) -> tuple[Units, torch.Tensor]:
    """What the guide says of its units, and the estimate of log p(x), of shape (N,)."""

    def evidence(terms: Terms) -> dict[str, torch.Tensor]:
        return {"": log_mean(terms.log_weight)[0]}

    found = posterior.reduce(evidence, DRAWS, derived_seed(seed, "evidence"), progress)
    return describe_units(posterior, DRAWS, derived_seed(seed, "moments")), found[""]


def _dataset(
    between: TwoSamples, distances: np.ndarray, expected: np.ndarray, active: int
) -> xarray.Dataset:
    count, others = len(distances), len(expected)
    farther = np.sort(expected)
    p_values = (1 + others - np.searchsorted(farther, distances, side="left")) / (others + 1)
    limit = farther[int(QUANTILE * others)]
    unlike = distances > limit
    above, error = share(unlike)
    by_chance = float((expected > limit).mean())
    error = float(np.hypot(error, (QUANTILE * (1 - QUANTILE) / others) ** 0.5))
    farthest = int((distances > farther[-1]).sum())
    # Of N + M exchangeable data the k farthest are all observed ones.
    ranks = np.arange(farthest)
    chance = float(np.prod((count - ranks) / (count + others - ranks)))
    arrays = {
        "distance": variable(
            "datum", distances, f"distance to neighbour {NEIGHBOUR} among simulated data", "sd"
        ),
        "p_value": variable(
            "datum", p_values, "share of simulated data that lie as far out", "probability"
        ),
        "unlike": variable("datum", unlike.astype(int), "whether it looks like none simulated"),
        "simulated_distance": variable(
            "simulation",
            expected,
            f"distance to neighbour {NEIGHBOUR} of other simulated data",
            "sd",
        ),
    }
    numbers = {
        "share": (above - by_chance, "share of data beyond the quantile, less that of simulated"),
        "share_error": (error, "standard error of share"),
        "total_variation": (between.variation, "lower bound by the kernel's classifier"),
        "total_variation_error": (between.error, "standard error of total_variation"),
        "mmd": (between.mmd, "squared maximum mean discrepancy (Gretton et al. 2012, eq. 3)"),
        "mmd_p_value": (between.p_value, "p-value of mmd by permutations"),
        "farthest": (farthest, "data that lie farther out than all simulated ones"),
        "farthest_p_value": (chance, "probability of so many or more by chance"),
    }
    for name, (value, meaning) in numbers.items():
        arrays[name] = variable((), np.asarray(value), meaning)
    return xarray.Dataset(arrays, attrs={"active_units": active, "quantile": QUANTILE})


def _verdict(dataset: xarray.Dataset, rows: np.ndarray) -> Verdict:
    numbers = {str(name): float(array) for name, array in dataset.items() if not array.dims}
    bounds = total_variation(dataset.attrs["active_units"])
    parts = [
        (f"share of data beyond the {QUANTILE:.0%} quantile of simulated ones, less 1 %",
         "share of data", numbers["share"], numbers["share_error"], (CAUTION, FAIL)),
        ("total variation between observed and simulated data, at least",
         "probability", numbers["total_variation"], numbers["total_variation_error"], bounds),
    ]  # fmt: skip
    order: list[Grade] = ["pass", "cannot say", "caution", "fail"]
    assert set(order) == set(GRADES)
    grades = [grade(value, error, *limits) for _, _, value, error, limits in parts]
    at = max((0, 1), key=lambda i: (order.index(grades[i]), -i))
    given = grades[at]
    if numbers["farthest_p_value"] < FARTHEST_LEVEL and order.index(given) < 2:
        given, at = "caution", 0
    statistic, unit, value, error, limits = parts[at]
    count = dataset.sizes["datum"]
    return Verdict(
        QUESTION,
        given,
        _meaning(dataset, numbers, rows),
        statistic=statistic,
        value=value,
        error=error,
        unit=unit,
        threshold=f"caution above {limits[0]:.2g}, fail above {limits[1]:.2g}, by 3 standard "
        "errors; caution too where a test of level "
        f"{FARTHEST_LEVEL:g} finds too many data farther out than all simulated ones (p = "
        f"{numbers['farthest_p_value']:.2g})",
        source=SOURCE,
        remedy=advice(
            given,
            "a decoder or a likelihood that fits the data better, or a prior fitted to them; a "
            "look at the rows that are named; for these, weigh or refine the guide's draws, for "
            "calibration does not speak of them",
            needed(value, error, limits[0], count),
        ),
    )


def _meaning(dataset: xarray.Dataset, numbers: dict[str, float], rows: np.ndarray) -> str:
    unlike = dataset["unlike"].values > 0
    found = numbers["mmd_p_value"] < LEVEL
    told = "tells observed from simulated data" if found else "cannot tell them apart"
    count = len(unlike)
    text = (
        f"{int(unlike.sum())} of {count} data look like none that the model makes, where "
        f"{(1 - QUANTILE) * count:.0f} would by chance"
    )
    if farthest := int(numbers["farthest"]):
        text += f", and {farthest} lie farther out than all simulated ones"
    if unlike.any():
        far = np.argsort(-dataset["distance"].values, kind="stable")[: min(SHOWN, unlike.sum())]
        text += f" (farthest: rows {', '.join(str(int(rows[i])) for i in far)})"
    return f"{text}; a two-sample test {told} (MMD, p = {numbers['mmd_p_value']:.2g})"
