"""What the columns of a table are: said by their types and the user, or found by their values."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from ..choices import ColumnKind
from ..errors import InputError
from .blocks import are_whole

PLAIN_NAME = "column {}"  # of a column of an array
COUNT_LIMIT = 2**24  # beyond, float32 leaves out whole numbers
WIDE = 10.0  # how many times its smallest value the largest of a positive column is


@dataclass(frozen=True)
class Column:
    """A column of a table, as the training data have it.

    Attributes:
        name: Its name.
        kind: What its values are; see ``docs/data.md``.
        loc: The mean of its observed training values, in the units of the data; for a
            ``positive`` column, of their logarithms.
        scale: Their standard deviation, likewise. It is 0 where they are all the same.
        categories: What the codes 0, 1, ... stand for, if it holds codes.

    Example:
        >>> Column("age", "real", 41.5, 12.0).plain()
        {'name': 'age', 'kind': 'real', 'loc': 41.5, 'scale': 12.0}
    """

    name: str
    kind: ColumnKind
    loc: float = 0.0
    scale: float = 1.0
    categories: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """The column as JSON keeps it."""
        plain: dict[str, Any] = {"name": self.name, "kind": self.kind}
        plain |= {"loc": self.loc, "scale": self.scale}
        return plain | ({"categories": [*self.categories]} if self.categories else {})

    @classmethod
    def of(cls, plain: Any) -> "Column":
        """From what :meth:`plain` gave, which may have come from a stranger's file.

        Raises:
            InputError: If it is something else.
        """
        known = {"name", "kind", "loc", "scale", "categories"}
        if not isinstance(plain, Mapping) or not {"name", "kind"} <= plain.keys() <= known:
            raise InputError("columns", f"hold {plain!r}, which is no column")
        name, kind = plain["name"], plain["kind"]
        if not isinstance(name, str) or kind not in get_args(ColumnKind):
            raise InputError("columns", f"hold {name!r} of kind {kind!r}")
        numbers = [plain.get("loc", 0.0), plain.get("scale", 1.0)]
        if not all(type(n) in (int, float) and math.isfinite(n) for n in numbers) or numbers[1] < 0:
            raise InputError("columns", f"hold {name!r} with loc and scale {numbers!r}")
        names = plain.get("categories", [])
        if not isinstance(names, list | tuple) or not {*map(type, names)} <= {str}:
            raise InputError("columns", f"hold {name!r} with categories {names!r}")
        return cls(name, kind, float(numbers[0]), float(numbers[1]), tuple(names))

    @property
    def is_constant(self) -> bool:
        """Whether its observed training values are all the same."""
        return self.scale == 0

    @property
    def is_single(self) -> bool:
        """Whether it has one category."""
        return len(self.categories) == 1


def find_columns(
    names: Sequence[str],
    values: Callable[[int], np.ndarray],
    train: slice,
    kinds: Mapping[str, ColumnKind],
    categories: Mapping[str, tuple[str, ...]],
    source: str,
) -> tuple[Column, ...]:
    """What the columns of a table are.

    The type of a column and the user come first. Else it is ``binary`` where it holds 0 and 1, or
    two texts; ``category`` where it holds other texts; ``count`` where it holds whole numbers from
    0 up to 2^24 whose variance is at least half their mean, that of a Poisson distribution being
    their mean; ``positive`` where it holds numbers above 0, the largest at least ten times the
    smallest, that are more skewed than their logarithms; else ``real``.

    Arguments:
        names: Of the columns.
        values: Gives the values of each, of shape (N,), by its place, NaN where one is missing.
        train: The rows to take means and standard deviations of.
        kinds: What is known of columns, by their names.
        categories: What codes stand for, of columns that hold codes.
        source: What messages call the table.

    Raises:
        InputError: If a column has no observed value among the training data, or others than the
            kind that is known of it allows.

    Example:
        >>> x = np.array([[0.0, 3.0, -1.5], [1.0, 0.0, 2.5], [1.0, 7.0, np.nan]])
        >>> [c.kind for c in find_columns("abc", x.T.__getitem__, slice(3), {}, {}, "array")]
        ['binary', 'count', 'real']
    """
    found = []
    for place, name in enumerate(names):
        column = np.asarray(values(place), dtype=np.float64)
        training, seen = _seen(column[train]), _seen(column)
        if not len(training):
            what = "that is empty" if not len(seen) else "without values to train on"
            raise InputError(source, f"has a column {name!r} {what}", "leave-out", column=name)
        codes = categories.get(name, ())
        kind = kinds.get(name) or _find_kind(seen, codes)
        check_kind(name, kind, seen, codes, source)
        if kind == "positive":
            training = np.log(training)
        loc, scale = float(training.mean()), float(training.std())
        if training.min() == training.max():
            loc, scale = float(training[0]), 0.0  # and no error of rounding
        found.append(Column(name, kind, loc, scale, codes))
    return tuple(found)


def _seen(values: np.ndarray) -> np.ndarray:
    missing = np.isnan(values)
    return values[~missing] if missing.any() else values


def check_kind(
    name: str, kind: ColumnKind, seen: np.ndarray, codes: Sequence[str], source: str
) -> None:
    """Refuse values that are not of the kind of their column.

    Raises:
        InputError: Naming the column.
    """
    if problem := _unlike(kind, seen, codes):
        raise InputError(
            source, f"has a column {name!r} of kind {kind}, but {problem}", "other-kind"
        )


def _find_kind(seen: np.ndarray, codes: tuple[str, ...]) -> ColumnKind:
    """The kind of a column by its observed values."""
    if codes:
        return "binary" if len(codes) == 2 else "category"
    low, high = float(seen.min()), float(seen.max())
    if low < 0 or low == high:
        return "real"
    if are_whole(seen):
        if high == 1:
            return "binary"
        if high <= COUNT_LIMIT and seen.var() >= seen.mean() / 2:
            return "count"
    if low > 0 and high >= WIDE * low and abs(_skewness(np.log(seen))) < abs(_skewness(seen)):
        return "positive"
    return "real"


def _skewness(values: np.ndarray) -> float:
    centred = values - values.mean()
    centred /= values.std()
    return float(np.einsum("i,i,i", centred, centred, centred)) / len(values)


def _unlike(kind: ColumnKind, seen: np.ndarray, codes: Sequence[str]) -> str:
    """Why values are not of a kind; empty where they are."""
    if kind == "binary" and len(codes) not in (0, 2):
        return f"with {len(codes)} categories"
    if codes and not np.isin(seen, np.arange(len(codes))).all():
        return f"with values that are no codes of {len(codes)} categories"
    if kind in ("category", "ordered"):
        return "" if codes else "without categories"
    if kind == "binary" and not ((seen == 0) | (seen == 1)).all():
        return "with values other than 0 and 1"
    if kind == "positive" and seen.min() <= 0:
        return f"with the value {seen.min():g}"
    if kind == "count" and not ((seen >= 0) & (seen == np.floor(seen))).all():
        return "with values that are no counts"
    return ""


def refuse_constant(columns: Sequence[Column], source: str) -> None:
    """Refuse columns whose observed training values are all the same: nothing can be learned of
    them, and real ones have no scale. Rare counts and categories may be.

    Raises:
        InputError: Naming the first few.

    Example:
        >>> refuse_constant([Column("a", "real", 3.0, 0.0)], "t.csv")
        Traceback (most recent call last):
        ppl_vae.errors.InputError: t.csv has a constant column 'a': leave it out, with drop = ...
    """
    rare = ("count", "binary", "category", "ordered")
    same = [c.name for c in columns if c.is_constant and (c.kind not in rare or c.is_single)]
    if same:
        more = f", and {len(same) - 1} more" if len(same) > 1 else ""
        problem = f"has a constant column {same[0]!r}{more}"
        raise InputError(source, problem, "leave-out", column=same[0])


def has_names(columns: Sequence[Column]) -> bool:
    """Whether columns have names of their own, and are not those of an array."""
    return [c.name for c in columns] != [PLAIN_NAME.format(place) for place in range(len(columns))]


def as_columns(columns: Sequence[Column], x: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of a table by the names of their columns, codes as the categories that they stand for.

    Arguments:
        columns: What the columns are.
        x: Of shape (N, D). What is no code of a column with categories stays a number, as the
            whole column does then.

    Example:
        >>> as_columns([Column("c", "binary", categories=("no", "yes"))], np.array([[1.0], [0.0]]))
        {'c': array(['yes', 'no'], dtype=object)}
    """
    found = {}
    for place, column in enumerate(columns):
        values = x[:, place]
        whole = bool((values == np.round(values)).all())
        if whole and (column.categories or column.kind in ("count", "binary")):
            codes = values.astype(np.int64)
            known = len(column.categories)
            if column.categories == ("False", "True") and codes.min() >= 0 and codes.max() <= 1:
                found[column.name] = codes.astype(bool)
            elif known and codes.min() >= 0 and codes.max() < known:
                found[column.name] = np.array(column.categories, dtype=object)[codes]
            else:
                found[column.name] = codes
        else:
            found[column.name] = values
    return found
