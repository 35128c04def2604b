"""Arrays checked, and brought to the bytes or floats that data sets store, without a second one of
their size."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .blocks import are_whole, blocks, bring, channels_first
from .covariates import as_covariates
from .dataset import Split
from .missing import fill_missing
from .objects import as_plain, is_made
from .reading import Reading
from .schema import COUNT_LIMIT
from .table import Table


def as_array(x: Any, source: str) -> np.ndarray:
    """A tensor, table or the like as an array; NaN where it is masked.

    Raises:
        InputError: If it is sparse, ragged, or has no values.
    """
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise InputError(source, "is a sparse tensor", "make it dense with .to_dense()")
        if x.is_meta:
            raise InputError(source, "is a tensor on the device meta", "give one with values")
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    if isinstance(x, Table):
        return x.values
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        kept = np.float32 if x.dtype.itemsize < 4 or x.dtype == np.float32 else np.float64
        return np.ma.filled(x.astype(kept), np.nan)
    try:
        return np.asarray(x)
    except ValueError:
        raise InputError(source, "is ragged", "give every data point the same shape") from None


def as_whole(array: np.ndarray) -> np.ndarray:
    """A table of whole numbers as integers, for levels, in its memory; any other as it is."""
    return bring(array, np.int64, ours=True) if are_whole(array) else array


def check_array(
    array: np.ndarray, source: str, levels: int | None, ours: bool
) -> tuple[np.ndarray, int | None, np.dtype]:
    """Check an array.

    Arguments:
        array: Data points of any type.
        source: What messages call it.
        levels: What integers are to be divided by, if that is known.
        ours: Whether its memory may be changed.

    Returns:
        The array, of shape (N, *data_shape), channels first; its levels; and the type to store.

    Raises:
        InputError: If it is no array of data, or holds what cannot be used.
    """
    if array.dtype.kind not in "buif":
        raise InputError(source, f"holds data of type {array.dtype}, which are not numbers")
    if array.size == 0 or array.ndim < 2:
        raise InputError(
            source,
            f"is an array of shape {array.shape}, which holds no data",
            "give (N, ...), such as (1000, 28, 28) for images or (1000, 17) for a table",
        )
    if levels is None and array.dtype in (np.uint8, bool):
        if array.max() <= 1:
            levels = 1
        elif array.ndim > 2:  # a table may hold counts
            levels = 255
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = channels_first(array, ours)
    if levels is not None:
        if (
            not isinstance(levels, Integral)
            or not 1 <= levels <= 255
            or array.dtype.kind not in "bui"
        ):
            raise InputError(
                source, f"needs integers and levels in 1 ... 255, got levels={levels!r}"
            )
        if array.min() < 0 or array.max() > levels:
            raise InputError(
                source,
                f"has values from {array.min()} to {array.max()}, but {levels} levels",
            )
        return array, levels, np.dtype(np.uint8)
    if array.dtype.kind == "f":
        _refuse_infinite(array, source)
    large = array.dtype.kind in "ui" and (array.max() > COUNT_LIMIT or array.min() < -COUNT_LIMIT)
    exact = array.dtype == np.float64 or large
    return array, None, np.dtype(np.float64 if exact else np.float32)


def _refuse_infinite(array: np.ndarray, source: str) -> None:
    count, first = 0, ()
    for rows in blocks(array):
        with np.errstate(over="ignore"):
            bad = np.isinf(array[rows].astype(np.float32, copy=False))
        if bad.any():
            row, *place = np.argwhere(bad)[0].tolist()
            first = first or (rows.start + row, *place)
            count += int(bad.sum())
    if count:
        raise InputError(
            source,
            f"has {count} values that are infinite or beyond float32, the first at index {first}",
            "remove or impute them",
        )


def as_stored(
    array: np.ndarray, kind: np.dtype, order: np.ndarray | None, ours: bool
) -> tuple[Tensor, np.ndarray | None]:
    """What :func:`check_array` gave as it is stored, and where values are missing, if any are.

    Arguments:
        array: Of shape (N, *data_shape).
        kind: The type to store.
        order: The order of the rows; as they are, if left out.
        ours: Whether the memory of the array may be used.
    """
    stored = bring(array, kind, order, ours=ours)
    return torch.from_numpy(stored), fill_missing(stored)


def in_order(
    covariates: Mapping[str, Tensor], order: np.ndarray | None, ours: bool
) -> dict[str, Tensor]:
    """Covariates of our own, their rows in some order."""
    arrays = {name: tensor.numpy() for name, tensor in covariates.items()}
    return {
        name: torch.from_numpy(bring(array, array.dtype, order, ours=ours))
        for name, array in arrays.items()
    }


def split_rows(
    x: Tensor,
    labels: Tensor | None,
    covariates: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
) -> dict[str, Split]:
    """Data points as splits, which share their memory.

    Arguments:
        x, covariates: In the order of the splits.
        labels: In the order that ``rows`` are of.
        rows: Of each split, where its data points stood.
    """
    splits, start = {}, 0
    for name, of_split in rows.items():
        part = slice(start, start := start + len(of_split))
        known = None if labels is None else labels[of_split]
        splits[name] = Split(x[part], of_split, known, {n: t[part] for n, t in covariates.items()})
    return splits


@dataclass
class Part:
    """A split that came apart: its values, labels and covariates, and where values are missing."""

    x: Tensor
    labels: Any
    covariates: dict[str, Tensor]
    missing: np.ndarray | None
    source: str


def given_parts(source: str, **parts: Any) -> dict[str, tuple[Any, Any, Any, str]]:
    """The splits that came apart: x, labels and covariates, and what messages call each."""
    found = {}
    for name, part in parts.items():
        if part is None:
            continue
        if not (isinstance(part, tuple | list) and len(part) in (2, 3)):
            raise InputError(source, f"{name} must be (x, labels) or (x, labels, covariates)")
        x, labels, covariates = (*part, None)[:3]
        found[name] = (x, labels, covariates, f"{source} ({name})")
    return found


def part_apart(
    part: tuple[Any, Any, Any, str],
    train: Tensor,
    levels: int | None,
    covariates: Mapping[str, Tensor],
    reading: Reading,
    ours: bool,
) -> Part:
    """A split that came apart, brought to the training data's type.

    Raises:
        InputError: If it is no array of data, or unlike the training data.
    """
    *_, beside, source = part
    x, labels = as_plain(part[0], part[1], reading, source)
    made = ours or isinstance(x, Table) or is_made(part[0], x)
    array, *_ = check_array(as_array(x, source), source, levels, made)
    if array.shape[1:] != train.shape[1:]:
        raise InputError(
            source,
            f"has data points of shape {array.shape[1:]}, the training data of "
            f"{tuple(train.shape[1:])}",
        )
    stored, missing = as_stored(array, train.numpy().dtype, None, made)
    held = as_covariates(beside, stored.shape, source, like=covariates)
    return Part(stored, labels, in_order(held, None, ours), missing, source)
