"""From command-line arguments to programs, data and runs."""

import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..choices import Estimator, SplitName
from ..data.batch import Batch
from ..data.classes import LABELS
from ..data.dataset import DataSet
from ..data.inspection import DataWarning
from ..data.known_labels import keep_labels
from ..data.missing import MASK
from ..data.reading import Reading
from ..data.sources import NAMED_SETS, is_downloaded, load_data, read_rows
from ..errors import InputError, first_line, shell_word
from ..evidence.classification import Classification, class_logits, classify
from ..inference.estimate import DATA_POINTS
from ..programs.batches import check_covariates, covariates_of, match_data, takes_labels
from ..programs.protocol import Program
from ..programs.references import build_program
from ..runs.config import CONFIG, Config, in_memory
from ..runs.directory import Run
from ..runs.loading import check_size, find_class
from ..runtime import pick_device
from ..storage.memory import refuse_beyond_memory
from ..training.processes import Processes
from ..training.settings import Settings
from .model_options import find_model


def open_program(path: Path, model: str | None, device: str) -> tuple[Run, Program]:
    """Open a run and load its program; ``model`` names its class where it is not one of ours."""
    run = Run.open(path)
    kind = None if model is None else find_model(model)[0]
    name = Processes.launched().device_name(device)
    return run, run.load(kind).to(pick_device(name))


def reopen(
    path: Path, model: str | None, data_dir: Path | None
) -> tuple[Run, Program, DataSet, Settings]:
    """A run, and all that it was begun with, made again from its config.

    Arguments:
        path: The run directory.
        model: Names the program's class where it is not one of ours.
        data_dir: Where the data lie, if not where they did.

    Raises:
        InputError: If something is gone, or not the same by now.
    """
    run = Run.open(path)
    kind = find_class(path, run.config) if model is None else find_model(model)[0]
    check_size(path, run.config, kind)
    try:
        if not run.config.settings:
            raise TypeError("it was made by hand")
        settings = Settings(**run.config.settings)
    except (TypeError, InputError) as error:
        reason = first_line(error)
        raise InputError(
            path / CONFIG, f"has no settings to continue with ({reason})", "fit-again"
        ) from None
    data = open_data(run, data_dir)
    program = build_program(kind, data.shape, run.config.arguments, settings.seed)
    return run, program, data, settings


