"""``ppl-vae repair``: a better guide for the model of a run, and by how much."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import shell_word
from .options import (
    DataDir,
    Device,
    EngineOption,
    JsonFlag,
    NewGuide,
    NewRun,
    Overwrite,
    RunPath,
    Seed,
    Trusted,
    in_diagnosis,
    in_fit,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..diagnostics.repair import Repair

WORDS = {
    True: "The refit guide is better, and its run is the one to use.",
    False: "No guide that was tried is better than the one before.",
}

app = typer.Typer()


@app.command(epilog="Example: ppl-vae repair runs/mnist --epochs 20")
def repair(
    run: RunPath,
    guide: NewGuide = None,
    epochs: Annotated[int, in_fit(help="Passes over the training data of the refit.")] = 20,
    learning_rate: Annotated[float, in_fit(help="Highest learning rate of Adam.")] = 2e-3,
    engine: EngineOption = "auto",
    data_points: Annotated[int, in_diagnosis(help="Test data to use: the first so many.")] = 500,
    simulations: Annotated[int, in_diagnosis(help="Data points to simulate.")] = 4000,
    gap_points: Annotated[
        int, in_diagnosis(help="Data points whose inference gap is decomposed.")
    ] = 40,
    nuts_points: Annotated[int, in_diagnosis(help="Data points given to NUTS.")] = 4,
    output: NewRun = None,
    overwrite: Overwrite = False,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Diagnose the guide, refit it, refine what is left, and show verdicts before and after.

    p(x, z) stays as it is, to the bit. The new run has the refit guide; the command says whether
    it is the better one.
    """
    import json

    from ..diagnostics.questions import Effort
    from ..diagnostics.repair import repair as repaired
    from ..progress import progress_bar
    from ..storage.files import make_folder, replacing
    from ..training.settings import Settings
    from .model_options import check_arguments
    from .opening import beside, make_successor, open_data, open_program

    settings = Settings(
        epochs=epochs, learning_rate=learning_rate, seed=seed, device=device, engine=engine
    )
    effort = Effort(data_points, 1000, simulations, gap_points, nuts_points)
    opened, parent = open_program(run, model, device)
    changes = {} if guide is None else {"guide": guide}
    check_arguments(type(parent), changes)
    path, data = output or beside(opened.path, "repaired"), open_data(opened, data_dir)
    child, successor = make_successor(
        opened, parent, data, changes, settings, path, data_dir, overwrite
    )
    with progress_bar("repairing") as on_progress:
        found = repaired(parent, data, successor, settings, effort, seed, child, on_progress)
    about = {"parent": str(run), "run": str(path) if found.improved else str(run)}
    make_folder(opened.results)
    file = opened.results / "repair.json"
    with replacing(file) as (temporary,):
        temporary.write_text(json.dumps({**found.as_dict(), **about}, indent=2) + "\n")
    page = opened.results / "repair.html"
    _write_page(page, found, {**about, "seed": seed})
    _show(found, {**about, "results": str(file), "report": str(page)}, as_json)


def _write_page(file: "Path", found: "Repair", about: dict[str, Any]) -> None:
    from ..diagnostics.beside import write_beside

    words = [WORDS[found.improved]]
    if found.refused:
        words.append(f"There was no refit: {found.refused}.")
    title = f"{about['parent']} before and after its repair"
    write_beside(file, found.columns, title, words, about)


def _show(found: "Repair", about: dict[str, Any], as_json: bool) -> None:
    from rich.table import Table

    from ..diagnostics.repair import QUESTIONS
    from .diagnose import STYLES
    from .tables import print_json, show_about
    from .terminal import Console

    if as_json:
        print_json({**found.as_dict(), **about})
        return
    table = Table("question", *found.columns, show_lines=True)
    for key, question in QUESTIONS.items():
        cells = []
        for column in found.columns.values():
            verdict = column[key]
            cells.append(
                f"[{STYLES[verdict.grade]}]{verdict.grade}[/]\n{verdict.statistic_text}".rstrip()
            )
        table.add_row(question, *cells)
    console = Console()
    console.print(table)
    console.print(WORDS[found.improved])
    if found.refused:
        console.print(f"There was no refit: {found.refused}", markup=False, highlight=False)
    if "refined" in found.columns:
        command = f"ppl-vae encode {shell_word(about['run'])}"
        console.print("Of guides refined for each data point, as this one has them:")
        console.print(f"  {command}", markup=False, highlight=False, soft_wrap=True)
    show_about(about)
