"""``ppl-vae report``: the page of a diagnosis, or of several side by side."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from ..runs.directory import Run

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae report runs/mnist --output mnist.html"
    "\n\nExample: ppl-vae report runs/mnist runs/mnist-repaired"
)
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN ...", help="Run directories that were diagnosed, one or more."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="An .html file (default: report.html, or side-by-side.html of several runs, in "
            "the first RUN)."
        ),
    ] = None,
) -> None:
    """Write what ppl-vae diagnose found as one self-contained HTML page.

    Of several runs, their verdicts are shown side by side.
    """
    from ..diagnostics.diagnosis import read_diagnosis
    from ..diagnostics.report import write_report
    from ..runs.directory import Run
    from .output import output_file
    from .tables import show_about

    opened = [Run.open(run) for run in runs]
    first = opened[0]
    if len(opened) > 1:
        file = output_file(output, first.path, "side-by-side.html", ".html")
        _write_beside(file, opened)
    else:
        first.metrics()  # refused before anything is written
        file = output_file(output, first.path, first.report.name, ".html")
        write_report(file, read_diagnosis(first.results), first)
    show_about({"report": str(file)})


def _write_beside(file: Path, runs: "list[Run]") -> None:
    from ..diagnostics.beside import write_beside
    from ..diagnostics.diagnosis import read_diagnosis
    from ..diagnostics.report import OlderWeightsWarning, older_weights

    columns, summary, about = {}, [], {}
    for name, run in zip(_names([run.path for run in runs]), runs, strict=True):
        diagnosis = read_diagnosis(run.results)
        columns[name] = diagnosis.verdicts
        summary.append(f"{name}: {diagnosis.reading}")
        if older := older_weights(diagnosis, run):
            warnings.warn(f"{name}: {older}", OlderWeightsWarning, stacklevel=2)
            summary.append(f"{name}: {older}.")
        for key in ("program", "data", "seed"):
            about[f"{name}: {key}"] = diagnosis.about.get(key)
    write_beside(file, columns, ", ".join(columns), summary, about)


def _names(paths: list[Path]) -> list[str]:
    """The shortest endings of paths that tell them apart.

    Example:
        >>> _names([Path("a/mnist"), Path("b/mnist")]), _names([Path("a/x"), Path("a/y")])
        (['a/mnist', 'b/mnist'], ['x', 'y'])
    """
    whole = [path.absolute() for path in paths]
    for count in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-count:]) for path in whole]
        if len(set(names)) == len(names):
            return names
    raise InputError("RUN", "is named twice")
