"""Texts of users in pictures, and pictures that may fail."""

import io
import warnings
from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from ..errors import InputError, first_line, printable

MAX_LENGTH = 40
DPI = 120
SETTINGS: Any = {"text.usetex": False}  # for LaTeX, a name would be a program


class PictureWarning(UserWarning):
    """A picture was left out, or does not show all characters."""


def literal(text: object) -> str:
    r"""A name as Matplotlib shows it character by character: what names mean to it is undone.

    Every text of a user's that a picture shows goes through here: names of columns, classes, sites
    and covariates. Dollars would be mathematics, and lines whose name begins with ``_``, or that
    have none, would be missing from the legend.

    Arguments:
        text: The name. Of a long one the beginning is shown.

    Example:
        >>> print(literal("$0_$50"), literal("a\nb"), literal("x" * 99)[-5:])
        \$0_\$50 a\nb xx...
        >>> literal("_private"), literal("")
        (' _private', ' ')
    """
    name = printable(str(text))
    name = name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 3]}..."
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") or not name else name


def as_png(draw: Callable[[], Figure], dpi: int = DPI) -> bytes:
    """A figure as a PNG file.

    Arguments:
        draw: Makes the figure.
        dpi: Dots per inch.

    Raises:
        Exception: Whatever drawing raises.

    Example:
        >>> as_png(Figure)[1:4]
        b'PNG'
    """
    stream = io.BytesIO()
    with warnings.catch_warnings(record=True) as told, rc_context(SETTINGS):
        warnings.simplefilter("always")
        draw().savefig(stream, dpi=dpi, format="png")
    lacking = [w for w in told if "missing from font" in str(w.message)]
    for warning in told:
        if warning not in lacking:
            warnings.warn(warning.message, stacklevel=2)
    if lacking:  # otherwise one for each character
        words = "pictures show boxes for characters of names that the font of Matplotlib lacks"
        warnings.warn(words, PictureWarning, stacklevel=2)
    return stream.getvalue()


def png_or_warning(name: str, draw: Callable[[], Figure | None], dpi: int = DPI) -> bytes | None:
    """A figure as a PNG file, or a warning: a picture is no reason to lose what it shows.

    Arguments:
        name: What the warning calls it.
        draw: Makes the figure, or gives ``None`` where there is nothing to show.
        dpi: Dots per inch.

    Returns:
        The contents of the file, or ``None`` if there is no picture.

    Example:
        >>> png_or_warning("a.png", lambda: None)
    """
    try:
        with rc_context(SETTINGS):
            figure = draw()
        return None if figure is None else as_png(lambda: figure, dpi)
    except Exception as error:  # whatever a program, its data or Matplotlib raises
        reason = first_line(error)
        if not isinstance(error, InputError):
            reason = f"{type(error).__name__}: {reason}"
        warnings.warn(f"{name} was not drawn ({reason})", PictureWarning, stacklevel=2)
        return None
