"""Text tables: comma-separated values, and what goes by that name."""

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size
from .cells import (
    MARKS,
    are_dates,
    are_numbers_with_units,
    as_numbers,
    beyond_exact,
    is_missing,
    is_number,
)
from .dialect import Dialect, find_dialect
from .reading import Reading
from .table import (
    Table,
    Variable,
    assemble,
    label_column,
    refuse_date,
    refuse_identifiers,
)

BLOCK = 2**20  # bytes
ROWS = 4096  # that are read at a time
_LEADING_ZERO = re.compile(r"^0\d+$", re.MULTILINE | re.ASCII)
UNNAMED = ("", "Unnamed: 0")  # a column of row names, as R and pandas write it


def read_csv(path: Path, reading: Reading | None = None) -> dict[str, Any]:
    """The :class:`.Table` in a CSV file, whose separator, decimals and header are found.

    Raises:
        InputError: If it is no table, does not fit into memory, or may be read in two ways.
    """
    reading = reading or Reading()
    size = regular_size(path)
    try:
        dialect = find_dialect(path, reading)
        # Bounds of the array that cells go into, before it is taken.
        count = _count_rows(path)
        refuse_beyond_memory(size + 8 * count * len(dialect.names), path, "take fewer data")
        return {"x": _read(path, dialect, reading, count)}
    except InputError:
        raise
    except (UnicodeError, csv.Error, OverflowError, ValueError) as error:
        remedy = "save it as UTF-8" if isinstance(error, UnicodeError) else "save it again"
        raise InputError(path, f"is not a CSV table ({first_line(error)})", remedy) from None


def _count_rows(path: Path) -> int:
    feeds = returns = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            feeds += block.count(b"\n")
            returns += block.count(b"\r")
    return 1 + max(feeds, returns)


def _read(path: Path, dialect: Dialect, reading: Reading, count: int) -> Table:
    names = [*dialect.names]
    index = _index_place(path, names, reading)
    label = label_column(names, reading)
    texts = [place for place, name in enumerate(names) if name == label or place == index]
    columns: list[_Numbers | _Texts | _Dropped] = []
    cells = np.empty((count, len(names)))
    for place, name in enumerate(names):
        said = reading.schema.get(name, {})
        if said.get("drop"):
            columns.append(_Dropped(name))
        elif place in texts or said.get("kind") in ("category", "ordered") or "categories" in said:
            columns.append(_Texts(path, name, cells[:, place], forced=True))
        else:
            columns.append(_Numbers(path, name, cells[:, place], dialect.decimal, reading.schema))
    rows = 0
    with dialect.rows(path) as found:
        while block := [*islice(found, ROWS)]:
            lines = [line for line, _ in block]
            if len(names) > 1 and (empty := [line for line, row in block if not any(row)]):
                raise InputError(path, f"has no cell in line {empty[0]}", "remove the line")
            for place, column in enumerate(zip(*(row for _, row in block), strict=True)):
                columns[place] = columns[place].take(column, lines, rows)
            rows += len(block)
    variables = [c.variable(rows) for c in columns]
    kept = [v for p, v in enumerate(variables) if p != index and (v.name or not v.is_empty)]
    if nameless := [place for place, v in enumerate(kept, 1) if not v.name]:
        raise InputError(path, f"has no name for column {nameless[0]}", "name it in the header")
    row_names = None if index is None else variables[index]
    if len(kept) == 1 and len(kept[0].categories) > 2 and kept[0].name not in reading.schema:
        problem = "has one column of text, unless another sign separates its cells"
        raise InputError(path, problem, "separator")
    if index is None and kept:
        row_names, kept = _row_names(kept, reading)
    refuse_identifiers(kept, reading, path)
    return assemble(kept, reading, path, row_names, rows, cells)


def _index_place(path: Path, names: Sequence[str], reading: Reading) -> int | None:
    """Where the row names stand, if the header or the user says so."""
    if reading.index_column is not None:
        if reading.index_column not in names:
            raise InputError(path, f"has no column {reading.index_column!r}", "column-names")
        return names.index(reading.index_column)
    said = names and names[0] in UNNAMED and names[0] not in reading.schema
    return 0 if said and len(names) > 1 else None


