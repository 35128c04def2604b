"""Does the model generate data like the data? Predictive checks, memorization, PIT."""

from collections.abc import Callable

import numpy as np
import torch
import xarray
from scipy.stats import ks_2samp
from torch import Tensor

from ..data.batch import Batch
from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import posterior_predictive, prior_predictive, simulate
from ..programs.protocol import Program
from ..progress import Progress
from ..runtime import derived_seed
from .uniformity import p_value
from .verdicts import DiagnosticResult, Grade, Verdict, advice, grade

QUESTION = "Does the model generate data like the data?"
SAMPLES, MIN_DATA, MIN_TRAIN = 1000, 100, 100
PIT_DRAWS, PIT_BLOCK = 20, 100  # draws among which each value is ranked; data points at once
CAUTION, FAIL = 0.1, 0.3  # Kolmogorov-Smirnov distances
COPIES_CAUTION, COPIES_FAIL = 0.55, 0.75
LEVEL = 0.01
SOURCE = "Gelman et al. 1996; Meehan et al. 2020; Gneiting et al. 2007"


def ask_generation(
    posterior: Posterior, train: Batch, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Compare data drawn from the model with data that it was not fitted to.

    - Prior predictive: the total of a data point (the ink of an image), its spread, and its
      distance to the nearest training data point, each as a distribution over draws from the model
      and over held-out data. The statistic is their largest Kolmogorov-Smirnov distance.
    - Memorization: how often a draw is nearer to the training data than a held-out data point is;
      in half of all pairs if nothing is copied (Meehan et al. 2020).
    - Posterior predictive: total and spread of x' ~ p(x | z), z ~ q(z | x), beside those of x
      (Gelman et al. 1996).
    - PIT: the rank of each held-out value among prior predictive draws, ties broken at random
      (Gneiting et al. 2007), and for each pixel or column the p-value of its uniformity over data.

    Arguments:
        posterior: The posterior of held-out data.
        train: Training data.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``generation``: each test quantity of held-out data (``test_...``), of prior and of
        posterior predictive draws (``prior_...``, ``posterior_...``); ``nearer_train`` (sample);
        ``ks`` (quantity); ``pit_p_value``, ``test_mean`` and ``prior_mean``, one for each
        pixel or column.

    Raises:
        InputError: If there are too few data.
    """
    program, held_out = posterior.program, posterior.batch
    test, progress = held_out.x, progress or Progress()
    if len(test) < MIN_DATA or train.size < MIN_TRAIN:
        raise InputError(
            f"{len(test)} held-out and {train.size} training data points",
            "are too few for predictive checks",
            f"give at least {MIN_DATA} of each",
        )
    drawn = simulate(program, held_out, SAMPLES, derived_seed(seed, "generated")).x
    progress.advance(0.1)
    replicated = torch.cat(
        [
            posterior_predictive(program, part, derived_seed(seed, f"replicated {index}")).x
            for index, part in enumerate(held_out.split(SAMPLES))
        ]
    )
    progress.advance(0.1)
    found = {
        f"{source}_{name}": quantity(x)
        for source, x in (("test", test), ("prior", drawn), ("posterior", replicated))
        for name, quantity in QUANTITIES.items()
    }
    found["test_distance"] = nearest(test, train.x)
    found["prior_distance"] = nearest(drawn, train.x)
    progress.advance(0.7)
    names = [*QUANTITIES, "distance"]
    ks = np.array(
        [ks_2samp(found[f"test_{name}"], found[f"prior_{name}"]).statistic for name in names]
    )
    pit = _pit_p_values(program, held_out, seed)
    progress.advance(0.1)
    copied = nearer(found["prior_distance"], found["test_distance"])
    dataset = _dataset(found, names, ks, copied, pit, test, drawn)
    return DiagnosticResult(_verdict(dataset), {"generation": dataset})


def _total(x: Tensor) -> np.ndarray:
    return x.flatten(1).double().sum(1).numpy()


def _spread(x: Tensor) -> np.ndarray:
    return x.flatten(1).double().std(1, correction=0).numpy()


QUANTITIES: dict[str, Callable[[Tensor], np.ndarray]] = {"total": _total, "spread": _spread}
"""What is compared between data and draws: one number for each data point."""


def nearest(x: Tensor, others: Tensor) -> np.ndarray:
    """The Euclidean distance from each data point to the nearest of others.

    Arguments:
        x: Of shape (N, *data_shape).
        others: Of shape (M, *data_shape).

    Example:
        >>> nearest(torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [6.0, 8.0]]))
        array([5.])
    """
    to = others.flatten(1).double()
    centre = to.mean(0)  # distances lose their digits far from zero
    to = to - centre
    parts = [torch.cdist(part.double() - centre, to).amin(1) for part in x.flatten(1).split(256)]
    return torch.cat(parts).numpy()


def nearer(drawn: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """For each draw, the share of held-out data that are farther from the training data.

    It is 1/2 on average if draws and held-out data have the same distribution (Meehan et al. 2020):
    given the training data, both are samples of independent distances, and the mean over draws is
    the statistic of Mann & Whitney (1947).

    Arguments:
        drawn: Distances of draws to the nearest training data point, of shape (M,).
        held_out: Distances of held-out data, of shape (N,).

    Example:
        >>> nearer(np.array([0.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0]))
        array([1.   , 0.875])
    """
    ordered = np.sort(held_out)
    above = len(ordered) - np.searchsorted(ordered, drawn, side="right")
    equal = np.searchsorted(ordered, drawn, side="right") - np.searchsorted(ordered, drawn)
    return (above + equal / 2) / len(ordered)


def _pit_p_values(program: Program, held_out: Batch, seed: int) -> np.ndarray:
    """The p-value of the uniformity of the PIT over data, for each pixel or column."""
    generator = np.random.default_rng(derived_seed(seed, "PIT"))
    ranks, shape = [], held_out.x.shape[1:]
    for first, part in enumerate(held_out.split(PIT_BLOCK)):
        # Each data point has draws of its own: shared ones would make the ranks dependent.
        given = part.rows(torch.arange(part.size).repeat(PIT_DRAWS))
        of_part = derived_seed(seed, f"PIT {first}")
        drawn = prior_predictive(program, shape, given.size, of_part, given.covariates).x
        beside, x = drawn.unflatten(0, (PIT_DRAWS, part.size)), part.x.to(drawn)
        below, ties = (beside < x).sum(0).numpy(), (beside == x).sum(0).numpy()
        ranks.append((below + generator.integers(0, ties + 1)).reshape(part.size, -1))
    columns = np.concatenate(ranks).T
    return np.array([p_value(column, PIT_DRAWS) for column in columns]).reshape(shape)


def _verdict(dataset: xarray.Dataset) -> Verdict:
    ks = dataset["ks"].values
    at = int(ks.argmax())
    name = str(dataset["quantity"].values[at])
    sizes = dataset.sizes
    error = 0.5 * (1 / sizes["held_out"] + 1 / sizes["sample"]) ** 0.5
    drawn, held_out = sizes["sample"], sizes["held_out"]
    copied = float(dataset["nearer_train"].mean())
    copied_error = ((drawn + held_out + 1) / (12 * drawn * held_out)) ** 0.5
    unlike = grade(float(ks[at]), error, CAUTION, FAIL)
    copies = grade(copied, copied_error, COPIES_CAUTION, COPIES_FAIL)
    order: tuple[Grade, ...] = ("pass", "cannot say", "caution", "fail")
    given = max(unlike, copies, key=order.index)
    cells = dataset["pit_p_value"].values
    misfit = float((cells * cells.size < LEVEL).mean())
    meaning = (
        f"draws from the model differ most from held-out data in their {WORDS[name]}; a draw is "
        f"nearer to the training data than a held-out data point in {copied:.0%} of pairs, 50% if "
        f"nothing is copied; the distribution of {misfit:.0%} of the "
        f"{'pixels' if cells.ndim == 3 else 'columns'} differs from the model's"
    )
    by_copies = order.index(copies) > order.index(unlike)
    statistic = f"Kolmogorov-Smirnov statistic of the {WORDS[name]}, draws and held-out data"
    if by_copies:
        statistic = "share of pairs in which the draw is nearer to the training data"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic=statistic,
        value=copied if by_copies else float(ks[at]),
        error=copied_error if by_copies else error,
        unit="probability",
        threshold=f"caution above {CAUTION:g}, fail above {FAIL:g}, by 3 standard errors; copies: "
        f"caution above {COPIES_CAUTION:g}, fail above {COPIES_FAIL:g}",
        source=SOURCE,
        remedy=advice(
            given,
            "longer training; a prior that fits the aggregate posterior; a likelihood that suits "
            "the data; if there are many copies, more data or a smaller decoder",
        ),
    )


WORDS = {
    "total": "total over a data point",
    "spread": "spread within a data point",
    "distance": "distance to the nearest training data point",
}


def _dataset(
    found: dict[str, np.ndarray],
    names: list[str],
    ks: np.ndarray,
    copied: np.ndarray,
    pit: np.ndarray,
    test: Tensor,
    drawn: Tensor,
) -> xarray.Dataset:
    sources = {
        "test": ("held-out data", "held_out"),
        "prior": ("prior predictive draws", "sample"),
        "posterior": ("posterior predictive draws", "held_out"),
    }
    variables, units = {}, "units of the data"
    for key, values in found.items():
        source, name = key.split("_", 1)
        meaning, dim = sources[source]
        variables[key] = variable(dim, values, f"{WORDS[name]}, of {meaning}", units)
    cells = [f"x_dim_{i}" for i in range(test.dim() - 1)]
    variables |= {
        "ks": variable("quantity", ks, "Kolmogorov-Smirnov distance, prior draws to held-out data"),
        "nearer_train": variable(
            "sample", copied, "share of held-out data farther from the training data than the draw"
        ),
        "pit_p_value": variable(
            cells, pit, "p-value of the uniformity of the PIT (Gneiting et al. 2007)", "probability"
        ),
        "test_mean": variable(cells, test.double().mean(0), "mean of held-out data", units),
        "prior_mean": variable(cells, drawn.double().mean(0), "mean of prior draws", units),
    }
    return xarray.Dataset(variables, {"quantity": names})
