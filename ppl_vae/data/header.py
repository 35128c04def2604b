"""Whether the first row of a table holds the names of its columns."""

import itertools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..errors import InputError
from .cells import NUMBERS, as_numbers, is_missing, is_number

ROWS, COLUMNS = 20, 3  # fewer tell little of whether a first row of numbers is like them


def has_header(rows: Sequence[Sequence[str]], source: str | Path) -> bool:
    """Whether the first of some rows holds names.

    Text above numbers is a name. Numbers are names too, such as years or wavelengths, if two of
    these hold: they lie outside of their columns; they go up or down, as rows of the data do not;
    they are whole, above numbers with decimals. If none holds they are data. If one holds, or there
    are too few rows or columns to tell, they may be either.

    Arguments:
        rows: Of cells, of one length.
        source: What messages call the table.

    Raises:
        InputError: If it may be either.

    Example:
        >>> has_header([["a", "b"], ["1", "2"]], "t.csv"), has_header([["3", "2"]] * 2, "t.csv")
        (True, False)
        >>> has_header([["2001", "2002", "2003"], *[["0.1", "0.3", "0.2"]] * 20], "t.csv")
        True
    """
    first, below = rows[0], rows[1:]
    if not below:
        return any(not is_number(cell) for cell in first)
    numeric = [_is_numeric([row[place] for row in below]) for place in range(len(first))]
    texts = [p for p, n in enumerate(numeric) if n and not _counts(first[p])]
    numbers = [p for p, n in enumerate(numeric) if n and is_number(first[p])]
    if texts and not numbers:
        return True
    if not any(numeric):
        return _texts_alone(first, below, source)
    if not numbers:  # all that stands above numbers is missing
        return any(not _counts(first[p]) for p, n in enumerate(numeric) if not n)
    unnamed = not first[0] and len({row[0] for row in below} - {""}) == len(below)
    signs = _signs_of_names(first, below, numbers) + bool(texts) + unnamed
    if len(below) >= ROWS and (unnamed or (signs >= 2 and len(numbers) >= COLUMNS)):
        return True
    if not signs:
        return False
    raise _either(first, source)


def _either(first: Sequence[str], source: str | Path) -> InputError:
    shown = ", ".join(first[:4])
    return InputError(source, f"has a first row that may be names or data ({shown})", "header")


def _counts(cell: str) -> bool:
    return is_number(cell) or is_missing(cell)


def _is_numeric(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers: at most a tenth of its cells are others."""
    seen = [cell for cell in cells if not is_missing(cell)]
    return bool(seen) and sum(map(is_number, seen)) >= 0.9 * len(seen)


def _texts_alone(first: Sequence[str], below: Sequence[Sequence[str]], source: str | Path) -> bool:
    """Of a table without numbers: names do not come again in their columns."""
    if any(map(is_number, first)):
        raise _either(first, source)
    again = [cell in {row[place] for row in below} for place, cell in enumerate(first) if cell]
    if not any(again):
        return True
    if all(again):
        return False
    raise _either(first, source)


def _signs_of_names(
    first: Sequence[str], below: Sequence[Sequence[str]], places: Sequence[int]
) -> int:
    """How much speaks for numbers of the first row being names: that they lie outside of their
    columns, that they are in an order that rows of data are not, and that they alone are whole."""
    names, table = _table([first], places)[0], _table(below, places)
    with np.errstate(invalid="ignore"):
        low, high = np.nanmin(table, 0), np.nanmax(table, 0)
        typical = ((low <= names) & (names <= high)).mean() >= 0.5
    rising = _rising(names[None])[0]
    usual = float(_rising(table).mean()) >= 0.1
    ordered = _even_steps(first, places) or (rising and not usual)
    decimals = [not {*".,"}.isdisjoint(row[place]) for row in below for place in places]
    whole = all({*".,"}.isdisjoint(first[place]) for place in places)
    whole = whole and sum(decimals) > 0.95 * len(decimals)
    return int(not typical) + int(ordered) + int(whole)


def _table(rows: Sequence[Sequence[str]], places: Sequence[int]) -> np.ndarray:
    decimal = "."
    cells = [row[place] for row in rows for place in places]
    if sum(NUMBERS[","].fullmatch(c) is not None for c in cells) > sum(
        NUMBERS["."].fullmatch(c) is not None for c in cells
    ):
        decimal = ","
    values = [as_numbers([cell], decimal) for cell in cells]
    found = [np.nan if bad is not None else float(value[0]) for value, bad in values]
    return np.array(found).reshape(len(rows), len(places))


def _rising(table: np.ndarray) -> np.ndarray:
    """Which rows go up, or down, from each value to the next."""
    steps = np.diff(table, axis=1)
    return np.asarray((steps > 0).all(1) | (steps < 0).all(1))


def _even_steps(first: Sequence[str], places: Sequence[int]) -> bool:
    """Whether the first row counts on: 1, 2, 3 or 0.1, 0.2, 0.3."""
    try:
        values = [Fraction(first[place]) for place in places]
    except ValueError:
        return False
    steps = {b - a for a, b in itertools.pairwise(values)}
    counts = values in ([*range(len(values))], [*range(1, len(values) + 1)])
    return steps != {0} and ((len(values) > 2 and len(steps) == 1) or (len(values) > 1 and counts))
