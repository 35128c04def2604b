"""``ppl-vae report``: the page of a diagnosis."""

from pathlib import Path
from typing import Annotated

import typer

from .options import RunPath

app = typer.Typer()


@app.command(epilog="Example: ppl-vae report runs/mnist --output mnist.html")
def report(
    run: RunPath,
    output: Annotated[
        Path | None, typer.Option(help="An .html file (default: report.html in RUN).")
    ] = None,
) -> None:
    """Write what ppl-vae diagnose found as one self-contained HTML page."""
    from ..diagnostics.diagnosis import read_diagnosis
    from ..diagnostics.report import write_report
    from ..runs.directory import Run
    from .output import output_file
    from .tables import show_about

    opened = Run.open(run)
    opened.metrics()  # refused before anything is written
    file = output_file(output, opened.path, opened.report.name, ".html")
    write_report(file, read_diagnosis(opened.results), opened)
    show_about({"report": str(file)})
