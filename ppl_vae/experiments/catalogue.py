"""The experiments by their names, and how one is performed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet, Split
from ..errors import InputError
from ..progress import OnProgress
from ..runs.config import recipe, software_versions
from ..runtime import check_seed
from ..training.settings import Settings as FitSettings
from . import gap, generate, latent_size, reconstruction_loss, reparameterization
from .outcome import Outcome

LEAST_ROWS = {"train": FitSettings.batch_size, "test": 16}
QUICK_ROWS = {"train": 2000, "validation": 500, "test": 500}


@dataclass(frozen=True)
class Experiment:
    """An experiment, and how much of it to do.

    Attributes:
        run: Data, settings, seed and progress in, outcome out.
        full: Settings of the full size, minutes on two cores.
        quick: Settings of a size that takes seconds.
    """

    run: Callable[[DataSet, Any, int, OnProgress], Outcome]
    full: Any
    quick: Any


EXPERIMENTS: dict[str, Experiment] = {
    name: Experiment(module.run, module.Settings(), module.QUICK)
    for name, module in {
        "reparameterization": reparameterization,
        "latent-size": latent_size,
        "reconstruction-loss": reconstruction_loss,
        "generate": generate,
        "gap": gap,
    }.items()
}
"""What ``ppl-vae experiment NAME`` means. A new one is one file and one line here."""


def perform(
    name: str,
    data: DataSet,
    *,
    quick: bool = False,
    seed: int = 0,
    data_dir: Path | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Outcome, dict[str, Any]]:
    """Perform an experiment.

    Arguments:
        name: Of one in ``EXPERIMENTS``.
        data: Binarized dynamically; images with labels where a classifier judges.
        quick: Whether to do little of it, on the first few data.
        seed: Seed of everything random.
        data_dir: Where the data were looked for, for the config.
        on_progress: Called with the share of the work done, and what comes next.

    Returns:
        What was found, and its config.

    Raises:
        InputError: If there is no such experiment, or the data are not what it needs.
    """
    if name not in EXPERIMENTS:
        raise InputError("experiment", f"must be one of {', '.join(EXPERIMENTS)}, got {name!r}")
    experiment = EXPERIMENTS[name]
    settings = experiment.quick if quick else experiment.full
    if quick:
        train, validation, test = (_first(getattr(data, n), k) for n, k in QUICK_ROWS.items())
        data = replace(data, train=train, validation=validation, test=test)
    _check_data(data)
    outcome = experiment.run(
        data, settings, check_seed(seed), on_progress or (lambda share, text: None)
    )
    config = {
        "experiment": name,
        "settings": asdict(settings),
        "seed": seed,
        "data": recipe(data, data_dir),
        "versions": software_versions(),
    }
    return outcome, config


def _check_data(data: DataSet) -> None:
    if data.binarize != "dynamic":
        raise InputError(
            "binarize",
            f"must be 'dynamic' for an experiment, but {data.source} has {data.binarize!r}",
        )
    for name, least in LEAST_ROWS.items():
        count = len(getattr(data, name))
        if count < least:
            raise InputError(
                data.source, f"has {count} {name} points, and an experiment needs at least {least}"
            )
    if int((data.train.x.flatten(1).float().std(0) > 0).sum()) < 2:
        raise InputError(data.source, "has fewer than two values in a data point that vary")


def _first(split: Split, count: int) -> Split:
    labels = None if split.labels is None else split.labels[:count]
    return Split(split.x[:count], split.rows[:count], labels)