def _row_names(
    variables: Sequence[Variable], reading: Reading
) -> tuple[Variable | None, list[Variable]]:
    """Row names in a first column that is called something: texts of which none comes again."""
    first, rest = variables[0], [*variables[1:]]
    free = first.name not in reading.schema and first.name != label_column([first.name], reading)
    if free and rest and len(first.categories) > 2 and first.is_distinct:
        return first, rest
    return None, [*variables]


class _Numbers:
    """A column, as long as its cells are numbers."""

    def __init__(
        self, path: Path, name: str, cells: np.ndarray, decimal: str, said: Collection[str]
    ) -> None:
        self.path, self.name, self.cells, self.decimal = path, name, cells, decimal
        self.said = said
        self.seen = False

    def take(self, cells: Sequence[str], lines: Sequence[int], start: int) -> "_Numbers | _Texts":
        """Take further cells; what they are when the first of them is text."""
        values, bad = as_numbers(cells, self.decimal)
        if bad is not None:
            if self.seen or any(is_number(cell) for cell in cells[:bad]):
                self._refuse(cells[bad], lines[bad])
            self.cells[:start] = np.nan
            return _Texts(self.path, self.name, self.cells).take(cells, lines, start)
        if self.name not in self.said and (zero := _LEADING_ZERO.search("\n".join(cells))):
            line = lines[[*cells].index(zero[0])]
            raise InputError(
                self.path,
                f"has {zero[0]!r} in column {self.name!r}, line {line}, which may be a number or a "
                "code",
                "other-kind",
            )
        if (place := beyond_exact(cells, values)) is not None:
            raise InputError(
                self.path,
                f"has {cells[place]} in column {self.name!r}, line {lines[place]}: whole numbers "
                "beyond 2^53 are not held exactly",
                "leave-out-or-index",
                column=self.name,
            )
        if np.isinf(values).any():
            line = lines[int(np.isinf(values).argmax())]
            problem = f"has an infinite value in column {self.name!r}, line {line}"
            raise InputError(self.path, problem, "remove or impute it")
        self.cells[start : start + len(values)] = values
        self.seen = self.seen or not np.isnan(values).all()
        return self

    def _refuse(self, cell: str, line: int) -> NoReturn:
        raise InputError(
            self.path,
            f"has {cell!r} among the numbers of column {self.name!r}, line {line}",
            "mend-or-category",
            column=self.name,
        )

    def variable(self, rows: int) -> Variable:
        """What the column holds."""
        return Variable(self.name, self.cells[:rows])


class _Texts:
    """A column of texts, whose codes are kept."""

    def __init__(self, path: Path, name: str, cells: np.ndarray, forced: bool = False) -> None:
        self.path, self.name, self.cells, self.forced = path, name, cells, forced
        self.codes: dict[str, int] = {}
        self.lines: list[int] = []

    def take(self, cells: Sequence[str], lines: Sequence[int], start: int) -> "_Texts":
        """Take further cells."""
        for place, cell in enumerate(cells, start):
            if is_missing(cell) and not (self.forced and cell in MARKS):
                self.cells[place] = np.nan
                continue
            code = self.codes.setdefault(cell, len(self.codes))
            if code == len(self.lines):
                self.lines.append(lines[place - start])
            self.cells[place] = code
        return self

    def variable(self, rows: int) -> Variable:
        """What the column holds: codes."""
        texts = [*self.codes]
        if not self.forced:
            self._check(texts)
        return Variable(self.name, self.cells[:rows], tuple(texts))

    def _check(self, texts: list[str]) -> None:
        if texts and are_dates(texts):
            refuse_date(self.path, self.name, texts[0])
        if any(map(is_number, texts)) or (texts and are_numbers_with_units(texts)):
            raise InputError(
                self.path,
                f"has {texts[0]!r} among the numbers of column {self.name!r}, line {self.lines[0]}",
                "mend-or-category",
                column=self.name,
            )
        if "+" in texts:
            raise InputError(
                self.path,
                f"has '+' in column {self.name!r}, where '-' may be a value or missing",
                "mend-or-category",
                column=self.name,
            )


@dataclass(frozen=True)
class _Dropped:
    """A column that the schema leaves out, whatever it holds."""

    name: str

    def take(self, cells: Sequence[str], lines: Sequence[int], start: int) -> "_Dropped":
        return self

    def variable(self, rows: int) -> Variable:
        return Variable(self.name, np.zeros(rows))
