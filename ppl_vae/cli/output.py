"""Files that commands write."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError, first_line
from ..storage.files import make_folder, replacing


def output_file(output: Path | None, folder: Path, name: str, *endings: str) -> Path:
    """The file to write: the user's choice, or ``name`` in ``folder``.

    Arguments:
        output: The user's choice, if there is one.
        folder: Where the file goes otherwise.
        name: Its name there.
        endings: What the user's choice may end in.

    Raises:
        InputError: If it ends in something else, its folder does not exist, or it is a folder.
    """
    if output is None:
        make_folder(folder)
    file = output or folder / name
    if file.suffix not in endings:
        raise InputError(file, f"must end in {' or '.join(endings)}")
    if not os.path.isdir(file.parent):  # Path.is_dir raises where a name is too long
        raise InputError(file.parent, "is not a folder", "make it, or choose another --output")
    if os.path.isdir(file):
        raise InputError(file, "is a folder", "choose another --output")
    return file


def with_names(columns: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Columns of results, and beside their ``row`` its name in the user's table, if it has one.

    Example:
        >>> with_names({"row": [3], "z": [0.5]}, ["anna"])
        {'row': [3], 'row_name': ['anna'], 'z': [0.5]}
    """
    if not names:
        return columns
    return {"row": columns["row"], "row_name": names, **columns}


def picture_or_array(name: str, data_shape: tuple[int, ...]) -> str:
    """The name of a file for data of this shape: a picture of images, an array of others."""
    from ..plots.figures import is_image

    return f"{name}.png" if is_image(data_shape) else f"{name}.npy"


def write_output(file: Path, draw: Callable[[], Any], values: Tensor | None = None) -> None:
    """Write a figure, or to an ``.npy`` file the values that it shows, whole or not at all.

    Arguments:
        file: The file.
        draw: Makes the Matplotlib figure.
        values: What it shows.

    Raises:
        InputError: If the file cannot be written, or the figure cannot be drawn.
    """
    import numpy as np

    with replacing(file) as (temporary,), temporary.open("wb") as stream:
        if values is not None and file.suffix == ".npy":
            np.save(stream, values.numpy())
        else:
            stream.write(_drawn(file, draw))


def write_picture(file: Path, draw: Callable[[], Any]) -> bool:
    """Write a picture beside results; one that cannot be drawn is left out, with a warning.

    Arguments:
        file: The file.
        draw: Makes the Matplotlib figure.

    Returns:
        Whether there is a picture.

    Raises:
        InputError: If the file cannot be written.
    """
    from ..plots.drawing import png_or_warning

    png = png_or_warning(str(file), draw)
    if png is None:
        return False
    with replacing(file) as (temporary,):
        temporary.write_bytes(png)
    return True


def _drawn(file: Path, draw: Callable[[], Any]) -> bytes:
    from ..plots.drawing import as_png

    try:
        return as_png(draw)
    except InputError:
        raise
    except Exception as error:  # whatever the data or Matplotlib raises
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(file, f"cannot be drawn ({reason})", "write an .npy file") from error
