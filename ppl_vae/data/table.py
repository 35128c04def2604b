"""Tables read: columns of numbers or of codes, classes, and names of rows."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from ..choices import ColumnKind
from ..errors import InputError
from .blocks import blocks
from .reading import Reading

LABEL_COLUMN = "label"
FEW = 20  # categories that need no reason
INDEX_NAMES = {"index", "row", "rowname", "rownames", "rownumber"}
COUNTED = 10  # rows that a column counts hardly by chance


@dataclass(frozen=True)
class Variable:
    """A column as it was read.

    Attributes:
        name: Its name.
        values: Of shape (N,), NaN where a value is missing; codes, if there are categories.
        categories: What the codes 0, 1, ... stand for.
        kind: What it is, where its type says so.
    """

    name: str
    values: np.ndarray
    categories: tuple[str, ...] = ()
    kind: ColumnKind | None = None

    @property
    def is_empty(self) -> bool:
        """Whether all is missing."""
        return bool(np.isnan(self.values).all())

    @property
    def is_distinct(self) -> bool:
        """Whether no text and no whole number comes twice, and none is missing."""
        if self.categories:
            return len(self.categories) == len(self.values) > 1 and not np.isnan(self.values).any()
        whole = bool((self.values == np.round(self.values)).all())  # not where it is NaN
        return whole and len(np.unique(self.values)) == len(self.values) > 1

    def texts(self) -> list[str | None]:
        """Its values as text; ``None`` where they are missing."""
        if self.categories:
            names = [*self.categories]
            return [None if v != v else names[int(v)] for v in self.values.tolist()]
        return [None if v != v else number_text(v) for v in self.values.tolist()]


@dataclass(frozen=True)
class Table:
    """A table read.

    Attributes:
        names: Of the columns.
        values: Of shape (N, D), NaN where a value is missing.
        kinds: What columns are, of those whose type says so.
        categories: What codes stand for, of columns that hold codes.
        labels: Classes, text or numbers, ``None`` where they are missing.
        row_names: Names of the rows, if there are any.
        present: All columns that there were, those too that are no data.
    """

    names: tuple[str, ...]
    values: np.ndarray
    kinds: Mapping[str, ColumnKind] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: np.ndarray | None = None
    row_names: tuple[str, ...] = ()
    present: tuple[str, ...] = ()


def number_text(value: float) -> str:
    """A number as short text.

    Example:
        >>> number_text(3.0), number_text(0.5)
        ('3', '0.5')
    """
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def assemble(
    variables: Sequence[Variable],
    reading: Reading,
    source: str | Path,
    row_names: Variable | None = None,
    rows: int | None = None,
    cells: np.ndarray | None = None,
) -> Table:
    """Columns as a table, without those of classes and those that the schema leaves out.

    The array ``cells``, of which columns may be a part each, becomes that of the table.

    Raises:
        InputError: Naming a column whose texts are no categories.
    """
    by_name = {variable.name: variable for variable in variables}
    present = tuple(by_name)
    label = by_name.pop(label_column(by_name, reading), None)
    dropped = {name for name, said in reading.schema.items() if said.get("drop")}
    kept = [v for v in by_name.values() if v.name not in dropped]
    count = rows if rows is not None else len(variables[0].values) if variables else 0
    if not kept or not count:
        raise InputError(source, "holds no data", "give a table with rows of numbers")
    kept = [_coded(v, reading.schema.get(v.name, {}), source) for v in kept]
    labels = None if label is None else _labels(label)
    names = () if row_names is None else tuple(text or "" for text in row_names.texts())
    return Table(
        tuple(v.name for v in kept),
        _joined([v.values for v in kept], cells),
        {v.name: v.kind for v in kept if v.kind is not None},
        {v.name: v.categories for v in kept if v.categories},
        labels,
        names,
        present,
    )


def _joined(columns: Sequence[np.ndarray], cells: np.ndarray | None) -> np.ndarray:
    """Columns side by side, as float32 if all are no more than that."""
    if cells is not None and all(values.base is cells for values in columns):
        places = [(v.ctypes.data - cells.ctypes.data) // cells.itemsize for v in columns]
        shape = (len(columns[0]), len(columns))
        found = cells.reshape(-1)[: math.prod(shape)].reshape(shape)
        for rows in blocks(found):  # which is read no later than it is written
            found[rows] = cells[rows.start : min(rows.stop, len(found))][:, places]
        return found
    small = (np.float16, np.float32)
    kind = np.float32 if all(values.dtype in small for values in columns) else np.float64
    found = np.empty((len(columns[0]), len(columns)), kind)
    for rows in blocks(found):
        for place, values in enumerate(columns):
            found[rows, place] = values[rows]
    return found


def label_column(names: Iterable[str], reading: Reading) -> str:
    """The column of classes: what the user says, or ``label``, in capitals or not.

    Example:
        >>> label_column(["a", "Label"], Reading()), label_column(["a"], Reading(label="b"))
        ('Label', 'b')
    """
    if reading.label is not None:
        return reading.label
    found = [name for name in names if name.casefold() == LABEL_COLUMN]
    return LABEL_COLUMN if LABEL_COLUMN in found or len(found) != 1 else found[0]


def refuse_identifiers(variables: Sequence[Variable], reading: Reading, source: str | Path) -> None:
    """Refuse a column that may name rows: one that is called so and never repeats, or a first one
    that counts.

    Raises:
        InputError: Naming the column.
    """
    if len(variables) < 2 or reading.index_column is not None:
        return
    label = label_column([v.name for v in variables], reading)
    for place, variable in enumerate(variables):
        if variable.name in reading.schema or variable.name == label or not variable.is_distinct:
            continue
        plain = variable.name.casefold().translate(dict.fromkeys(map(ord, "_-. ")))
        steps = np.diff(variable.values) if not place and not variable.categories else ()
        counts = len(steps) >= COUNTED and bool((np.asarray(steps) == 1).all())
        called = plain in INDEX_NAMES or plain.endswith("id") or plain.startswith("unnamed")
        if called or counts:
            raise InputError(
                source,
                f"has a column {variable.name!r} that may be names of rows, or data",
                "index-or-data",
                column=variable.name,
            )


def refuse_date(source: str | Path, name: str, example: object) -> NoReturn:
    """Refuse a column of dates."""
    _refuse_column(source, name, f"holds dates, such as {example}", "date")


def _refuse_column(source: str | Path, name: str, problem: str, remedy: str) -> NoReturn:
    raise InputError(source, f"has a column {name!r} that {problem}", remedy, column=name)


def _labels(label: Variable) -> np.ndarray:
    texts = label.texts()
    whole = all(t is None or (t.lstrip("-").isdigit() and str(int(t)) == t) for t in texts)
    found = np.empty(len(texts), dtype=object)
    found[:] = [None if t is None else int(t) for t in texts] if whole else texts
    return found


def _coded(variable: Variable, said: Mapping[str, Any], source: str | Path) -> Variable:
    """A column whose codes go by the order of its categories: the user's, or that of the texts."""
    kind = said.get("kind", variable.kind)
    names = variable.categories
    if not names and ("categories" in said or kind in ("category", "ordered")):
        known = {t: None for t in variable.texts() if t is not None}
        names = tuple(sorted(known, key=float))
        return recode(replace(variable, kind=kind), tuple(said.get("categories", names)), source)
    if not names:
        return replace(variable, kind=kind)
    if kind in ("real", "positive", "count"):
        _refuse_column(source, variable.name, f"holds text, and is no {kind}", "mend-or-category")
    if kind is None and len(names) > max(FEW, len(variable.values) // 10):
        problem = f"holds {len(names)} different texts in {len(variable.values)} rows"
        _refuse_column(source, variable.name, problem, "leave-out-or-index")
    order = said.get("categories")
    if order is None:
        order = names if variable.kind is not None else sorted(names, key=_place)
    return recode(replace(variable, kind=kind), tuple(order), source)


def _place(text: str) -> tuple[Any, ...]:
    """Where a category stands: numbers by their size, then text by its letters."""
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, text.casefold(), text)


