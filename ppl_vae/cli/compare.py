"""``ppl-vae compare``: which of several runs has the higher log p(x), and by how much."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..choices import ComparisonEstimator, SplitName
from ..errors import InputError
from .options import DataDir, Device, JsonFlag, Seed, Trusted

OURS = "ppl_vae.models"
SAME = {
    "digest": "other data, or the same data split otherwise",
    "binarize": "data binarized otherwise",
    "levels": "data in other units",
    "shape": "data of another shape",
}

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae compare runs/small runs/large"
    "\n\nExample: ppl-vae compare runs/a runs/b runs/c --estimator refined --json"
)
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN ...", help="Run directories, two or more.")
    ],
    estimator: Annotated[
        ComparisonEstimator,
        typer.Option(
            help="Bounds on log p(x). iw: importance weighting of draws from q(z|x); refined: of "
            "draws from guides refined for each data point; ais: annealing, which owes nothing to "
            "q(z|x)."
        ),
    ] = "iw",
    draws: Annotated[int, typer.Option(help="Draws from q(z|x) for each data point.")] = 100,
    data_points: Annotated[
        int | None,
        typer.Option(help="Compare on the first so many (default: iw all, refined 1000, ais 100)."),
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Data to compare on.")] = "test",
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs by log p(x) of the same data, in pairs, with standard errors.

    What is compared are bounds from below: a run whose guide is nearer to its posterior has the
    higher one, even if log p(x) is the same. Where that may decide, ask for the refined estimator.
    """
    from ..inference.compare import compare as compare_programs
    from ..progress import progress_bar
    from ..runs.directory import Run
    from .opening import open_data, open_program
    from .tables import show_comparison

    names = [str(run) for run in runs]
    if len({*names}) < 2 or len({*names}) < len(names):
        raise InputError("RUN", f"must be given twice or more, each once, got {', '.join(names)}")
    opened = {}
    for path in runs:
        own = not Run.open(path).config.program.startswith(OURS)
        opened[str(path)] = open_program(path, model if own else None, device)
    first = opened[names[0]][0]
    for name, (run, _) in opened.items():
        for field, words in SAME.items():
            if run.config.data.get(field) != first.config.data.get(field):
                problem = f"was fitted to {words} than {names[0]}: they cannot be compared"
                raise InputError(name, problem, "fit both to the same data, read the same way")
    data = open_data(first, data_dir)
    with progress_bar(f"comparing {len(runs)} runs") as on_progress:
        found = compare_programs(
            {name: program for name, (_, program) in opened.items()},
            data,
            estimator,
            draws,
            split=split,
            data_points=data_points,
            seed=seed,
            on_progress=on_progress,
        )
    about: dict[str, Any] = {"split": split, "estimator": estimator, "draws": draws, "seed": seed}
    show_comparison(found, about, as_json)
