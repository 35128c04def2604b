"""How a file is to be read, where it does not say so itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from ..choices import ColumnKind
from ..errors import InputError, check_int

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
NAMED_SEPARATORS = {**SEPARATORS, "space": " "}  # runs of spaces, which are never found out
DECIMALS = (".", ",")
OVERRIDES = ("kind", "drop", "categories")


@dataclass(frozen=True)
class Reading:
    """How a file is to be read. What is left out is found out, or the file is refused.

    A run keeps it, so that it finds its data again and new files are read alike.

    Attributes:
        separator: What stands between the cells of a CSV table: a character, or its name
            (``comma``, ``semicolon``, ``tab``, ``pipe``, ``space``).
        decimal: What stands before the decimals of its numbers: ``.`` or ``,``.
        header: Whether its first row holds the names of columns.
        index_column: The column of row names, which are no data.
        label: The column of classes, which are no data; for AnnData, a column of ``obs``. By
            default ``label``, if there is one.
        layer: The layer of an AnnData file, instead of its ``X``.
        levels: The highest value of integer data, such as 255 for grey values of 8 bits, by which
            they are divided.
        resize: Height and width that images are brought to.
        grey: Whether images in colour are made grey.
        schema: By the name of a column, what is not to be found out: its ``kind``, its
            ``categories`` in their order, or ``drop = True`` to leave it out.

    Raises:
        InputError: Naming the attribute.

    Example:
        >>> Reading(separator="tab", schema={"age": {"kind": "real"}}).plain()
        {'separator': '\\t', 'schema': {'age': {'kind': 'real'}}}
    """

    separator: str | None = None
    decimal: str | None = None
    header: bool | None = None
    index_column: str | None = None
    label: str | None = None
    layer: str | None = None
    levels: int | None = None
    resize: tuple[int, int] | None = None
    grey: bool = False
    schema: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("separator", "decimal", "index_column", "label", "layer"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise InputError(name, f"must be text, got {value!r}")
        if self.separator is not None:
            separator = NAMED_SEPARATORS.get(self.separator, self.separator)
            if len(separator) != 1 or separator.isalnum() or separator in '".\r\n\0':
                known = ", ".join(NAMED_SEPARATORS)
                raise InputError("separator", f"must be {known}, or a sign: {separator!r}")
            object.__setattr__(self, "separator", separator)
        if self.decimal not in (None, *DECIMALS):
            raise InputError("decimal", f"must be a point or a comma, got {self.decimal!r}")
        if self.separator == self.decimal and self.decimal is not None:
            raise InputError("decimal", "is the separator too", "choose another separator")
        if self.header is not None and not isinstance(self.header, bool):
            raise InputError("header", f"must be True or False, got {self.header!r}")
        if not isinstance(self.grey, bool):
            raise InputError("grey", f"must be True or False, got {self.grey!r}")
        if self.levels is not None and check_int("levels", self.levels) > 255:
            raise InputError("levels", f"must be in 1 ... 255, got {self.levels}")
        if self.resize is not None:
            object.__setattr__(self, "resize", _check_size(self.resize))
        object.__setattr__(self, "schema", check_schema(self.schema))

    def plain(self) -> dict[str, Any]:
        """What differs from the default, as JSON keeps it."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        found = {name: value for name, value in found.items() if value not in (None, False, {})}
        if self.header is False:
            found["header"] = False
        if self.resize is not None:
            found["resize"] = list(self.resize)
        return found

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> "Reading":
        """From what :meth:`plain` gave, which may have come from a stranger's file.

        Raises:
            InputError: If it is something else.
        """
        if plain is None:
            return cls()
        if not isinstance(plain, Mapping):
            raise InputError("reading", f"must be a mapping, not {type(plain).__name__}")
        known = {f.name for f in fields(cls)}
        if unknown := [name for name in plain if name not in known]:
            raise InputError("reading", f"has no {unknown[0]!r}", f"it has {', '.join(known)}")
        return cls(**plain)


def check_schema(schema: Any) -> dict[str, dict[str, Any]]:
    """What a user says of columns, checked.

    Raises:
        InputError: Naming the column.
    """
    if not isinstance(schema, Mapping):
        raise InputError("schema", f"must name columns, got {schema!r}")
    checked = {}
    for name, said in schema.items():
        culprit = f"schema of column {name!r}"
        if not isinstance(name, str):
            raise InputError(culprit, "is not named by text")
        if not isinstance(said, Mapping) or not {*said} <= {*OVERRIDES}:
            raise InputError(culprit, f"must hold {', '.join(OVERRIDES)} only, got {said!r}")
        if "kind" in said and said["kind"] not in get_args(ColumnKind):
            kinds = ", ".join(get_args(ColumnKind))
            raise InputError(culprit, f"has the kind {said['kind']!r}", f"choose from {kinds}")
        if not isinstance(said.get("drop", False), bool):
            raise InputError(culprit, f"has drop = {said['drop']!r}", "say true or false")
        names = said.get("categories", [])
        texts = isinstance(names, list | tuple) and all(isinstance(n, str) for n in names)
        if not texts or len({*names}) < len(names):
            raise InputError(culprit, f"has the categories {names!r}", "give different texts")
        checked[name] = {k: list(v) if k == "categories" else v for k, v in said.items()}
    return checked


def _check_size(size: Any) -> tuple[int, int]:
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise InputError("resize", f"must be height and width, got {size!r}")
    height, width = (check_int("resize", value) for value in size)
    return height, width
