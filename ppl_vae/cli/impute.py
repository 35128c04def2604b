"""``ppl-vae impute``: missing cells filled in, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DataDir, Device, JsonFlag, Method, NewData, OwnSplit, RunPath, Seed, Trusted

if TYPE_CHECKING:
    import xarray

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae impute runs/patients --output complete.csv"
    "\n\nExample: ppl-vae impute runs/patients --data new.csv --imputations 5 --output new.parquet"
)
def impute(
    run: RunPath,
    output: Annotated[
        Path | None,
        typer.Option(
            help="A .csv, .parquet or .npz file (default: results/imputed.csv in RUN). What is "
            "known of each missing cell goes to NAME-cells beside it, unless it is an .npz file."
        ),
    ] = None,
    data: NewData = None,
    split: OwnSplit = None,
    coverage: Annotated[
        float, typer.Option(help="How many of the true values intervals are to hold.")
    ] = 0.9,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Widen or narrow intervals until they hold as many hidden cells of the run's "
            "validation data as they say.",
        ),
    ] = True,
    imputations: Annotated[
        int,
        typer.Option(help="Write so many draws of the completed data too, NAME-1, NAME-2, ..."),
    ] = 0,
    method: Method = "refined",
    draws: Annotated[int, typer.Option(help="Draws for each data point.")] = 400,
    data_dir: DataDir = None,
    seed: Seed = 0,
    device: Device = "auto",
    model: Trusted = None,
    as_json: JsonFlag = False,
) -> None:
    """Fill in missing cells: of the run's own data, all of them in their order, or of new ones.

    A value is the mean of p(missing | observed), of codes the most frequent one.
    """
    from ..data.schema import Column
    from ..errors import InputError
    from ..inference.impute import impute as impute_cells
    from ..programs.batches import match_data
    from ..progress import progress_bar
    from ..storage.columns import ENDINGS
    from .opening import choose_rows, choose_whole, open_data, open_program
    from .output import output_file
    from .tables import show_imputed

    opened, program = open_program(run, model, device)
    file = output_file(output, opened.results, "imputed.csv", *ENDINGS)
    for source in (data, opened.config.data.get("source")):
        if source is not None and file.resolve() == Path(source).resolve():
            raise InputError("output", "would replace the incomplete data", "choose another file")
    if data is None and split is None:
        batch, rows, names = choose_whole(opened, program, data_dir, seed)
    else:
        batch, rows, _, names = choose_rows(opened, program, data, split, None, data_dir, seed)
    held_out = None
    if calibrate:
        held_out = match_data(program, open_data(opened, data_dir)).batch("validation", seed)
    columns = [Column.of(plain) for plain in opened.config.data.get("columns", [])]
    with progress_bar(f"imputing {batch.size} data points") as on_progress:
        found = impute_cells(
            program,
            batch,
            draws,
            coverage,
            calibration=held_out,
            columns=columns,
            imputations=imputations,
            target=method,
            seed=seed,
            on_progress=on_progress,
        ).assign_coords(datum=rows.numpy())
    count = batch.x[0].numel()
    columns = columns or [Column(f"column {place}", "real") for place in range(count)]
    files = _write(file, found, columns, names)
    about: dict[str, Any] = {
        "coverage": coverage,
        "calibrated": calibrate,
        "method": method,
        "seed": seed,
    }
    about |= {"run": str(run), "output": [str(written) for written in files]}
    show_imputed(found, columns, about, as_json)


def _write(file: Path, found: "xarray.Dataset", columns: list[Any], names: list[str]) -> list[Path]:
    """Write the completed data, what is known of cells, and imputations. The files written."""
    from ..data.schema import as_columns
    from ..inference.impute import cells_of
    from ..storage.columns import write_tables

    flat = found["x"].values.reshape(found.sizes["datum"], -1)
    if file.suffix == ".npz":
        arrays = {str(name): variable.values for name, variable in found.variables.items()}
        write_tables({file: arrays})
        return [file]
    named: dict[str, Any] = {"row_name": names} if names else {}

    def beside(ending: object) -> Path:
        return file.with_name(f"{file.stem}-{ending}{file.suffix}")

    tables = {file: {**named, **as_columns(columns, flat)}}
    tables[beside("cells")] = cells_of(found, columns, names)
    for index in range(found.sizes.get("draw", 0)):
        drawn = found["imputation"].values[index].reshape(flat.shape)
        tables[beside(index + 1)] = {**named, **as_columns(columns, drawn)}
    write_tables(tables)
    return [*tables]
