"""``ppl-vae encode``: the posterior of each data point, by inference that is certified."""

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

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae encode runs/digits --output codes.csv"
    "\n\nExample: ppl-vae encode runs/digits --data new.npy --draws 1000 --output codes.nc"
)
def encode(
    run: RunPath,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .parquet, .csv, .npz or .nc file (default: results/codes.parquet in RUN)."
        ),
    ] = None,
    data: NewData = None,
    split: OwnSplit = None,
    data_points: FirstPoints = None,
    method: Method = "certified",
    draws: Annotated[
        int | None, typer.Option(help="Write so many draws of each z too (.npz and .nc only).")
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Find the posterior of z for each data point: mean, standard deviation, and log p(x).

    Each is found by the cheapest method whose draws can be relied on, and the file says which one.
    """
    from ..data.batch import Batch
    from ..errors import InputError
    from ..inference.codes import Codes
    from ..inference.infer import infer_blocks
    from ..programs.posterior import Posterior
    from ..progress import Progress, progress_bar
    from ..storage.arviz_io import write_inference_data
    from ..storage.columns import ENDINGS, write_columns
    from ..storage.files import replacing
    from .opening import choose_rows, open_program
    from .output import output_file, with_names
    from .shares import by_shares, how_many
    from .tables import show_codes

    opened, program = open_program(run, model, device)
    file = output_file(output, opened.results, "codes.parquet", *ENDINGS, ".nc")
    if draws is not None and file.suffix not in (".npz", ".nc"):
        raise InputError("draws", f"do not fit into {file.name}", "choose an .npz or .nc file")
    batch, rows, what, names = choose_rows(
        opened, program, data, split, data_points, data_dir, seed
    )
    drawn = 1 if draws is None else draws
    with progress_bar(f"encoding {batch.size} data points") as on_progress:

        def encoded(part: Batch, place: slice, own: int) -> Codes:
            posterior = Posterior(program, part, rows[place])
            blocks = infer_blocks(posterior, drawn, method, own, Progress(on_progress))
            return Codes.joined(list(blocks))

        codes = Codes.joined(by_shares(batch, seed, encoded))
    about = {"data": what, "method": method, "seed": seed, "run": str(run), "output": str(file)}
    about |= how_many()
    if file.suffix == ".nc":
        found = codes.inference_data(rows, about, with_draws=draws is not None)
        with replacing(file) as (temporary,):
            write_inference_data(temporary, found)
    else:
        columns = codes.columns(rows) if file.suffix != ".npz" else codes.arrays(rows)
        if draws is not None:
            columns |= {f"{site}_draws": z.numpy() for site, z in codes.latents.items()}
        write_columns(file, with_names(columns, names))
    show_codes(codes, about, as_json)
