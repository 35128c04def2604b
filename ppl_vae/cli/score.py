"""``ppl-vae score``: log p(x) of each data point, and which are unlike the training data."""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DataDir,
    Device,
    FirstPoints,
    JsonFlag,
    Method,
    NewData,
    OwnSplit,
    RunPath,
    Seed,
    Trusted,
)

REFERENCE = 1000  # validation data that others are compared with

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae score runs/digits --data new.npy --output scores.csv"
    "\n\nExample: ppl-vae score runs/digits --split test --method certified"
)
def score(
    run: RunPath,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .parquet, .csv or .npz file (default: results/scores.parquet in RUN)."
        ),
    ] = None,
    data: NewData = None,
    split: OwnSplit = None,
    data_points: FirstPoints = None,
    method: Method = "refined",
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Estimate log p(x) of each data point, and flag those that are unlike the training data.

    Their log p(x) is compared with that of validation data, which the fit has not seen either. A
    data point is flagged if hardly one in a hundred of those is as low, or as high.
    """
    from ..inference.unlike import score_rows
    from ..programs.batches import match_data
    from ..programs.posterior import Posterior
    from ..progress import Progress, progress_bar
    from ..storage.columns import ENDINGS, write_columns
    from .opening import choose_rows, open_data, open_program
    from .output import output_file, with_names
    from .tables import show_scores

    opened, program = open_program(run, model, device)
    file = output_file(output, opened.results, "scores.parquet", *ENDINGS)
    batch, rows, what, names = choose_rows(
        opened, program, data, split, data_points, data_dir, seed
    )
    known = match_data(program, open_data(opened, data_dir)).batch("validation", seed)
    known = known.rows(slice(REFERENCE))
    posteriors = Posterior(program, batch, rows), Posterior(program, known)
    with progress_bar(f"scoring {batch.size} data points") as on_progress:
        columns = score_rows(*posteriors, method, seed, Progress(on_progress))
    write_columns(file, with_names(columns, names))
    about = {"data": what, "method": method, "seed": seed, "run": str(run), "output": str(file)}
    show_scores(columns, known.size, about, as_json)
