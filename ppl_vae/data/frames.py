"""pandas data frames, and Parquet files, as tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size, tell_lack_of_memory
from .cells import WHOLE_LIMIT, are_dates, are_numbers_with_units, is_number
from .reading import Reading
from .table import (
    Table,
    Variable,
    assemble,
    label_column,
    number_text,
    refuse_date,
    refuse_identifiers,
)


def frame_table(
    frame: Any, reading: Reading, source: str | Path, texts: Sequence[str] | None = None
) -> Table:
    """A data frame as a table: its index, if it is no mere count, names the rows.

    Arguments:
        frame: A pandas ``DataFrame``.
        reading: How it is to be read.
        source: What messages call it.
        texts: Of a file, the columns of categories that are texts by nature.

    Raises:
        InputError: Naming a column that is neither of numbers nor of categories.
    """
    import pandas as pd

    names = [str(name) for name in frame.columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(source, f"has two columns {twice[0]!r}", "rename or remove one of them")
    index, label = reading.index_column, label_column(names, reading)
    if index is not None and index not in (*names, *map(str, frame.index.names)):
        raise InputError(source, f"has no column {index!r}", "column-names")
    variables, row_names = [], None
    for place, name in enumerate(names):
        if reading.schema.get(name, {}).get("drop"):
            variables.append(Variable(name, np.zeros(len(frame))))
        elif name == index:
            row_names = _name_rows(frame.iloc[:, place])
        else:
            plain = name in (texts or ()) or name == label
            variables.append(_variable(frame.iloc[:, place], name, plain, reading, source))
    if row_names is None and not isinstance(frame.index, pd.RangeIndex):
        row_names = _name_rows(frame.index)
    if texts is not None:  # a file, whose columns nobody has chosen
        refuse_identifiers(variables, reading, source)
    return assemble(variables, reading, source, row_names, len(frame))


def _name_rows(values: Any) -> Variable:
    texts = [str(value) for value in values]
    known = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return Variable("", np.array([known[text] for text in texts], float), tuple(known))


def _variable(column: Any, name: str, text: bool, reading: Reading, source: str | Path) -> Variable:
    """A column, by its type."""
    import pandas as pd
    from pandas.api import types

    dtype = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        column = column.sparse.to_dense()
        dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        names = tuple(
            number_text(c) if isinstance(c, int | float) else str(c) for c in dtype.categories
        )
        codes = column.cat.codes.to_numpy().astype(float)
        codes[codes < 0] = np.nan
        if text:
            return _of_texts(codes, names, name, reading, source)
        kind = "binary" if len(names) == 2 else "category"
        return Variable(name, codes, names, "ordered" if dtype.ordered else kind)  # type: ignore[arg-type]
    inferred = types.infer_dtype(column, skipna=True)
    if types.is_bool_dtype(dtype) or inferred == "boolean":
        found = column.astype("boolean").to_numpy(dtype=float, na_value=np.nan)
        return Variable(name, found, ("False", "True"), "binary")
    if inferred in ("string", "empty"):
        codes, names = pd.factorize(column)
        found = np.where(codes < 0, np.nan, codes.astype(float))
        return _of_texts(found, tuple(map(str, names)), name, reading, source)
    if inferred in ("integer", "floating", "mixed-integer-float", "decimal"):
        return Variable(name, _numbers(column, name, source))
    if inferred in ("datetime64", "datetime", "date", "time", "period") or "time" in inferred:
        refuse_date(source, name, column.dropna().iloc[0] if column.notna().any() else "none")
    raise not_numeric(source, name)


def _numbers(column: Any, name: str, source: str | Path) -> np.ndarray:
    if column.dtype.kind in "iu" and len(column):
        largest = max(abs(int(column.max())), abs(int(column.min()))) if column.notna().any() else 0
        if largest > WHOLE_LIMIT:
            raise InputError(
                source,
                f"has {largest} in column {name!r}: whole numbers beyond 2^53 are not held exactly",
                "leave-out-or-index",
                column=name,
            )
    # An array of float16 or float32 has room for what it holds in float32.
    kind = np.float32 if str(column.dtype).lower() in ("float16", "float32") else np.float64
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return np.asarray(column.to_numpy())  # the frame's own memory: a table converts it
    return np.asarray(column.to_numpy(dtype=kind, na_value=np.nan))


def _of_texts(
    codes: np.ndarray, names: tuple[str, ...], name: str, reading: Reading, source: str | Path
) -> Variable:
    """A column of texts, unless these are numbers or dates."""
    said = reading.schema.get(name, {})
    is_label = name == label_column([name], reading)
    if is_label or said.get("kind") in ("category", "ordered", "binary") or "categories" in said:
        return Variable(name, codes, names)
    if names and are_dates(names):
        refuse_date(source, name, names[0])
    if any(map(is_number, names)) or (names and are_numbers_with_units(names)):
        raise InputError(
            source,
            f"has {names[0]!r} as text in column {name!r}, among numbers",
            "mend-or-category",
            column=name,
        )
    return Variable(name, codes, names)


def not_numeric(source: str | Path, column: Any) -> InputError:
    """What is said of a column of lists, bytes and the like."""
    return InputError(source, f"has a column {str(column)!r} that is not numeric", "drop-or-encode")


def read_parquet(path: Path, reading: Reading | None = None) -> dict[str, Any]:
    """The :class:`.Table` in a Parquet file.

    Raises:
        InputError: If it is no table of numbers and categories, or does not fit into memory.
    """
    import pyarrow as pa
    from pyarrow import parquet

    reading = reading or Reading()
    regular_size(path)
    try:
        with path.open("rb") as stream, parquet.ParquetFile(stream) as file:
            schema, metadata = file.schema_arrow, file.metadata
            _refuse_large(path, schema, metadata)
            texts = [f.name for f in schema if _is_text(f.type)]
        # One text in a million rows takes a few bytes on the disk; as a dictionary, in memory too.
        with (
            path.open("rb") as stream,
            parquet.ParquetFile(stream, read_dictionary=texts) as file,
        ):
            table = file.read()
        for place, column in enumerate(table.schema):
            if pa.types.is_decimal(column.type):
                table = table.set_column(place, column.name, table[place].cast(pa.float64()))
        # What pandas has of a column, Arrow need not keep.
        frame = table.to_pandas(split_blocks=True, self_destruct=True)
        del table
        return {"x": frame_table(frame, reading, path, texts)}
    except InputError:
        raise
    except (
        *(pa.ArrowException, OSError, ValueError, TypeError, KeyError),
        *(OverflowError, AttributeError, IndexError),
    ) as error:
        tell_lack_of_memory(error, path)
        raise InputError(
            path, f"is not a Parquet table ({first_line(error)})", "save it again"
        ) from None


def _refuse_large(path: Path, schema: Any, metadata: Any) -> None:
    """Compare the number of values with memory: runs of one value take no space in the file."""
    from pyarrow import types

    plain = [types.is_integer, types.is_floating, types.is_boolean, _is_text, types.is_decimal]
    # Of an index, of labels, or to be refused by name.
    plain += [types.is_temporal, types.is_dictionary, types.is_null]
    for column in schema:
        if not any(kind(column.type) for kind in plain):
            raise not_numeric(path, column.name)
    size = 8 * metadata.num_rows * metadata.num_columns  # at most 8 bytes a number
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [(g, g.column(i)) for g in groups for i in range(g.num_columns)]
    values = sum(max(group.num_rows, chunk.num_values) for group, chunk in chunks)
    text = sum(max(0, chunk.total_uncompressed_size) for _, chunk in chunks)
    refuse_beyond_memory(max(size, 8 * values, text), path, "take fewer data")


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))