def recode(variable: Variable, categories: tuple[str, ...], source: str | Path) -> Variable:
    """A column with the codes of other categories.

    Raises:
        InputError: Naming a value that is none of them.

    Example:
        >>> recode(Variable("c", np.array([0.0, 1.0]), ("b", "a")), ("a", "b"), "t.csv").values
        array([1., 0.])
    """
    if variable.categories == categories:
        return variable
    code = {name: float(place) for place, name in enumerate(categories)}
    present = variable.categories or {t for t in variable.texts() if t is not None}
    used = {*np.unique(variable.values[~np.isnan(variable.values)]).tolist()}
    for place, name in enumerate(variable.categories):
        if place in used and name not in code:
            _refuse_value(source, variable.name, name, categories)
    if not variable.categories:
        if stray := sorted(t for t in present if t not in code):
            _refuse_value(source, variable.name, stray[0], categories)
        values = [np.nan if t is None else code[t] for t in variable.texts()]
        return replace(variable, values=np.array(values), categories=categories)
    moved = np.array([code.get(name, np.nan) for name in variable.categories] + [np.nan])
    places = np.where(np.isnan(variable.values), len(moved) - 1, variable.values).astype(int)
    return replace(variable, values=moved[places], categories=categories)


def _refuse_value(source: str | Path, name: str, value: str, categories: Sequence[str]) -> NoReturn:
    shown = ", ".join(map(repr, categories[:5])) + (", ..." if len(categories) > 5 else "")
    raise InputError(
        source, f"has {value!r} in column {name!r}, which is none of {shown}", "mend it"
    )
