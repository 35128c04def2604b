"""What a user says of columns, in a small file."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, first_line
from ..storage.memory import read_text
from .reading import check_schema
from .schema import Column


def read_schema(path: Path) -> dict[str, dict[str, Any]]:
    """What a TOML or JSON file says of columns.

    In TOML: ``[columns.age]``, and below it ``kind = "real"``, ``categories = ["low", "high"]`` or
    ``drop = true``. In JSON likewise: ``{"columns": {"age": {"kind": "real"}}}``.

    Raises:
        InputError: If it is something else.

    Example:
        >>> _ = Path("schema.toml").write_text('[columns.age]\\nkind = "real"\\n')
        >>> read_schema(Path("schema.toml"))
        {'age': {'kind': 'real'}}
    """
    try:
        text = read_text(path)
        found = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        remedy = "write TOML, or JSON with the suffix .json"
        raise InputError(path, f"cannot be read ({first_line(error)})", remedy) from None
    if not isinstance(found, dict) or {*found} != {"columns"}:
        raise InputError(path, "is no schema", "write [columns.NAME], and below it kind = ...")
    try:
        return check_schema(found["columns"])
    except InputError as error:
        raise InputError(
            path, f"has a bad {error.culprit}: {error.problem}", error.remedy
        ) from None


def schema_text(columns: Sequence[Column]) -> str:
    """The text of a schema file, in TOML, that says what was found.

    Example:
        >>> print(schema_text([Column("age", "real", 3.0, 1.0)]))
        [columns."age"]
        kind = "real"
    """
    parts = []
    for column in columns:
        lines = [f"[columns.{_quoted(column.name)}]", f'kind = "{column.kind}"']
        if column.categories:
            lines.append(f"categories = [{', '.join(map(_quoted, column.categories))}]")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    """A TOML string, whose escapes are JSON's."""
    return json.dumps(text)
