"""Does the model generate data like the data? Predictive checks of draws, and copies among them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray
from torch import Tensor

from ..data.batch import Batch
from ..data.missing import observed
from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import posterior_predictive, prior_predictive, simulate
from ..programs.protocol import Program
from ..progress import Progress
from ..runtime import derived_seed
from .comparisons import LEVEL, Finding, kuiper, kuiper_p_value, outliers, unlike, unlike_uniform
from .copies import COPYING, copies, nearness, two_nearest
from .correlations import column_name, correlations, direction
from .materiality import total_variation
from .quantities import (
    WORDS,
    Quantity,
    Scale,
    check_quantities,
    columns,
    largest,
    of_data,
    size_of,
)
from .verdicts import DiagnosticResult, Grade, Verdict, advice, needed

QUESTION = "Does the model generate data like the data?"
SAMPLES, MIN_DATA, MIN_TRAIN = 8000, 100, 100
SCALING = 2000  # draws that give units
REPLICATIONS = 10  # of x' ~ p(x|z), z ~ q(z|x)
PIT_DRAWS, PIT_VALUES = 100, 1 << 22  # draws among which each value is ranked; values at once
COMPARED = 5000  # training data that choose what to compare
SOURCE = "Gelman et al. 1996; Meehan et al. 2020; Gneiting et al. 2007; Kuiper 1960"
REMEDY = (
    "longer training; a prior that fits the aggregate posterior; a likelihood that suits the data; "
    "if there are copies, more data or a smaller decoder"
)
OF_DATA = "units of the data"
PIT_P_VALUE = "p-value of the uniformity of the PIT (Gneiting et al. 2007; Kuiper 1960)"
SOURCES = {
    "test": ("held_out", "held-out data"),
    "prior": ("sample", "prior predictive draws"),
    "posterior": ("held_out", "posterior predictive draws"),
}
FINDING = {
    "value": "what was measured",
    "error": "its standard error",
    "p_value": "p-value of the comparison",
    "caution": "where caution begins",
    "fail": "where failure begins",
    "words": "what was found",
}
ORDER: tuple[Grade, ...] = ("pass", "cannot say", "caution", "fail")


def ask_generation(
    posterior: Posterior,
    train: Batch,
    seed: int,
    progress: Progress | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    names: Sequence[str] = (),
) -> DiagnosticResult:
    r"""Compare data drawn from the model with data that it was not fitted to.

    - Each pixel or column: the PIT of held-out values among prior predictive draws (Gneiting et al.
      2007), whose distance from uniform is Kuiper's.
    - Test quantities of a data point (:data:`.quantities.WORDS`, and the user's): the distance
      between their laws for draws and for held-out data, and outliers, which are held-out data
      beyond all draws, or draws beyond all held-out data.
    - Posterior predictive p-values (Gelman et al. 1996) of x' ~ p(x | z), z ~ q(z | x). They are
      not uniform, even where all is right, and so compared with those of data that the model made
      (Hjort et al. 2006).
    - Copies: draws nearer to training data than held-out data are (after Meehan et al. 2020).
    - The correlation of the pair of columns that differs most.

    If held-out data have the law of draws, which no guide can change, then any of this gives an
    alarm with a probability of at most 0.01.

    Arguments:
        posterior: The posterior of held-out data.
        train: Training data.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.
        quantities: Test quantities of the user, by name; see :func:`ppl_vae.diagnose`.
        names: Of the columns of a table.

    Returns:
        ``generation``: each test quantity of held-out data (``test_...``), of prior predictive
        draws (``prior_...``), and for some of replications (``posterior_...``) with their
        ``p_value_...``; ``test_nearness`` and ``prior_nearness``; ``pit_p_value``,
        ``pit_distance``, ``test_mean`` and ``prior_mean``, one for each pixel or column; and all
        that was compared: ``value``, ``error``, ``p_value``, ``caution``, ``fail``, ``grade`` and
        ``words`` (finding).

    Raises:
        InputError: If there are too few data, draws are not finite, or a quantity of the user's
            does not give one finite number for each data point.
    """
    test, progress = posterior.batch, progress or Progress()
    if test.size < MIN_DATA or train.size < MIN_TRAIN:
        raise InputError(
            f"{test.size} held-out and {train.size} training data points",
            "are too few for predictive checks",
            f"give at least {MIN_DATA} of each",
        )
    own = check_quantities(quantities, test.x)
    generator = np.random.default_rng(derived_seed(seed, "comparisons"))
    sample = _measured(posterior.program, test, train, own, seed, progress)
    places = _pit(posterior.program, test, seed, generator)
    progress.advance(0.3)
    findings = copies(*sample.split(sample.distances))
    findings += [_columns(places, sample.shape, generator, names), *_compared(sample, generator)]
    chosen_on = columns(zero_filled(train)[:COMPARED])
    pair = correlations(chosen_on, *sample.split(columns(sample.x)), generator, names)
    findings += [pair] if pair is not None else []
    progress.advance(0.1)
    verdict = _verdict(findings, test.size)
    return DiagnosticResult(verdict, {"generation": _dataset(sample, places, findings, names)})


@dataclass(frozen=True)
class _Sample:
    """Held-out data and, after them, draws from the model; and what was measured on all of them.

    ``ranks`` are posterior predictive p-values, ``replicated`` quantities of one replication.
    """

    held_out: int
    x: Tensor
    values: dict[str, np.ndarray]
    ranks: dict[str, np.ndarray]
    replicated: dict[str, np.ndarray]
    distances: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape[1:])

    def split(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of held-out data, and of draws."""
        return values[: self.held_out], values[self.held_out :]


def zero_filled(batch: Batch) -> Tensor:
    """The data, with zeros for what a mask says was not observed."""
    return torch.where(observed(batch.x, batch), batch.x, torch.zeros_like(batch.x))


def _measured(
    program: Program,
    test: Batch,
    train: Batch,
    own: Mapping[str, Quantity],
    seed: int,
    progress: Progress,
) -> _Sample:
    """Draw from the model, and measure all quantities of draws and of held-out data."""
    drawn = simulate(program, test, SAMPLES, derived_seed(seed, "generated")).batch
    apart = simulate(program, test, SCALING, derived_seed(seed, "scaling")).batch
    if not (drawn.x.isfinite().all() and apart.x.isfinite().all()):
        raise InputError("draws from the model", "are not all finite")
    scale = Scale(columns(zero_filled(apart)))
    rest = next(_replicated(program, apart, derived_seed(seed, "scaling"), 1))[1]
    residual_scale = Scale(columns(zero_filled(apart)) - rest)
    compared = scale.of(columns(zero_filled(train)[:COMPARED]))
    steepest = direction(compared, scale.of(columns(zero_filled(apart))))
    progress.advance(0.05)
    both = Batch({n: torch.cat([test[n].to(tensor), tensor]) for n, tensor in drawn.items()})
    x = zero_filled(both)
    values = of_data(x, scale, own)
    below, ties = ({name: np.zeros(both.size) for name in values} for _ in range(2))
    passes = _replicated(program, both, derived_seed(seed, "replicated"), REPLICATIONS)
    for step, (again, mean) in enumerate(passes):
        of_again = of_data(again, scale, own)
        for name, value in values.items():
            below[name] += of_again[name] < value
            ties[name] += of_again[name] == value
        if step == 0:
            first, residual = of_again, residual_scale.of(columns(x) - mean)
        progress.advance(0.4 / REPLICATIONS)
    generator = np.random.default_rng(derived_seed(seed, "ties"))
    ranks = {
        name: (below[name] + generator.random(both.size) * (ties[name] + 1)) / (REPLICATIONS + 1)
        for name in values
    }
    distances = two_nearest(x, zero_filled(train).to(x))
    progress.advance(0.15)
    values |= {
        "direction": scale.of(columns(x)) @ steepest,
        "residual": size_of(residual),
        "worst_residual": largest(residual),
        "distance": distances[:, 0],
    }
    return _Sample(test.size, x, values, ranks, first, distances)


def _replicated(
    program: Program, batch: Batch, seed: int, times: int
) -> Iterator[tuple[Tensor, np.ndarray]]:
    """x' ~ p(x | z), z ~ q(z | x), and its mean, so many times."""
    for time in range(times):
        again = posterior_predictive(program, batch, derived_seed(seed, f"replication {time}"))
        if not (again.x.isfinite().all() and again.mean.isfinite().all()):
            raise InputError("draws of x given the guide's z", "are not all finite")
        yield zero_filled(_like(batch, again.x)), columns(zero_filled(_like(batch, again.mean)))


def _like(batch: Batch, x: Tensor) -> Batch:
    return Batch({**batch, "x": x})


def _pit(program: Program, test: Batch, seed: int, generator: np.random.Generator) -> np.ndarray:
    """Where each held-out value lies among draws, in (0, 1), of shape (N, columns)."""
    places, shape = [], test.x.shape[1:]
    block = max(1, PIT_VALUES // (PIT_DRAWS * test.x[0].numel()))
    for first, part in enumerate(test.split(block)):
        # Each data point has draws of its own: shared ones would make the ranks dependent.
        given = part.rows(torch.arange(part.size).repeat(PIT_DRAWS))
        of_part = derived_seed(seed, f"PIT {first}")
        drawn = prior_predictive(program, shape, given.size, of_part, given.covariates).x
        beside = zero_filled(_like(given, drawn)).unflatten(0, (PIT_DRAWS, part.size))
        x = zero_filled(part).to(drawn)
        below, ties = ((found.sum(0).flatten(1).numpy()) for found in (beside < x, beside == x))
        places.append(below + generator.random(below.shape) * (ties + 1))
    return np.concatenate(places) / (PIT_DRAWS + 1)


def _columns(
    places: np.ndarray,
    shape: tuple[int, ...],
    generator: np.random.Generator,
    names: Sequence[str],
) -> Finding:
    """The finding on the PIT of pixels or columns."""
    value, error, p = unlike_uniform(places, generator)
    at = int(kuiper(places).argmax())
    name = column_name(names, at)
    if len(shape) > 1:
        name = f"pixel {tuple(int(i) for i in np.unravel_index(at, shape))}"
    off = int((p * len(p) < LEVEL).sum())
    return Finding(
        "PIT",
        f"the distribution of {name} differs most from the model's, and {off} of {len(p)} "
        f"{'columns' if len(shape) == 1 else 'pixels'} differ significantly",
        f"total variation, at least, of held-out data and the model: {name}, by its PIT",
        value,
        error,
        min(1.0, float(p.min()) * len(p)),
        *total_variation(),
    )


def _compared(sample: _Sample, generator: np.random.Generator) -> Iterator[Finding]:
    """A finding on each quantity, on its outliers, and on its posterior predictive p-value."""
    for name, values in sample.values.items():
        held_out, drawn = sample.split(values)
        yield unlike(name, _difference(name, held_out, drawn), held_out, drawn, generator)
        if name != "distance":  # of which copies are what is beyond
            yield outliers(name, WORDS.get(name, name), held_out, drawn)
    for name, ranks in sample.ranks.items():
        words = (
            f"replications x' ~ p(x|z), z ~ q(z|x) of held-out data differ from x in their "
            f"{WORDS.get(name, name)} as those of data that the model made do not"
        )
        yield unlike(f"replicated {name}", words, *sample.split(ranks), generator)


def _difference(name: str, held_out: np.ndarray, drawn: np.ndarray) -> str:
    """How draws differ from held-out data, in words."""
    low, high = (np.median(values) for values in (drawn, held_out))
    if name == "radius":
        where, kind = ("nearer to", "under") if low < high else ("farther from", "over")
        return f"draws lie {where} their mean than held-out data: the model is {kind}-dispersed"
    how = "smaller" if low < high else "larger" if low > high else "different"
    return f"draws have a {how} {WORDS.get(name, name)} than held-out data"


def _verdict(findings: list[Finding], size: int) -> Verdict:
    grades = [finding.grade(len(findings)) for finding in findings]
    given = max(grades, key=ORDER.index)
    of_worst = [f for f, grade in zip(findings, grades, strict=True) if grade == given]
    alarm = given in ("caution", "fail")
    reach = 0 if alarm else 3
    # Copies first, for they are a cause: what else differs may follow from them.
    first = [f for f in of_worst if alarm and f.name in COPYING] or of_worst
    worst = max(first, key=lambda f: (f.value + reach * f.error) / f.caution)
    others = [
        finding
        for finding, grade in zip(findings, grades, strict=True)
        if grade in ("caution", "fail") and finding is not worst
    ]
    meaning = worst.words
    if given == "pass":
        meaning = f"none of {len(findings)} comparisons of draws with held-out data found a "
        meaning += f"material difference; the nearest to one was {worst.name}"
    elif given == "cannot say":
        meaning = f"the data are too few to tell; it may be that {worst.words}"
    dispersed = next((f.words for f in others if f.name == "radius"), "")
    if dispersed:
        meaning += f"; {dispersed}"
    if others:
        names = [finding.name for finding in others[:5]]
        meaning += f"; also unlike: {', '.join(names)}"
        meaning += f" and {len(others) - 5} more" if len(others) > 5 else ""
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic=worst.statistic,
        value=worst.value,
        error=worst.error,
        unit="1" if worst.name == "correlation" else "probability",
        threshold=f"caution above {worst.caution:.2g} and significant (p = {worst.p_value:.2g}, "
        f"below {LEVEL:g} / {len(findings)}), fail above {worst.fail:.2g} by 3 standard errors",
        source=SOURCE,
        remedy=advice(given, REMEDY, needed(worst.value, worst.error, worst.caution, size)),
    )


def _dataset(
    sample: _Sample, places: np.ndarray, findings: list[Finding], columns_of_x: Sequence[str]
) -> xarray.Dataset:
    """All that was measured, labelled."""
    variables, quantities = {}, {**sample.values, "nearness": nearness(sample.distances)}
    measured = [("test", "prior", quantities), ("posterior", "", sample.replicated)]
    for first, second, found in measured:
        for name, values in found.items():
            units = OF_DATA if name in ("total", "spread", "distance") else "1"
            for source, part in zip((first, second), sample.split(values), strict=True):
                if source:
                    dim, of = SOURCES[source]
                    meaning = f"{WORDS.get(name, name)}, of {of}"
                    variables[f"{source}_{name}"] = variable(dim, part, meaning, units)
    for name, ranks in sample.ranks.items():
        meaning = (
            f"posterior predictive p-value of the {WORDS.get(name, name)} (Gelman et al. 1996)"
        )
        p = 1 - sample.split(ranks)[0]
        variables[f"p_value_{name}"] = variable("held_out", p, meaning, "probability")
    cells = [f"x_dim_{i}" for i in range(len(sample.shape))]
    distance = kuiper(places)
    held_out, drawn = sample.split(columns(sample.x))
    in_place = {
        "pit_p_value": (kuiper_p_value(distance, len(places)), PIT_P_VALUE, "probability"),
        "pit_distance": (distance, "Kuiper's distance of the PIT from uniform", "probability"),
        "test_mean": (held_out.mean(0), "mean of held-out data", OF_DATA),
        "prior_mean": (drawn.mean(0), "mean of prior draws", OF_DATA),
    }
    for name, (values, meaning, units) in in_place.items():
        variables[name] = variable(cells, values.reshape(sample.shape), meaning, units)
    for name, meaning in FINDING.items():
        values = np.array([getattr(finding, name) for finding in findings])
        variables[name] = variable("finding", values, meaning)
    grades = np.array([finding.grade(len(findings)) for finding in findings])
    variables["grade"] = variable("finding", grades, "grade, all findings counted")
    names = {"finding": [f.name for f in findings], "quantity": list(sample.values)}
    if columns_of_x:
        names |= {cells[0]: [*columns_of_x]}
    return xarray.Dataset(variables, names)
