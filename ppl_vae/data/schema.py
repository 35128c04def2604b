"""What the columns of a table are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..choices import ColumnKind
from ..errors import InputError

OF_CATEGORIES = ("binary", "category", "ordered")


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
