"""``ppl-vae diagnose``: a verdict for each question about the posterior."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DataDir, Device, JsonFlag, RunPath, Seed, Trusted, in_diagnosis

if TYPE_CHECKING:
    from ..diagnostics.diagnosis import Diagnosis
    from ..runs.directory import Run

STYLES = {"pass": "green", "caution": "yellow", "fail": "bold red", "cannot say": "dim"}

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae diagnose runs/mnist"
    "\n\nExample: ppl-vae diagnose runs/mnist --data-points 10000 --json"
)
def diagnose(
    run: RunPath,
    data_points: Annotated[int, in_diagnosis(help="Test data to use: the first so many.")] = 1000,
    draws: Annotated[int, in_diagnosis(help="Draws from q(z|x) for each data point.")] = 1000,
    simulations: Annotated[
        int, in_diagnosis(help="Data points to simulate for calibration.")
    ] = 4000,
    gap_points: Annotated[
        int, in_diagnosis(help="Data points whose inference gap is decomposed.")
    ] = 200,
    nuts_points: Annotated[int, in_diagnosis(help="Data points given to NUTS.")] = 8,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Find out how far q(z|x) can be trusted: a verdict for each of ten questions, and a report."""
    from ..diagnostics import diagnosis
    from ..diagnostics.questions import Effort
    from ..diagnostics.report import write_report
    from ..programs.batches import match_data
    from ..progress import progress_bar
    from ..runtime import check_seed
    from ..storage.files import make_folder
    from ..training.processes import Processes
    from .opening import open_data, open_program
    from .shares import gathered

    effort = Effort(data_points, draws, simulations, gap_points, nuts_points)
    check_seed(seed)
    opened, program = open_program(run, model, device)
    data = match_data(program, open_data(opened, data_dir))
    opened.metrics()  # which the report shows: better refused now than then
    make_folder(opened.results)
    examination = diagnosis.Examination(program, data, effort, seed)
    processes = Processes.launched().join()
    with progress_bar("diagnosing") as on_progress:
        share = examination.shares(processes.count)[processes.rank]
        answers = gathered(processes, examination.answer(share, on_progress))
    found = examination.concluded({key: answer for part in answers for key, answer in part.items()})
    files = diagnosis.write_diagnosis(opened.results, found)
    write_report(opened.report, found, opened)
    about = {"results": [str(f) for f in files], "report": str(opened.report)}
    _show(found, opened, about, as_json)


def _show(found: "Diagnosis", run: "Run", about: dict[str, Any], as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..diagnostics.remedies import distinct
    from ..diagnostics.verdicts import sentence
    from .tables import print_json, show_about, show_remedies
    from .terminal import Console

    remedies = distinct(found.remedies, run.path, run.config)
    if as_json:
        ready = [{**asdict(remedy), "questions": questions} for remedy, questions in remedies]
        print_json({**found.as_dict(), "remedies": ready, **about})
        return
    table = Table(show_lines=True)
    table.add_column("question", ratio=1)
    table.add_column("verdict")
    table.add_column("statistic", justify="right", max_width=16)
    for verdict in found.verdicts.values():
        words = [f"[bold]{escape(verdict.question)}[/]", escape(sentence(verdict.meaning))]
        if verdict.remedy:
            words.append(f"[italic]Try:[/] {escape(verdict.remedy)}.")
        unit = f"\n{verdict.unit}" if verdict.error else ""
        grade = f"[{STYLES[verdict.grade]}]{verdict.grade}[/]"
        table.add_row("\n".join(words), grade, verdict.statistic_text + unit)
    console = Console()
    console.print(escape(found.reading))
    console.print(table)
    show_remedies(remedies)
    show_about(about)
