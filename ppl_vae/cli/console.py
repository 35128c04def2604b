"""What the shell shows: figures as tables or JSON, files, progress of an evaluation."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import typer
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from .. import labels
from ..choices import Estimator
from ..data.batch import Batch
from ..data.dataset import DataSet
from ..diagnostics.diagnosis import Diagnosis, Effort, diagnose
from ..diagnostics.verdicts import Verdict, sentence
from ..errors import InputError
from ..evidence import results
from ..evidence.annealing import Annealing
from ..evidence.estimate import estimate
from ..evidence.scores import Estimate, Ledger, Scores
from ..experiments.outcome import Outcome, as_plain
from ..experiments.outcome import Table as OutcomeTable
from ..objectives.gradients import Gradient
from ..plots.figures import is_image
from ..programs.protocol import Program
from ..progress import progress_bar
from ..storage.files import make_folder, replacing

TITLES = {
    "elbo": "ELBO",
    "reconstruction": "  reconstruction, E log p(x|z)",
    "kl": "  KL(q(z|x) || p(z))",
    "iw_bound": "log p(x): importance-weighted bound",
    "iw_jackknife": "  less its bias, by the jackknife",
    "ais_bound": "log p(x): annealed bound from below",
    "upper_bound": "log p(x): annealed bound from above",
    "gap": "  gap between the two",
    "kl_to_posterior": "KL(q(z|x) || p(z|x)), at least",
    "kl_to_posterior_upper": "KL(q(z|x) || p(z|x)), at most",
    "bits_per_dim": "bits per dimension, at most",
    "acceptance": "(share of trajectories accepted)",
    "squared_error": "squared error",
}
CLAIM_STYLES = {"holds": "green", "holds in part": "yellow", "does not hold": "bold red"}
DECIMALS = 2  # of nats
STYLES = {"pass": "green", "caution": "yellow", "fail": "bold red", "cannot say": "dim"}
UNITS = {"squared_error": "squared units of the data"}  # all others are in nats


def estimate_with_progress(
    estimator: Estimator,
    program: Program,
    batch: Batch,
    draws: int,
    seed: int,
    annealing: Annealing | None = None,
) -> tuple[Batch, Scores]:
    """:func:`ppl_vae.evidence.estimate.estimate`, under a progress bar on standard error."""
    with progress_bar(f"scoring {batch.size:,} data points") as on_progress:
        return estimate(estimator, program, batch, draws, annealing, seed, on_progress)


def print_json(data: dict[str, Any]) -> None:
    """Print one object on standard output: bare JSON, even where colours are forced."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def show(
    figures: dict[str, Estimate],
    about: dict[str, Any],
    as_json: bool,
    ledger: Ledger | None = None,
) -> None:
    """Print figures and what they are about, on standard output.

    Arguments:
        figures: Estimates, by their plain names.
        about: Run, files, counts and the like.
        as_json: Whether to print one JSON object instead of tables.
        ledger: The ELBO as a sum over sites, to be shown too.
    """
    console = Console()
    if as_json:
        print_json(results.as_json(figures, about, ledger))
        return
    if figures:
        console.print(_table(figures, about))
    if ledger is not None:
        console.print(_ledger_table(ledger))
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


def show_gradients(found: dict[str, Gradient], about: dict[str, Any], as_json: bool) -> None:
    """Print what :func:`ppl_vae.compare_gradients` found, on standard output.

    Arguments:
        found: Estimators by name; the first of each target is what others are compared with.
        about: Run, files, counts and the like.
        as_json: Whether to print one JSON object instead of a table.
    """
    first = {gradient.target: gradient for gradient in reversed(found.values())}
    rows: dict[str, dict[str, Any]] = {
        name: {
            "target": gradient.target,
            "variance": gradient.total_variance,
            # JSON has no infinity, which is that of a gradient without variance.
            "signal_to_noise": gradient.signal_to_noise if gradient.total_variance else None,
            "p_value": None
            if gradient is first[gradient.target]
            else (gradient.agreement(first[gradient.target])),
        }
        for name, gradient in found.items()
    }
    if as_json:
        print_json({**about, "gradients": rows})
        return
    table = Table(title="gradient by the guide's parameters", title_justify="left")
    table.add_column("estimator")
    for heading in ("total variance", "signal / noise", "p (same mean)"):
        table.add_column(heading, justify="right")
    for name, row in rows.items():
        table.add_row(
            name,
            f"{row['variance']:.3g}",
            "" if row["signal_to_noise"] is None else f"{row['signal_to_noise']:.3g}",
            "" if row["p_value"] is None else f"{row['p_value']:.2g}",
        )
    Console().print(table)
    show({}, about, as_json=False)


