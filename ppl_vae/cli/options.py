"""Arguments and options that commands share."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..choices import Binarize, Engine, SplitName, Target
from ..data.reading import Reading
from ..errors import InputError

BinarizeChoice = Literal["auto", Binarize]

in_data = partial(typer.Option, rich_help_panel="Data")
in_model = partial(typer.Option, rich_help_panel="Model")
in_fit = partial(typer.Option, rich_help_panel="Fit")
in_annealing = partial(typer.Option, rich_help_panel="Annealing")
in_diagnosis = partial(typer.Option, rich_help_panel="Effort")

RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run directory, written by `ppl-vae train`.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")]
Seed = Annotated[int, typer.Option(help="Seed; on one machine, a seed gives the same bits.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Data = Annotated[
    str,
    in_data(
        help="digits, mnist, fashion-mnist, kmnist; an .npy, .npz, .csv, .parquet or .h5ad file; "
        "or a folder of images."
    ),
]
OwnSplit = Annotated[
    SplitName | None, in_data(help="The run's own data, if not new ones (default: test).")
]
FirstPoints = Annotated[int | None, in_data(help="Take the first so many data points.")]
Method = Annotated[
    Target,
    typer.Option(
        help="How far to go. guide: its weighted draws alone; refined: guides refined for each "
        "data point where those do not pass; certified: annealing and NUTS too."
    ),
]
NewRun = Annotated[Path | None, typer.Option(help="The new run directory (default: beside RUN).")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run at --output.")]
NewGuide = Annotated[
    str | None,
    in_model(help="Family of q(z|x): what the run's model takes as guide (default: the same)."),
]
NewData = Annotated[
    Path | None,
    in_data(
        help="New data: an .npy, .npz, .csv, .parquet or .h5ad file, or a folder of images, all "
        "of it."
    ),
]
EngineOption = Annotated[
    Engine,
    in_fit(help="Compile the step once, or run every step in Pyro; auto: the faster of the two."),
]
DataDir = Annotated[
    Path | None,
    in_data(
        help="Folder of mnist, fashion-mnist and kmnist (default: $PPL_VAE_DATA, else a cache)."
    ),
]
Separator = Annotated[
    str | None,
    in_data(
        help="Between the cells of a CSV table: comma, semicolon, tab, pipe, space, or a sign."
    ),
]
DecimalOption = Annotated[
    str | None, in_data("--decimal", help="Before the decimals of its numbers: . or ,")
]
Header = Annotated[
    bool | None,
    in_data("--header/--no-header", help="Whether its first row holds the names of columns."),
]
IndexColumn = Annotated[
    str | None, in_data(help="The column of row names, which are no data.", metavar="NAME")
]
Label = Annotated[
    str | None,
    in_data(help="The column of classes, which are no data (default: label).", metavar="NAME"),
]
Layer = Annotated[
    str | None, in_data(help="The layer of an .h5ad file, instead of X.", metavar="NAME")
]
Levels = Annotated[
    int | None, in_data(help="Divide integers by this highest value: 255 for 8-bit grey values.")
]
Resize = Annotated[
    str | None,
    in_data(help="Bring images to H,W pixels, whatever their proportions.", metavar="H,W"),
]
Grey = Annotated[bool, in_data("--grey", help="Make images in colour grey.")]
SchemaFile = Annotated[
    Path | None,
    in_data(
        help="A .toml or .json file that says what columns are, or leaves them out; inspect "
        "--write-schema begins one."
    ),
]
Output = Annotated[Path | None, typer.Option(help="A .png or .npy file (default: in RUN).")]
Trusted = Annotated[
    str | None,
    typer.Option("--model", help="The run's own model class, if it is not one of ppl_vae's."),
]


def sizes(name: str, text: str | None) -> tuple[int, ...] | None:
    """Integers with commas between them, such as ``500,500``.

    Arguments:
        name: Name of the option, for the error.
        text: What was given.

    Raises:
        InputError: If the text is something else.

    Example:
        >>> sizes("hidden", "500,500")
        (500, 500)
    """
    try:
        return None if text is None else tuple(map(int, text.split(",") if text else ()))
    except ValueError:
        raise InputError(name, f"must be whole numbers like 500,500, got {text!r}") from None


def choose_reading(
    separator: str | None,
    decimal: str | None,
    header: bool | None,
    index_column: str | None,
    label: str | None,
    layer: str | None,
    levels: int | None,
    resize: str | None,
    grey: bool,
    schema: Path | None,
) -> Reading:
    """How a file is to be read, as options say.

    Raises:
        InputError: Naming the option, or the file of the schema.
    """
    from ..data.schema_files import read_schema

    size = sizes("resize", resize)
    return Reading(
        separator=separator,
        decimal=decimal,
        header=header,
        index_column=index_column,
        label=label,
        layer=layer,
        levels=levels,
        resize=size,  # type: ignore[arg-type]
        grey=grey,
        schema={} if schema is None else read_schema(schema),
    )
