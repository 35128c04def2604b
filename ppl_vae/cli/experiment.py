"""``ppl-vae experiment``: claims about VAEs, tested."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..choices import ExperimentName
from .options import DataDir, JsonFlag, Seed

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from ..experiments.outcome import Outcome, Table

STYLES = {"holds": "green", "holds in part": "yellow", "does not hold": "bold red"}

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae experiment gap --quick"
    "\n\nExample: ppl-vae experiment latent-size --data-dir DIR --output latent-size"
)
def experiment(
    name: Annotated[
        ExperimentName,
        typer.Argument(
            help="reparameterization: does it draw from the same distribution, and by how much "
            "does it reduce the variance of gradients? latent-size: what do more latent variables "
            "bring? reconstruction-loss: what does each loss regard as near? generate: why does an "
            "autoencoder not generate? gap: what improves during a fit, model or guide?"
        ),
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Seconds, not minutes: fewer data, shorter fits.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            help="As in ppl-vae train, with values in [0, 1] (default: mnist; with --quick digits)."
        ),
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="The new folder (default: runs/experiments/NAME[-quick])."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the experiment at --output.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Test a claim about VAEs: tables with standard errors, a picture, and whether it holds."""
    from ..data.sources import load_data
    from ..experiments.catalogue import perform
    from ..experiments.outcome import prepare_folder, write_outcome
    from ..progress import progress_bar
    from ..runtime import check_seed

    check_seed(seed)
    folder = output or Path("runs") / "experiments" / (f"{name}-quick" if quick else name)
    source = data or ("digits" if quick else "mnist")
    dataset = load_data(source, data_dir=data_dir, binarize="dynamic")
    prepare_folder(folder, overwrite)
    try:
        with progress_bar(name) as on_progress:
            outcome, config = perform(
                name, dataset, quick=quick, seed=seed, data_dir=data_dir, on_progress=on_progress
            )
        files = write_outcome(folder, outcome, config)
    except BaseException:
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    _show(outcome, {"files": [str(file) for file in files]}, as_json)


def _show(outcome: "Outcome", about: dict[str, Any], as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..experiments.outcome import as_plain
    from .tables import print_json, show_about
    from .terminal import Console

    if as_json:
        print_json({**as_plain(outcome), **about})
        return
    for name, table in outcome.tables.items():
        Console().print(_table(name, table))
    claims = Table(show_lines=True)
    claims.add_column("claim", ratio=1)
    claims.add_column("verdict")
    for claim in outcome.claims:
        words = f"[bold]{escape(claim.text)}[/]\n{escape(claim.because)}"
        claims.add_row(words, f"[{STYLES[claim.verdict]}]{claim.verdict}[/]")
    Console().print(claims)
    show_about(about)


def _table(name: str, found: "Table") -> "RichTable":
    from pandas.api.types import is_numeric_dtype
    from rich.markup import escape
    from rich.table import Table

    from .tables import DECIMALS

    table = Table(title=name, title_justify="left")
    rows = found.rounded(DECIMALS)
    names = [str(column) for column in rows if not str(column).endswith("_error")]
    for column in names:
        numeric = is_numeric_dtype(rows[column])
        table.add_column(column, justify="right" if numeric else "left")
    for row in rows.to_dict("records"):
        table.add_row(*(escape(_cell(row, c, found.exact_columns, DECIMALS)) for c in names))
    return table


def _cell(row: dict[Any, Any], column: str, exact: set[str], decimals: int) -> str:
    value, error = row[column], row.get(f"{column}_error")
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if math.isnan(value):
        return ""
    # Columns that add up have fixed decimals; the others as many as the error leaves, two digits.
    digits = decimals if column in exact else None
    if digits is None and error and math.isfinite(error):
        digits = max(0, 1 - math.floor(math.log10(error)))
    if digits is None:
        return f"{value:.3g}"
    shown = error is not None and math.isfinite(error)
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if shown else "")