def diagnose_with_progress(program: Program, data: DataSet, effort: Effort, seed: int) -> Diagnosis:
    """:func:`ppl_vae.diagnose`, under a progress bar on standard error."""
    with progress_bar("diagnosing") as on_progress:
        return diagnose(program, data, effort, seed, on_progress)


def show_verdicts(diagnosis: Diagnosis, about: dict[str, Any], as_json: bool) -> None:
    """Print the verdicts of a diagnosis, on standard output.

    Arguments:
        diagnosis: What :func:`ppl_vae.diagnose` found.
        about: Files and the like.
        as_json: Whether to print one JSON object instead of a table.
    """
    console = Console()
    if as_json:
        print_json({**diagnosis.as_dict(), **about})
        return
    table = Table(show_lines=True)
    table.add_column("question", ratio=1)
    table.add_column("verdict")
    table.add_column("figure", justify="right", max_width=16)
    for verdict in diagnosis.verdicts.values():
        words = [f"[bold]{escape(verdict.question)}[/]", escape(sentence(verdict.meaning))]
        if verdict.remedy:
            words.append(f"[italic]Try:[/] {escape(verdict.remedy)}.")
        grade = f"[{STYLES[verdict.grade]}]{verdict.grade}[/]"
        table.add_row("\n".join(words), grade, _figure(verdict))
    console.print(table)
    show({}, about, as_json=False)


def show_outcome(outcome: Outcome, about: dict[str, Any], as_json: bool) -> None:
    """Print the tables of an experiment, and what they say about its claims, on standard output.

    Arguments:
        outcome: What the experiment found.
        about: Files and the like.
        as_json: Whether to print one JSON object instead of tables.
    """
    console = Console()
    if as_json:
        print_json({**as_plain(outcome), **about})
        return
    for name, table in outcome.tables.items():
        console.print(_outcome_table(name, table))
    claims = Table(show_lines=True)
    claims.add_column("claim", ratio=1)
    claims.add_column("verdict")
    for claim in outcome.claims:
        words = f"[bold]{escape(claim.text)}[/]\n{escape(claim.because)}"
        claims.add_row(words, f"[{CLAIM_STYLES[claim.verdict]}]{claim.verdict}[/]")
    console.print(claims)
    show({}, about, as_json=False)


def _outcome_table(name: str, found: OutcomeTable) -> Table:
    table = Table(title=name, title_justify="left")
    rows = found.rounded(DECIMALS)
    names = [str(column) for column in rows if not str(column).endswith("_error")]
    for column in names:
        numeric = is_numeric_dtype(rows[column])
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows.to_dict("records"):
        table.add_row(*(escape(_outcome_cell(row, c, found.exact_columns)) for c in names))
    return table


def _outcome_cell(row: dict[Any, Any], column: str, exact: set[str]) -> str:
    value, error = row[column], row.get(f"{column}_error")
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if math.isnan(value):
        return ""
    # Of other columns, what the error leaves: two of its digits.
    digits = DECIMALS if column in exact else None
    if digits is None and error and math.isfinite(error):
        digits = max(0, 1 - math.floor(math.log10(error)))
    if digits is None:
        return f"{value:.3g}"
    shown = error is not None and math.isfinite(error)
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if shown else "")


def _figure(verdict: Verdict) -> str:
    return f"{verdict.statistic_text}\n{verdict.unit}" if verdict.error else verdict.statistic_text