def open_data(run: Run, data_dir: Path | None) -> DataSet:
    """Load the data that a run was fitted to.

    Raises:
        InputError: If they are gone, or not the same by now.
    """
    recipe = run.config.data
    if not {"source", "data_dir", "binarize", "digest"} <= recipe.keys():
        raise InputError(run.path / CONFIG, "does not say what it was fitted to", "fit-again")
    source = recipe["source"]
    if in_memory(recipe):
        raise InputError(
            f"the data of {run.path}",
            f"are {str(source)!r}, which is no file: they were in memory, in Python",
            "go on in Python, or fit to a file: ppl-vae train --data FILE",
        )
    if source not in NAMED_SETS and not os.path.lexists(str(source)):
        place = shell_word(run.path)
        raise InputError(
            source,
            "is no longer there",
            f"say where it is: ppl-vae train --resume {place} --data NEW",
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # train has said it
        data = load_data(
            source,
            data_dir=data_dir or _recorded_folder(recipe),
            binarize=recipe["binarize"],
            reading=Reading.of(recipe.get("reading")),
        )
    if known := recipe.get("known_labels"):
        data = keep_labels(data, *known)
    if data.digest != recipe["digest"]:
        raise InputError(
            source,
            f"has changed since {run.path} was fitted to it: what is test data now may have been "
            "training data then",
            "fit-again",
        )
    return data


def move_data(path: Path, source: str, data_dir: Path | None) -> None:
    """Record that the data of a run are in another place by now.

    Arguments:
        path: The run directory.
        source: Where they are.
        data_dir: See :func:`ppl_vae.load_data`.

    Raises:
        InputError: If other data are there, or the run is being fitted.
    """
    run = Run.open(path)
    place = source if source in NAMED_SETS else str(Path(source).expanduser().resolve())
    run.config = replace(run.config, data={**run.config.data, "source": place})
    open_data(run, data_dir)
    run.resume()  # which locks it
    try:
        run.config.write(run.path)
    finally:
        run.close()


def _recorded_folder(recipe: dict[str, Any]) -> str | None:
    """Where the data of a run lay, if they still do: it may be a stranger's run, which must not
    say where to download to."""
    source, folder = recipe["source"], recipe["data_dir"]
    if source not in NAMED_SETS or not isinstance(folder, str):
        return None
    return folder if is_downloaded(source, folder) else None


def make_successor(
    run: Run,
    parent: Program,
    data: DataSet,
    changes: dict[str, Any],
    settings: Settings,
    output: Path,
    data_dir: Path | None,
    overwrite: bool,
) -> tuple[Run, Program]:
    """A run, and a program of the same class, whose guide is to be trained beside a parent's model.

    Arguments:
        run: The parent's run.
        parent: Its program.
        data: What it was fitted to.
        changes: Arguments of the class that differ from the parent's.
        settings: How the guide is to be trained.
        output: The directory of the new run.
        data_dir: Where the data lie, if not where they did.
        overwrite: Whether a run at ``output`` may be replaced.

    Raises:
        InputError: If the class does not take the changes, or the place is taken.
    """
    if output.resolve() == run.path.resolve():
        raise InputError("output", "is the run whose model is kept", "choose another")
    arguments = run.config.arguments | changes
    program = build_program(type(parent), data.shape, arguments, settings.seed)
    folder = data_dir or run.config.data["data_dir"]
    config = Config.of(run.config.program, arguments, data, settings, folder, run.path)
    return Run.create(output, config, overwrite=overwrite), program


def beside(path: Path, ending: str) -> Path:
    """A directory beside another, whose name goes on with an ending.

    Example:
        >>> str(beside(Path("runs/mnist"), "refit"))
        'runs/mnist-refit'
    """
    return Path(f"{path if path.name.strip('.') else path.resolve()}-{ending}")


def choose_rows(
    run: Run,
    program: Program,
    file: Path | None,
    split: SplitName | None,
    count: int | None,
    data_dir: Path | None,
    seed: int,
) -> tuple[Batch, Tensor, str, list[str]]:
    """Data points to encode or score, with their rows, what they are called, and the names of rows,
    if they have any.

    Those of a file, or of a split of what the run was fitted to, by default the test data.

    Raises:
        InputError: If both are given, or the file does not hold data like the run's.
    """
    if file is not None and split is not None:
        raise InputError("split", "is of the run's own data", "leave it out, or --data")
    if file is None:
        data = match_data(program, open_data(run, data_dir))
        name: SplitName = split or "test"
        batch, rows, what = data.batch(name, seed), getattr(data, name).rows, f"{name} data"
        known = data.row_names
    else:
        batch, known = read_rows(file, run.config.data, seed, takes_labels(program))
        if MASK in covariates_of(program)[0] and MASK not in batch:
            batch[MASK] = torch.ones(batch.x.shape, dtype=torch.bool)  # nothing is missing
        check_covariates(program, batch.covariates, str(file))
        rows, what = torch.arange(batch.size), str(file)
    if count is not None and not 1 <= count <= batch.size:
        raise InputError("data_points", f"must be in 1 ... {batch.size}, got {count}")
    names = [known[row] for row in rows[:count].tolist()] if known else []
    return batch.rows(slice(count)), rows[:count], what, names


def choose_whole(
    run: Run, program: Program, data_dir: Path | None, seed: int
) -> tuple[Batch, Tensor, list[str]]:
    """All data that a run was fitted to, in their order, with their rows and the names of these.

    Raises:
        InputError: If training and test data came apart, so that there is no such order.
    """
    data = match_data(program, open_data(run, data_dir))
    splits = {name: getattr(data, name) for name in get_args(SplitName)}
    rows = torch.cat([split.rows for split in splits.values()])
    if len(rows.unique()) < len(rows):
        raise InputError("data", "came as several parts", "say which with split")
    parts = [data.batch(name, seed) for name in splits]
    order = rows.argsort()
    batch = Batch({name: torch.cat([p[name] for p in parts])[order] for name in parts[0]})
    return batch, rows[order], [*data.row_names]


def classified(
    run: Run, program: Program, batch: Batch, split: SplitName, data_dir: Path | None, seed: int
) -> Classification | None:
    """The classes that a guide finds in a batch of a split, calibrated on the validation data.

    Validation data are not: the temperature would be theirs. ``None`` if there are none to find,
    or none that is known.
    """
    if LABELS not in batch or class_logits(program, batch.rows(slice(1))) is None:
        return None
    others = None
    if split != "validation":
        others = match_data(program, open_data(run, data_dir)).batch("validation", seed)
    return classify(program, batch, others)


def choose_data(
    run: Run,
    program: Program,
    estimator: Estimator,
    count: int | None,
    split: SplitName,
    data_dir: Path | None,
    seed: int,
) -> tuple[Batch, Tensor | None]:
    """The data that an estimator is to score, and where they stood in their array.

    Bidirectional annealing draws its own ``x``: only their number, shape and covariates matter.

    Raises:
        InputError: If ``count`` is less than 1, or more than there are.
    """
    if count is not None and count < 1:
        raise InputError("data_points", f"must be at least 1, got {count}")
    simulated = estimator == "bdmc"
    given = {*run.config.data.get("covariates", [])} - {MASK}
    if simulated and not given and not covariates_of(program)[0]:
        shape, size = run.config.data["shape"], count or DATA_POINTS["bdmc"]
        refuse_beyond_memory(4 * size * math.prod(shape), f"data_points={size}", "take fewer")
        return Batch(x=torch.zeros(size, *shape)), None
    data = match_data(program, open_data(run, data_dir))
    rows = getattr(data, split).rows
    if count is not None and count > len(rows):
        raise InputError(
            "data_points",
            f"must be at most {len(rows)}, the {split} data points that there are, got {count}",
        )
    chosen = slice(count or DATA_POINTS.get(estimator))
    return data.batch(split, seed).rows(chosen), None if simulated else rows[chosen]
