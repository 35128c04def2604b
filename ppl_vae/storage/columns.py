"""Tables of columns, written as Parquet, CSV or NumPy's .npz, by the end of the file's name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import replacing

ENDINGS = (".parquet", ".csv", ".npz")


def write_columns(file: Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of one length each, whole or not at all.

    Arguments:
        file: A path that ends in one of :data:`ENDINGS`. In an ``.npz`` file columns may be arrays
            of any shape.
        columns: The columns by name.

    Raises:
        InputError: If the file cannot be written.

    Example:
        >>> write_columns(Path("codes.csv"), {"row": np.arange(2), "z[0]_mean": np.zeros(2)})
        >>> Path("codes.csv").read_text().split()
        ['row,z[0]_mean', '0,0.0', '1,0.0']
    """
    write_tables({file: columns})


def write_tables(tables: Mapping[Path, Mapping[str, np.ndarray]]) -> None:
    """:func:`write_columns` of several files in one folder, all of them or none."""
    with replacing(*tables) as temporary:
        for path, (file, columns) in zip(temporary, tables.items(), strict=True):
            _write(path, file.suffix, dict(columns))


def _write(path: Path, ending: str, columns: dict[str, Any]) -> None:
    if ending == ".npz":
        with path.open("wb") as stream:
            np.savez(stream, **columns)  # numbers and text, which no pickle is made of
        return
    import pandas as pd

    table = pd.DataFrame(columns)
    with path.open("wb") as stream:  # since PyArrow takes no name that is not UTF-8
        if ending == ".csv":
            table.to_csv(stream, index=False)
        else:  # pandas 2 would ask the stream for its name
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), stream)
