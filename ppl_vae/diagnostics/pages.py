"""Pages of one file each, without scripts or requests: templates filled with plain text."""

import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from ..errors import InputError, as_path, first_line, printable
from ..plots.drawing import png_or_warning
from ..storage.files import replacing
from .verdicts import sentence

DPI = 110
Show = tuple[str, str, Callable[[], Figure]]
"""Heading and caption of a figure, and what draws it."""


def fill(template: str, **values: Any) -> str:
    """A template with its values, whose text has no markup and no characters for a terminal.

    Arguments:
        template: The name of a file in ``templates/``.
        values: What it shows.

    Example:
        >>> nothing = {"counts": "", "older": "", "reading": "", "verdicts": {}, "remedies": {}}
        >>> empty = {"pictures": [], "about": {}, "fit": {}}
        >>> "<title>a &lt; b</title>" in fill("report.html", title="a < b", **nothing, **empty)
        True
    """
    environment = Environment(
        loader=PackageLoader("ppl_vae.diagnostics"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=True,
    )
    environment.filters["sentence"] = sentence
    return environment.get_template(template).render(**values)


def _shown(value: Any) -> Any:
    return value if hasattr(value, "__html__") else printable(str(value))


def pictures(shows: Iterable[Show], page: str) -> list[dict[str, str]]:
    """The figures of a page. One that cannot be drawn is left out, with a warning.

    Arguments:
        shows: Their headings, captions, and what draws them.
        page: What a warning calls the page.
    """
    found = []
    for heading, caption, draw in shows:
        png = png_or_warning(f"{heading!r} of {page}", draw, DPI)
        if png is not None:
            data = base64.b64encode(png).decode("ascii")
            found.append({"heading": heading, "caption": caption, "data": data})
    return found


def write_page(file: str | Path, render: Callable[[], str], what: str) -> None:
    """Write a page, whole or not at all.

    Arguments:
        file: Where.
        render: Makes the page.
        what: What it shows, for messages.

    Raises:
        InputError: If the page cannot be written, or what it shows is incomplete.
    """
    try:
        page = render()
    except InputError:
        raise
    except Exception as error:  # whatever incomplete or malformed groups raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(what, f"cannot be shown ({reason})", "diagnose-again") from error
    with replacing(as_path("file", file)) as (temporary,):
        temporary.write_text(page, encoding="utf-8")
