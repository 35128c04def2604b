"""``ppl-vae sample``: data drawn from a fitted model."""

from pathlib import Path
from typing import Annotated

import typer

from .options import DataDir, Device, JsonFlag, RunPath, Seed, Trusted

TABLES = (".csv", ".parquet")

app = typer.Typer()


@app.command(epilog="Example: ppl-vae sample runs/mnist --count 100 --output digits.png")
def sample(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .png or .npy file; of a table, .csv or .parquet too (default: in RUN)."
        ),
    ] = None,
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

    A model that takes covariates is given those of the test data. Of a run that was fitted to a
    table, draws of x itself are written as one, with its columns and categories: .csv, .parquet.
    """
    from ..data.schema import Column, as_columns, has_names
    from ..plots.figures import sample_overview
    from ..programs.batches import covariates_of, match_data
    from ..programs.predictions import prior_predictive, simulate
    from ..storage.columns import write_columns
    from .opening import open_data, open_program
    from .output import output_file, picture_or_array, write_output
    from .tables import show

    opened, program = open_program(run, model, device)
    shape = tuple(opened.config.data["shape"])
    columns = [Column.of(plain) for plain in opened.config.data.get("columns", [])]
    tables = TABLES if has_names(columns) else ()
    name = "samples.csv" if tables else picture_or_array("samples", shape)
    file = output_file(output, opened.pictures, name, ".png", ".npy", *tables)
    if covariates_of(program) == (set(), set()):
        drawn = prior_predictive(program, shape, count, seed)
    else:
        data = match_data(program, open_data(opened, data_dir))
        drawn = simulate(program, data.batch("test", seed), count, seed)
    values = drawn.x if noise else drawn.mean
    if file.suffix in tables:
        write_columns(file, as_columns(columns, drawn.x.numpy()))
    else:
        names = [column.name for column in columns]
        write_output(file, lambda: sample_overview(values, values, names), values)
    show({}, {"run": str(run), "count": count, "output": str(file)}, as_json)
