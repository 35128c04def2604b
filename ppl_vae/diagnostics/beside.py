"""Verdicts side by side: of several runs, or before and after a repair."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..errors import InputError
from ..plots.drawing import literal
from .pages import fill, pictures, write_page
from .verdicts import Grade, Verdict, Z

Column = Mapping[str, Verdict]
"""Verdicts by the key of their question."""

# Wong (2011), for eyes of all kinds; the marker tells grades apart without colour.
LOOKS: dict[Grade, tuple[str, str]] = {
    "pass": ("#009E73", "o"),
    "caution": ("#E69F00", "^"),
    "fail": ("#D55E00", "X"),
    "cannot say": ("#7F7F7F", "$?$"),
}


def write_beside(
    file: str | Path,
    columns: Mapping[str, Column],
    title: str,
    summary: Sequence[str],
    about: Mapping[str, Any],
) -> None:
    """Write verdicts side by side as one self-contained HTML page.

    Arguments:
        file: Where.
        columns: Verdicts, by the name of their column.
        title: What is compared.
        summary: What came of it, a paragraph each.
        about: Runs, data, seed and the like.

    Raises:
        InputError: If there is nothing to show, or the page cannot be written.

    Example:
        >>> one, other = (Verdict("?", "fail", "...", value=v, error=0.1) for v in (3.0, 2.0))
        >>> write_beside("a.html", {"a": {"gaps": one}, "b": {"gaps": other}}, "a, b", ["..."], {})
        >>> "2.00 ± 0.10" in Path("a.html").read_text()
        True
    """
    questions = {k: v.question for column in columns.values() for k, v in column.items()}
    if not questions:
        raise InputError("columns", "have no verdict to show")
    shows = [("Statistics", CAPTION, lambda: statistics(columns))]

    def page() -> str:
        return fill(
            "beside.html",
            title=title,
            summary=summary,
            questions=questions,
            columns=columns,
            pictures=pictures(shows, "the page"),
            about=about,
        )

    write_page(file, page, "the comparison")


CAPTION = (
    "Smaller is better. Lines are three standard errors wide to each side. Circles pass, "
    "triangles are cautions, crosses fail; question marks cannot say."
)


def statistics(columns: Mapping[str, Column]) -> Figure:
    """The statistic of each question in each column, with its grade; a panel for each question.

    Arguments:
        columns: Verdicts, by the name of their column.
    """
    known = [
        (key, _measured(columns, key))
        for key in dict.fromkeys(k for c in columns.values() for k in c)
    ]
    panels = [(key, found) for key, found in known if found]
    if not panels:
        raise InputError("columns", "have no statistic to show")
    height = 0.6 + 0.3 * len(columns)
    figure = Figure(figsize=(6, height * len(panels)), layout="constrained")
    for axes, (key, found) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
    ):
        for place, name in enumerate(columns):
            if name in found:
                verdict = found[name]
                colour, marker = LOOKS[verdict.grade]
                error = verdict.error if verdict.error and np.isfinite(verdict.error) else 0.0
                axes.errorbar(
                    verdict.value, place, xerr=Z * error, color=colour, marker=marker, markersize=8
                )
        axes.set_yticks(range(len(columns)), [literal(name) for name in columns])
        axes.set_ylim(len(columns) - 0.5, -0.5)
        first = next(iter(found.values()))
        axes.set_xlabel(literal(first.statistic or key), fontsize=9)
        axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
        axes.set_title(literal(key), fontsize=10, loc="left")
    return figure


def _measured(columns: Mapping[str, Column], key: str) -> dict[str, Verdict]:
    """The verdicts on a question whose statistic can be drawn."""
    asked = {name: column[key] for name, column in columns.items() if key in column}
    return {n: v for n, v in asked.items() if v.value is not None and np.isfinite(v.value)}
