"""What the shell shows: figures as tables or JSON, files, progress of an evaluation."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from .errors import InputError
from .evidence import Estimate, evaluate
from .plots import is_image
from .program import Program

TITLES = {
    "elbo": "ELBO",
    "reconstruction": "  reconstruction, E log p(x|z)",
    "kl": "  KL(q(z|x) || p(z))",
    "iw_bound": "importance-weighted bound",
    "squared_error": "squared error",
}
UNITS = {"squared_error": "squared units of the data"}  # all others are in nats


def evaluate_with_progress(
    program: Program, x: Tensor, draws: int, seed: int
) -> dict[str, Estimate]:
    """:func:`ppl_vae.evaluate`, under a progress bar on standard error."""
    with Progress(
        TextColumn(f"scoring {len(x)} data"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=draws * len(x))
        return evaluate(program, x, draws, seed, on_block=lambda done: bar.advance(task, done))


def show(figures: dict[str, Estimate], about: dict[str, Any], as_json: bool) -> None:
    """Print figures and what they are about, on standard output.

    Arguments:
        figures: Estimates, by their plain names.
        about: Run, files, counts and the like.
        as_json: Whether to print one JSON object instead of a table.
    """
    console = Console()
    if as_json:
        plain = {name: _plain(estimate) for name, estimate in figures.items()}
        console.print_json(data={**about, **plain})
        return
    if figures:
        console.print(_table(figures, about))
    if "reconstruction" in figures and "elbo" not in figures:
        console.print("The guide is a point mass: it has no density, and so no ELBO.")
    for name, value in about.items():
        lines = value if isinstance(value, list) else [value]
        console.print(
            f"{name}:",
            *lines,
            markup=False,
            highlight=False,
            soft_wrap=True,
            sep="\n  " if len(lines) > 1 else " ",
        )


def _plain(estimate: Estimate) -> dict[str, float | int | None]:
    # JSON has no NaN, which is the standard error of a single datum.
    return {k: None if math.isnan(v) else v for k, v in estimate.as_dict().items()}


def _table(figures: dict[str, Estimate], about: dict[str, Any]) -> Table:
    n = next(iter(figures.values())).n
    table = Table(title=f"{n} {about['split']} data", title_justify="left")
    unit = UNITS.get(next(iter(figures)), "nats")
    table.add_column("per datum")
    table.add_column(unit, justify="right")
    table.add_column("standard error", justify="right")
    for name, estimate in figures.items():
        table.add_row(TITLES[name], f"{estimate.mean:.2f}", f"{estimate.stderr:.2f}")
    return table


def output_file(output: Path | None, folder: Path, name: str, data_shape: tuple[int, ...]) -> Path:
    """The file to write: the user's choice, or ``name`` in ``folder``.

    Raises:
        InputError: If it is neither ``.png`` nor ``.npy``, or lies in no folder.
    """
    if output is None:
        folder.mkdir(exist_ok=True)
    file = output or folder / f"{name}{'.png' if is_image(data_shape) else '.npy'}"
    if file.suffix not in {".png", ".npy"}:
        raise InputError(f"{file}: output must end in .png or .npy")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} is no folder: make it, or choose another output")
    return file


def write_output(file: Path, values: Tensor, draw: Callable[[], Figure]) -> None:
    """Write values as an array, or a figure of them, whole or not at all.

    Raises:
        InputError: If the file cannot be written.
    """
    temporary = file.with_name(f".{file.name}")
    try:
        with temporary.open("wb") as stream:
            if file.suffix == ".npy":
                np.save(stream, values.numpy())
            else:
                draw().savefig(stream, dpi=120, format="png")
        os.replace(temporary, file)
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror})") from None