def _table(figures: dict[str, Estimate], about: dict[str, Any]) -> Table:
    n = next(iter(figures.values())).n
    table = Table(title=f"{n} {about['split']} data", title_justify="left")
    unit = UNITS.get(next(iter(figures)), "nats")
    table.add_column("per datum")
    table.add_column(unit, justify="right")
    table.add_column("standard error", justify="right")
    means = {name: estimate.mean for name, estimate in figures.items()}
    means |= labels.round_together(means, _identities(means), DECIMALS)
    for name, title in TITLES.items():
        if name in figures:
            digits = 4 if name == "bits_per_dim" else DECIMALS
            table.add_row(title, *(f"{v:.{digits}f}" for v in (means[name], figures[name].stderr)))
    return table


def _identities(means: dict[str, float]) -> dict[str, tuple[str, str]]:
    """Which figures of an evaluation are differences of others."""
    lower = max(("iw_bound", "ais_bound"), key=lambda name: means.get(name, -math.inf))
    return {
        "kl": ("reconstruction", "elbo"),
        "kl_to_posterior": (lower, "elbo"),
        "gap": ("upper_bound", "ais_bound"),
        "kl_to_posterior_upper": ("upper_bound", "elbo"),
    }


def _ledger_table(ledger: Ledger) -> Table:
    table = Table(title="the ELBO, site by site", title_justify="left")
    table.add_column("site")
    table.add_column("term")
    table.add_column("nats", justify="right")
    table.add_column("standard error", justify="right")
    # The last row takes what rounding leaves, so that what is printed adds up.
    means = [round(row.estimate.mean, DECIMALS) for row in ledger.rows]
    means[-1] = round(ledger.elbo.mean, DECIMALS) - sum(means[:-1])
    for row, mean in zip(ledger.rows, means, strict=True):
        table.add_row(row.site, escape(row.term), *_cells(replace(row.estimate, mean=mean)))
    table.add_row("", "sum: the ELBO", *_cells(ledger.elbo), end_section=True)
    for site, (sampled, exact) in ledger.kl.items():
        table.add_row(site, "KL(q || p), Monte Carlo", *_cells(sampled))
        table.add_row(site, "KL(q || p), closed form", *_cells(exact))
    return table


def _cells(estimate: Estimate) -> tuple[str, str]:
    return f"{estimate.mean:.{DECIMALS}f}", f"{estimate.stderr:.{DECIMALS}f}"


def output_file(output: Path | None, folder: Path, name: str, *endings: str) -> Path:
    """The file to write: the user's choice, or ``name`` in ``folder``.

    Arguments:
        output: The user's choice, if there is one.
        folder: Where the file goes otherwise.
        name: Its name there.
        endings: What the user's choice may end in.

    Raises:
        InputError: If it ends in something else, lies in no folder, or is one.
    """
    if output is None:
        make_folder(folder)
    file = output or folder / name
    if file.suffix not in endings:
        raise InputError(f"{file}: output must end in {' or '.join(endings)}")
    if not os.path.isdir(file.parent):  # Path.is_dir raises where a name is too long
        raise InputError(f"{file.parent} is no folder: make it, or choose another output")
    if os.path.isdir(file):
        raise InputError(f"{file} is a folder: choose another output")
    return file


def picture_or_array(name: str, data_shape: tuple[int, ...]) -> str:
    """The name of a file for data of this shape: a picture of images, an array of others."""
    return f"{name}.png" if is_image(data_shape) else f"{name}.npy"


def write_output(file: Path, draw: Callable[[], Figure], values: Tensor | None = None) -> None:
    """Write a figure, or to an ``.npy`` file the values that it shows, whole or not at all.

    Raises:
        InputError: If the file cannot be written.
    """
    with replacing(file) as (temporary,), temporary.open("wb") as stream:
        if values is not None and file.suffix == ".npy":
            np.save(stream, values.numpy())
        else:
            draw().savefig(stream, dpi=120, format="png")
