"""``ppl-vae sample``: data drawn from a fitted model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DataDir, Device, JsonFlag, RunPath, Seed, Trusted

TABLES = (".csv", ".parquet")

if TYPE_CHECKING:
    from ..programs.predictions import Prediction
    from ..runs.directory import Run

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae sample runs/mnist --count 100 --output digits.png"
    "\n\nExample: ppl-vae sample runs/mnist --given label=3"
)
def sample(
    run: RunPath,
    count: Annotated[int, typer.Option(min=1, help="Number of draws.")] = 64,
    given: Annotated[
        list[str] | None,
        typer.Option(
            help="Condition on a class, label=3 (its name, or its index), or on a covariate by its "
            "name, age=1.5; may be given several times."
        ),
    ] = None,
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

    A model that takes covariates is given those of the test data, but for what --given says. Of a
    run that was fitted to a table, draws of x itself are written as one, with its columns and
    categories: .csv, .parquet.
    """
    from ..data.schema import Column, as_columns, has_names
    from ..plots.figures import sample_overview
    from ..storage.columns import write_columns
    from .given import read_given
    from .opening import open_program
    from .output import output_file, picture_or_array, write_output
    from .tables import show

    opened, program = open_program(run, model, device)
    shape = tuple(opened.config.data["shape"])
    columns = [Column.of(plain) for plain in opened.config.data.get("columns", [])]
    tables = TABLES if has_names(columns) else ()
    name = "samples.csv" if tables else picture_or_array("samples", shape)
    file = output_file(output, opened.pictures, name, ".png", ".npy", *tables)
    values = read_given(given or [], opened.config.data)
    drawn = _draw(opened, program, values, count, data_dir, seed)
    shown = drawn.x if noise else drawn.mean
    if file.suffix in tables:
        write_columns(file, as_columns(columns, drawn.x.numpy()))
    else:
        names = [column.name for column in columns]
        write_output(file, lambda: sample_overview(shown, shown, names), shown)
    show({}, {"run": str(run), "count": count, "output": str(file)}, as_json)


def _draw(
    run: "Run", program: Any, given: dict[str, Any], count: int, data_dir: Path | None, seed: int
) -> "Prediction":
    """Draws from the model, given what was said and, for the rest, covariates of test data."""
    from ..data.classes import LABELS
    from ..errors import InputError
    from ..evidence.classification import CLASS_SITE
    from ..programs.batches import covariates_of, match_data
    from ..programs.predictions import decode, rows_in_turn
    from .opening import open_data

    taken, shape = covariates_of(program)[1], run.config.data["shape"]
    if taken is not None and (stray := given.keys() - taken):
        problem = f"says {min(stray)!r}, which {type(program).__name__} does not take"
        raise InputError("given", problem, "leave it out")
    covariates = {name: value.expand(count, *value.shape) for name, value in given.items()}
    latent = _latent_sites(program, shape, covariates)
    if latent is None:
        data = match_data(program, open_data(run, data_dir))
        covariates = rows_in_turn(data.batch("test", seed), count, seed).covariates | covariates
        latent = _latent_sites(program, shape, covariates) or set()
    # Where the class is drawn by the model itself, it is held fixed there.
    held = CLASS_SITE in latent and LABELS in given
    latents = {CLASS_SITE: covariates.pop(LABELS)} if held else {}
    return decode(program, latents, shape, count, seed, covariates)


def _latent_sites(program: Any, shape: list[int], covariates: dict[str, Any]) -> set[str] | None:
    """The sites that the model draws given covariates; ``None`` if it needs others."""
    import torch

    from ..data.batch import Batch
    from ..programs.sites import Sites

    one = {name: tensor[:1] for name, tensor in covariates.items()}
    try:
        return {*Sites.of(program, Batch(x=torch.zeros(1, *shape), **one)).prior}
    except (TypeError, ValueError):
        return None
