"""Tables of numbers, with class names in a column ``label`` if there is one: CSV and Parquet."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size
from .reading import Reading

LABEL_COLUMN = "label"
HEADER_LIMIT = 2**22  # characters, of some 400,000 columns
BLOCK = 2**20


def read_csv(path: Path, reading: Reading | None = None) -> dict[str, Any]:
    """``x`` and ``labels`` of a CSV table.

    Raises:
        InputError: If it is not a table of numbers, or does not fit into memory.
    """
    import pandas as pd

    size = regular_size(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            first = next(csv.reader(_lines(file)), [])
        # pandas pads short rows: a wide header over many rows of one cell is a large table.
        cells = _count_rows(path) * len(first)
        refuse_beyond_memory(size + 8 * cells, path, "take fewer data")
        # pandas writes the names 0, 1, 2, ... for columns without names.
        counted = first == [str(column) for column in range(len(first))]
        headless = bool(first) and all(map(_is_number, first)) and not counted
        return _columns(pd.read_csv(path, header=None if headless else "infer"), path)
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        UnicodeDecodeError,
        OverflowError,
        csv.Error,
    ) as error:
        raise InputError(
            path, f"is not a CSV table ({first_line(error)})", "save it again"
        ) from None


def _lines(file: IO[str]) -> Iterator[str]:
    """Lines of the header. An endless one is not read to its end."""
    left = HEADER_LIMIT
    while line := file.readline(left):
        left -= len(line)
        if not left:
            raise csv.Error(f"its first row has more than {HEADER_LIMIT} characters")
        yield line


def _count_rows(path: Path) -> int:
    feeds = returns = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            feeds += block.count(b"\n")
            returns += block.count(b"\r")
    return 1 + max(feeds, returns)


def read_parquet(path: Path, reading: Reading | None = None) -> dict[str, Any]:
    """``x`` and ``labels`` of a Parquet table.

    Raises:
        InputError: If it is not a table of numbers, or does not fit into memory.
    """
    import pyarrow as pa
    from pyarrow import parquet

    regular_size(path)
    try:
        with parquet.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
            _refuse_large(path, schema, metadata)
            texts = [f.name for f in schema if _is_text(f.type)]
        # One text in a million rows takes a few bytes on the disk; as a dictionary, in memory too.
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            return _columns(file.read().to_pandas(), path)
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            path, f"is not a Parquet table ({first_line(error)})", "save it again"
        ) from None


def _refuse_large(path: Path, schema: Any, metadata: Any) -> None:
    """Compare the number of values with memory: runs of one value take no space in the file."""
    import pyarrow as pa

    plain = [pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, _is_text]
    plain += [pa.types.is_timestamp, pa.types.is_dictionary]  # of an index, or of labels
    for column in schema:
        if not any(kind(column.type) for kind in plain):
            raise _not_numeric(path, column.name)
    size = 8 * metadata.num_rows * metadata.num_columns  # at most 8 bytes a number
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [(g, g.column(i)) for g in groups for i in range(g.num_columns)]
    values = sum(max(group.num_rows, chunk.num_values) for group, chunk in chunks)
    text = sum(max(0, chunk.total_uncompressed_size) for _, chunk in chunks)
    refuse_beyond_memory(max(size, 8 * values, text), path, "take fewer data")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _not_numeric(path: Path, column: Any) -> InputError:
    return InputError(
        path,
        f"has a column {str(column)!r} that is not numeric",
        f"drop or encode it, or name it {LABEL_COLUMN!r} if it holds classes",
    )


def _columns(table: Any, path: Path) -> dict[str, Any]:
    labels = _as_labels(table.pop(LABEL_COLUMN)) if LABEL_COLUMN in table else None
    if table.empty:
        raise InputError(path, "holds no data", "give a table with rows of numbers")
    unnamed = str(table.columns[0]).startswith("Unnamed: 0")
    if unnamed and table.iloc[:, 0].tolist() == list(range(len(table))):
        raise InputError(
            path, "has a first column that counts its rows", "save it without (index=False)"
        )
    for column in table:
        if table[column].dtype.kind not in "buif":
            raise _not_numeric(path, column)
        if missing := int(table[column].isna().sum()):
            row = int(table[column].isna().to_numpy().argmax())
            raise InputError(
                path,
                f"lacks {missing} values in column {str(column)!r}, the first in data row {row}",
                "remove or impute them",
            )
    array = table.to_numpy()
    return {"x": table.astype(float) if array.dtype == object else array, "labels": labels}


def _as_labels(column: Any) -> np.ndarray:
    if column.dtype != "category":
        return column.to_numpy()
    # Its own to_numpy would copy the text of each row.
    names = np.array([*column.cat.categories, np.nan], dtype=object)
    return names[column.cat.codes]  # the code of a missing value is -1


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
