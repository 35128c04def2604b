"""``ppl-vae sample | reconstruct``: data that a fit generates."""

from typing import Annotated

import typer

from ..errors import InputError
from .options import DataDir, Device, JsonFlag, Output, RunPath, Seed, SplitChoice, Trusted

PAIRS = 10

app = typer.Typer()


@app.command(epilog="Example: ppl-vae sample runs/mnist --count 100 --output digits.png")
def sample(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
    output: Output = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Draw x itself, not the mean of p(x|z).")
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw data from the model: z from the prior, then x given z."""
    from ..plots.figures import sample_overview
    from ..programs.predictions import prior_predictive
    from .console import output_file, picture_or_array, show, write_output
    from .opening import open_program

    opened, program = open_program(run, model, device)
    shape = tuple(opened.config.data["shape"])
    file = output_file(output, opened.pictures, picture_or_array("samples", shape), ".png", ".npy")
    drawn = prior_predictive(program, shape, count, seed)
    values = drawn.x if noise else drawn.mean
    write_output(file, lambda: sample_overview(values, values), values)
    show({}, {"run": str(run), "count": count, "output": str(file)}, as_json)


@app.command(epilog="Example: ppl-vae reconstruct runs/mnist --count 8 --output pairs.png")
def reconstruct(
    run: RunPath,
    count: Annotated[int | None, typer.Option(min=1, help="Number of data (10).")] = None,
    split: Annotated[SplitChoice, typer.Option(help="Data to reconstruct.")] = SplitChoice.test,
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
    from ..programs.predictions import posterior_predictive
    from .console import output_file, picture_or_array, show, write_output
    from .opening import open_data, open_program

    opened, program = open_program(run, model, device)
    dataset = open_data(opened, data_dir)
    file = output_file(
        output, opened.pictures, picture_or_array("reconstructions", dataset.shape), ".png", ".npy"
    )
    x = dataset.fixed(split.value, seed)
    if count and count > len(x):
        raise InputError(
            f"--count {count} is more than the {len(x)} {split.value} data: take fewer"
        )
    x = x[: count or PAIRS]
    mean = posterior_predictive(program, x, seed).mean
    write_output(file, lambda: reconstruction_pairs(x, mean), mean)
    error = Estimate.of((x - mean).square().flatten(1).sum(1))
    about = {"split": split.value, "run": str(run), "output": str(file)}
    show({"squared_error": error}, about, as_json)
