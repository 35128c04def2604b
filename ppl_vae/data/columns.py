"""The columns of data sets, and new rows brought to those that a program was fitted to."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..choices import Binarize, ColumnKind
from ..errors import InputError
from .binarization import BLOCK
from .dataset import Split
from .missing import observed
from .reading import Reading
from .schema import PLAIN_NAME, Column, check_kind, find_columns, has_names
from .table import Table, Variable, assemble


def as_table(x: "np.ndarray | Table", reading: Reading, source: str) -> Table | None:
    """What was given as a table, if it is one, or if the user says what its columns are.

    Raises:
        InputError: If the user names a column that there is not.
    """
    if not isinstance(x, Table):
        if not reading.schema:
            return None
        array = x
        if array.ndim != 2 or array.dtype.kind not in "buif":
            raise InputError(source, "has no columns", "leave the schema out")
        values = array.astype(np.float32 if array.dtype == np.float32 else np.float64)
        names = map(PLAIN_NAME.format, range(array.shape[1]))
        x = assemble(
            [Variable(n, v) for n, v in zip(names, values.T, strict=True)], reading, source
        )
    asked = [*reading.schema, *([] if reading.label is None else [reading.label])]
    if unknown := [name for name in asked if name not in x.present]:
        raise InputError(source, f"has no column {unknown[0]!r}", "column-names")
    return x


def columns_of(
    splits: Mapping[str, Split],
    levels: int | None,
    binarize: Binarize,
    table: Table | None,
    source: str,
) -> tuple[Column, ...]:
    """What the columns are, of data of shape (N, D); nothing of others.

    Arguments:
        splits: The data, split, with a mask of what was observed if anything is missing.
        levels: What the stored values are divided by.
        binarize: How they become zeros and ones.
        table: Where names and kinds come from, if they were read from a table.
        source: What messages call the data.

    Raises:
        InputError: See :func:`.schema.find_columns`.
    """
    train = splits["train"]
    if train.x.dim() != 2:
        return ()
    if table is None:
        names: tuple[str, ...] = tuple(map(PLAIN_NAME.format, range(train.x.shape[1])))
    else:
        names = table.names
    if levels is not None or binarize != "none":
        kind: ColumnKind = "binary" if levels == 1 or binarize != "none" else "real"
        return _scaled(names, train.x, levels or 1, kind)
    # The mean and the standard deviation are the training data's; kinds are those of all.
    parts = [splits[name] for name in ("train", "validation", "test")]
    seen = [observed(part.x, part.covariates) for part in parts]

    def values(place: int) -> np.ndarray:
        column = torch.cat([part.x[:, place] for part in parts]).double()
        known = torch.cat([mask[:, place] for mask in seen])
        return column.masked_fill_(~known, torch.nan).numpy()

    return find_columns(
        names,
        values,
        slice(len(train)),
        table.kinds if table else {},
        table.categories if table else {},
        source,
    )


def _scaled(names: Sequence[str], x: Tensor, levels: int, kind: ColumnKind) -> tuple[Column, ...]:
    """Columns of levels, some of them at a time."""
    found: list[Column] = []
    size = max(1, BLOCK // len(x))
    for start in range(0, len(names), size):
        some = slice(start, start + size)
        shares = x[:, some].double() / levels
        moments = zip(
            names[some], shares.mean(0).tolist(), shares.std(0, False).tolist(), strict=True
        )
        found += [Column(name, kind, loc, scale) for name, loc, scale in moments]
    return tuple(found)


def reading_like(like: Mapping[str, Any]) -> Reading:
    """How new data are read for a program: as those that it was fitted to, with their columns.

    Arguments:
        like: What a run's config says of its data; see :func:`ppl_vae.data.validation.make_rows`.
    """
    reading = Reading.of(like.get("reading"))
    columns = [Column.of(plain) for plain in like.get("columns") or ()]
    if not has_names(columns):
        return reading
    known: dict[str, dict[str, Any]] = {c.name: {"kind": c.kind} for c in columns}
    for column in columns:
        if column.categories:
            known[column.name]["categories"] = [*column.categories]
    return replace(reading, schema={**reading.schema, **known})


def align(table: Table, like: Mapping[str, Any], source: str) -> Table:
    """A table with the columns that a program was fitted to, in their order.

    Raises:
        InputError: Naming a column that is missing, or that there was none of.
    """
    columns = [Column.of(plain) for plain in like.get("columns") or ()]
    if not has_names(columns):
        return table
    names = tuple(column.name for column in columns)
    if missing := [name for name in names if name not in table.names]:
        raise InputError(
            source, f"has no column {missing[0]!r}, which the program was fitted to", "add it"
        )
    if stray := [name for name in table.names if name not in names]:
        raise InputError(
            source,
            f"has a column {stray[0]!r}, which the program was not fitted to",
            "remove it from the file",
        )
    order = [table.names.index(name) for name in names]
    return replace(table, names=names, values=table.values[:, order])


def check_rows(
    stored: Tensor, missing: np.ndarray | None, like: Mapping[str, Any], source: str
) -> None:
    """Refuse codes that there are no categories for.

    Raises:
        InputError: Naming the column.
    """
    columns = [Column.of(plain) for plain in like.get("columns") or ()]
    seen = None if missing is None else torch.from_numpy(~missing)
    for place, column in enumerate(columns):
        values = stored[:, place] if seen is None else stored[seen[:, place], place]
        if column.categories and len(values):
            check_kind(column.name, column.kind, values.numpy(), column.categories, source)
