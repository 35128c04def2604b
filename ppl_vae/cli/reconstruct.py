"""``ppl-vae reconstruct``: data beside what a fitted model makes of them."""

from typing import Annotated

import typer

from ..choices import SplitName
from ..errors import InputError
from .options import DataDir, Device, JsonFlag, Output, RunPath, Seed, Trusted

PAIRS = 10

app = typer.Typer()


@app.command(epilog="Example: ppl-vae reconstruct runs/mnist --count 8 --output pairs.png")
def reconstruct(
    run: RunPath,
    count: Annotated[
        int | None, typer.Option(min=1, help=f"Number of data points (default: {PAIRS}).")
    ] = None,
    split: Annotated[SplitName, typer.Option(help="Data to reconstruct.")] = "test",
    output: Output = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Encode data, decode one draw from q(z|x), and show both."""
    from ..evidence.scores import Estimate
    from ..plots.figures import reconstruction_pairs
    from ..plots.pictures import with_gaps
    from ..programs.batches import match_data
    from ..programs.predictions import posterior_predictive
    from .opening import open_data, open_program
    from .output import output_file, picture_or_array, write_output
    from .tables import show

    opened, program = open_program(run, model, device)
    data = match_data(program, open_data(opened, data_dir))
    name = picture_or_array("reconstructions", data.shape)
    file = output_file(output, opened.pictures, name, ".png", ".npy")
    batch = data.batch(split, seed)
    if count and count > batch.size:
        raise InputError(
            "count", f"must be at most {batch.size}, the {split} data points, got {count}"
        )
    batch = batch.rows(slice(count or PAIRS))
    mean, shown = posterior_predictive(program, batch, seed).mean, with_gaps(batch)
    names = [column.name for column in data.columns]
    write_output(file, lambda: reconstruction_pairs(shown, mean, names), mean)
    error = Estimate.of((shown - mean).nan_to_num().square().flatten(1).sum(1))
    about = {"split": split, "run": str(run), "output": str(file)}
    show({"squared_error": error}, about, as_json)
