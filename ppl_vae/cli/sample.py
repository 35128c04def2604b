"""``ppl-vae sample``: data drawn from a fitted model."""

from typing import Annotated

import typer

from .options import DataDir, Device, JsonFlag, Output, RunPath, Seed, Trusted

app = typer.Typer()


@app.command(epilog="Example: ppl-vae sample runs/mnist --count 100 --output digits.png")
def sample(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
    output: Output = None,
    noise: Annotated[
        bool, typer.Option("--noise", help="Draw x itself, not the mean of p(x|z).")
    ] = False,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw data from the model: z from the prior, then x given z.

    A model that takes covariates is given those of the test data.
    """
    from ..plots.figures import sample_overview
    from ..programs.batches import covariates_of, match_data
    from ..programs.predictions import prior_predictive, simulate
    from .opening import open_data, open_program
    from .output import output_file, picture_or_array, write_output
    from .tables import show

    opened, program = open_program(run, model, device)
    shape = tuple(opened.config.data["shape"])
    file = output_file(output, opened.pictures, picture_or_array("samples", shape), ".png", ".npy")
    if covariates_of(program) == (set(), set()):
        drawn = prior_predictive(program, shape, count, seed)
    else:
        data = match_data(program, open_data(opened, data_dir))
        drawn = simulate(program, data.batch("test", seed), count, seed)
    values = drawn.x if noise else drawn.mean
    write_output(file, lambda: sample_overview(values, values), values)
    show({}, {"run": str(run), "count": count, "output": str(file)}, as_json)
