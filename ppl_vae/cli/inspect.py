"""``ppl-vae inspect``: what is in a file, before anything is fitted to it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    DecimalOption,
    Grey,
    Header,
    IndexColumn,
    JsonFlag,
    Label,
    Layer,
    Levels,
    Resize,
    SchemaFile,
    Separator,
    choose_reading,
)

app = typer.Typer()


@app.command(
    epilog="Example: ppl-vae inspect table.csv"
    "\n\nExample: ppl-vae inspect table.csv --write-schema schema.toml"
)
def inspect(
    data: Annotated[str, typer.Argument(metavar="DATA", help="What train takes as --data.")],
    separator: Separator = None,
    decimal: DecimalOption = None,
    header: Header = None,
    index_column: IndexColumn = None,
    label: Label = None,
    layer: Layer = None,
    levels: Levels = None,
    resize: Resize = None,
    grey: Grey = False,
    schema: SchemaFile = None,
    write_schema: Annotated[
        Path | None,
        typer.Option(help="Write the kinds that were found, to be changed, into a .toml file."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a file holds: its columns and their kinds, what is missing, and what to mind."""
    import warnings

    from ..data.inspection import summarize, troubles
    from ..data.schema_files import schema_text
    from ..data.sources import load_data
    from ..storage.files import replacing
    from .output import output_file
    from .tables import print_json

    reading = choose_reading(
        separator, decimal, header, index_column, label, layer, levels, resize, grey, schema
    )
    file = None if write_schema is None else output_file(write_schema, Path(), "", ".toml")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are among the troubles
        found = load_data(data, reading=reading)
    summaries = summarize(found)
    said = troubles(summaries)
    about = _describe(found, summaries)
    if file is not None:
        with replacing(file) as (temporary,):
            temporary.write_text(schema_text(found.columns) + "\n", encoding="utf-8")
        about["schema"] = str(file)
    if as_json:
        print_json(about | {"warnings": said})
        return
    _show(about, said)


def _describe(data: Any, summaries: Any) -> dict[str, Any]:
    splits = {name: len(getattr(data, name)) for name in ("train", "validation", "test")}
    covariates = {n: list(t.shape[1:]) for n, t in data.train.covariates.items()}
    unlabelled = sum(
        int((part.labels < 0).sum())
        for part in (data.train, data.validation, data.test)
        if part.labels is not None
    )
    return {
        "data": data.source,
        "rows": sum(splits.values()),
        **splits,
        "shape": list(data.shape),
        "levels": data.levels,
        "classes": len(data.label_names),
        "without_label": unlabelled,
        "row_names": bool(data.row_names),
        "covariates": covariates,
        "columns": [
            {
                **summary.column.plain(),
                "missing": summary.missing,
                "low": summary.low,
                "high": summary.high,
            }
            for summary in summaries
        ],
    }


def _show(about: dict[str, Any], said: list[str]) -> None:
    from rich.table import Table

    from ..errors import printable
    from .terminal import Console

    console = Console(highlight=False)
    text = f"{about['rows']:,} rows ({about['train']:,} train, {about['validation']:,} validation, "
    text += f"{about['test']:,} test) of shape {tuple(about['shape'])}"
    if about["levels"] is not None:
        text += f", divided by {about['levels']}"
    if about["classes"]:
        text += f"; {about['classes']:,} classes"
    if about["without_label"]:
        text += f", {about['without_label']:,} rows without"
    text += "; rows have names" if about["row_names"] else ""
    for name, shape in about["covariates"].items():
        text += f"; {name} of shape {tuple(shape)}"
    console.print(printable(text), soft_wrap=True, markup=False)
    if about["columns"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title, side in (("column", "left"), ("kind", "left"), ("missing", "right")):
            table.add_column(title, justify=side, overflow="fold")  # type: ignore[arg-type]
        table.add_column("values", overflow="fold")
        for column in about["columns"]:
            values = _values(column)
            cells = (column["name"], column["kind"], f"{column['missing']:,}", values)
            table.add_row(*(printable(cell).replace("[", r"\[") for cell in cells))
        console.print(table)
    for line in said:
        console.print(f"warning: {printable(line)}", soft_wrap=True, markup=False)


def _values(column: dict[str, Any]) -> str:
    """The range of a column, or its first categories."""
    if names := column.get("categories"):
        return ", ".join(names[:6]) + (f", ... ({len(names):,})" if len(names) > 6 else "")
    mean = f"mean {column['loc']:.4g}, sd {column['scale']:.3g}"
    mean = f"of the log: {mean}" if column["kind"] == "positive" else mean
    return f"{column['low']:.6g} to {column['high']:.6g} ({mean})"
