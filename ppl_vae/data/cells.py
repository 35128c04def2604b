"""What stands in the cells of a text table: numbers, what is missing, dates, and units."""

import re
from collections.abc import Iterable, Sequence

import numpy as np

GAPS = " '\u00a0\u202f\u2009\u2019"  # between thousands, where it is neither point nor comma
MARKS = {"-", "--", ".", "?"}
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "null", "none", "nil", *MARKS}
WHOLE_LIMIT = 2**53  # beyond, a double cannot tell a whole number from the next

_SIGN, _POWER = r"[+\-\u2212]?", r"(?:[eE][+-]?\d+)?"


def _pattern(decimal: str) -> re.Pattern[str]:
    other = "," if decimal == "." else r"\."
    point = re.escape(decimal)
    groups = rf"(?:{other}\d{{3}})+|(?:[{GAPS}]\d{{3}})+"
    whole = rf"(?:\d+|[1-9]\d{{0,2}}(?:{groups}))"
    return re.compile(rf"{_SIGN}(?:{whole}(?:{point}\d*)?|{point}\d+){_POWER}", re.ASCII)


NUMBERS = {decimal: _pattern(decimal) for decimal in ".,"}
# 1,234 may be 1.234 or 1234.
_EITHER = re.compile(rf"{_SIGN}[1-9]\d{{0,2}}[.,]\d{{3}}", re.ASCII)
_WHOLE = re.compile(rf"{_SIGN}\d+", re.ASCII)
_UNIT = re.compile(
    rf"[<>~≈≤≥±$€£¥]?\s*{_SIGN}(?:\d[\d.,]*|[.,]\d+){_POWER}\s*(?:%|‰|°?[A-Za-zµμΩ€£¥$]{{1,4}}[²³]?"
    r"(?:/[A-Za-zµμ]{1,3}[²³]?)?)?"
)
_DAY = (
    r"(?:\d{4}([-/.])\d{1,2}(?:\1\d{1,2})?|\d{1,2}([-/.])(?:\d{1,2}|[A-Za-z]{3,9})\2(?:\d{4}|\d\d))"
)
_CLOCK = r"\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?(?:\s?[AaPp][Mm])?"
_DATE = re.compile(rf"(?:{_DAY}(?:[T ]\s?{_CLOCK})?|{_CLOCK})(?:Z|[+-]\d\d:?\d\d| UTC)?", re.ASCII)


def is_missing(cell: str) -> bool:
    """Whether a cell says that there is no value.

    Example:
        >>> [cell for cell in ("N/A", "", "?", "none at all", "0") if is_missing(cell)]
        ['N/A', '', '?']
    """
    return cell.casefold() in MISSING


def is_number(cell: str) -> bool:
    """Whether a cell is a number, with decimals of either kind.

    Example:
        >>> [cell for cell in ("1.5", "-2e3", "1.234,5", "1_000", "12 kg") if is_number(cell)]
        ['1.5', '-2e3', '1.234,5']
    """
    return any(pattern.fullmatch(cell) for pattern in NUMBERS.values())


def decimals_of(cell: str) -> str | None:
    """The sign before the decimals of a number: ``.`` or ``,``; ``"either"`` if it may be both, as
    of 1,234; ``None`` if the cell does not say, or is no number.

    Example:
        >>> [decimals_of(cell) for cell in ("0.5", "1.234,5", "1,234", "7")]
        ['.', ',', 'either', None]
    """
    if "." not in cell and "," not in cell:
        return None
    if _EITHER.fullmatch(cell):
        return "either"
    found = [decimal for decimal, pattern in NUMBERS.items() if pattern.fullmatch(cell)]
    return found[0] if len(found) == 1 else None


def as_numbers(cells: Sequence[str], decimal: str) -> tuple[np.ndarray, int | None]:
    """Cells as numbers.

    Arguments:
        cells: Without spaces around them.
        decimal: The sign before decimals.

    Returns:
        Of shape (N,), NaN where a cell is missing; and the place of the first cell that is neither
        missing nor a number, if there is one.

    Example:
        >>> as_numbers(["1.234,5", "NA"], ",")
        (array([1234.5,    nan]), None)
    """
    together = "".join(cells)
    # What float takes and no table means: 1_000, digits of other scripts, words for infinity.
    if decimal == "." and together.isascii() and "_" not in together and "n" not in together:
        try:
            return np.array([*map(float, cells)]), None
        except ValueError:
            pass
    values, pattern = np.empty(len(cells)), NUMBERS[decimal]
    for place, cell in enumerate(cells):
        if pattern.fullmatch(cell):
            values[place] = float(_plain(cell, decimal))
        elif is_missing(cell):
            values[place] = np.nan
        elif cell.lower().lstrip("+-") in ("inf", "infinity"):
            values[place] = np.inf
        else:
            return values, place
    return values, None


def beyond_exact(cells: Sequence[str], values: np.ndarray) -> int | None:
    """The place of the first whole number that a double cannot hold, as identifiers may be."""
    for place in np.flatnonzero(np.abs(values) >= WHOLE_LIMIT):
        if _WHOLE.fullmatch(cells[int(place)]):
            return int(place)
    return None


def _plain(cell: str, decimal: str) -> str:
    drop = GAPS + ("," if decimal == "." else ".")
    cell = cell.replace("\u2212", "-").translate(dict.fromkeys(map(ord, drop)))
    return cell if decimal == "." else cell.replace(",", ".")


def are_dates(texts: Iterable[str]) -> bool:
    """Whether texts are all dates or times of day.

    Example:
        >>> are_dates(["2024-01-31", "2024-02-01T12:30:00Z"]), are_dates(["18-25", "26-40"])
        (True, False)
    """
    return all(_DATE.fullmatch(text) for text in texts)


def are_numbers_with_units(texts: Iterable[str]) -> bool:
    """Whether texts are all numbers with a unit or a sign, or some of them numbers alone.

    Example:
        >>> are_numbers_with_units(["12 kg", "<0.1", "5%"]), are_numbers_with_units(["A", "3"])
        (True, False)
    """
    return all(_UNIT.fullmatch(text) for text in texts)
