"""Arrays checked, and split into training, validation and test data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..choices import Binarize
from ..errors import InputError
from ..runtime import derived_seed
from .batch import Batch
from .binarization import draw_binary
from .classes import LABELS, as_classes, known_classes
from .columns import align, as_table, check_rows, columns_of, reading_like
from .covariates import as_covariates
from .dataset import DataSet, Split
from .inspection import warn_of_precision
from .missing import fill_missing, joint_mask, with_mask
from .objects import as_plain
from .reading import Reading
from .schema import COUNT_LIMIT
from .table import Table

SPLIT_SEED = 0  # The same data are held out whatever the seed of the fit.


FIXED_BINARIZATION_SEED = 0


def make_data(
    x: Any,
    labels: Any = None,
    *,
    test: tuple[Any, ...] | None = None,
    validation: tuple[Any, ...] | None = None,
    covariates: Mapping[str, Any] | None = None,
    levels: int | None = None,
    binarize: Binarize = "none",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    source: str = "array",
    reading: Reading | None = None,
) -> DataSet:
    """Validate arrays and split them, the same way every time.

    Images in bytes (uint8) are read as levels of grey in [0, 1], unless they hold zeros and ones
    only; all other numbers are taken as they are, bytes of shape (N, D) too, which may be counts:
    grey values of that shape need ``levels=255``. Images of shape (N, height, width) or (N, height,
    width, channels) become (N, channels, height, width).

    Where values are missing (NaN, or masked), ``x`` is 0, and a covariate ``mask`` says which were
    observed.

    Arguments:
        x: Array or tensor of shape (N, *data_shape); a pandas ``DataFrame``, whose columns may be
            of numbers, booleans or categories, with classes in a column ``label`` if there is one;
            a SciPy sparse matrix; a list of tensors; or a PyTorch ``Dataset`` whose items are
            tensors, or pairs of a tensor and a class.
        labels: One label for each data point, of any type, ``None`` or NaN where it is missing.
            Pictures show them, and a program that takes ``y`` is given their indices, -1 for a
            missing one.
        test: A pair (x, labels), or with covariates a triple (x, labels, covariates), held out by
            others; without it, ``test_fraction`` of the data is.
        validation: Likewise, instead of ``validation_fraction`` of the data.
        covariates: What programs take beside ``x``, by the name of the argument, such as ``mask``:
            arrays of numbers or booleans, of shape (N, ...).
        levels: Highest value of integer data, by which they are divided; by default that of
            ``reading``, or 255 for images in bytes.
        binarize: See :class:`DataSet`.
        validation_fraction: Share of ``x`` held out to choose the best epoch by.
        test_fraction: Share of ``x`` held out for the final figures.
        source: The name that messages and runs know the data by.
        reading: What is not to be found out: see :class:`ppl_vae.data.reading.Reading`.

    Raises:
        InputError: If an array is empty, ragged, not numeric, holds infinity, does not fit its
            labels or covariates, or cannot be binarized; or if a column of a table cannot be used.

    Example:
        >>> data = make_data(np.eye(10), binarize="fixed")
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (8, 1, 1, (10,))
    """
    if binarize not in get_args(Binarize):
        raise InputError(
            "binarize", f"must be one of {', '.join(get_args(Binarize))}, got {binarize!r}"
        )
    given = _given(source, test=test, validation=validation)
    reading = reading or Reading()
    x, labels = as_plain(x, labels, reading, source)
    table = as_table(x if isinstance(x, Table) else _as_array(x, source), reading, source)
    array = _as_array(x if table is None else table, source)
    levels = reading.levels if levels is None else levels
    if levels is None and binarize != "none" and array.dtype == np.uint8 and (array > 1).any():
        levels = 255  # grey values, since they are to be binarized
    if table is not None and levels is not None:
        array = _as_whole(array)
    stored, levels, missing = _as_stored(array, source, levels)
    further = with_mask(as_covariates(covariates, len(stored), source), stored)
    apart = {n: _apart(p, stored, levels, further, reading) for n, p in given.items()}
    if missing is not None or any(part.missing is not None for part in apart.values()):
        further = joint_mask(further, missing, stored, source)
        for part in apart.values():
            part.covariates = joint_mask(part.covariates, part.missing, part.x, part.source)
    labelled = {name: (part.labels, len(part.x)) for name, part in apart.items()}
    classes, label_names = as_classes(labels, labelled, len(stored), source)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    held_out = {n: _size(f, len(stored)) for n, f in fractions.items() if n not in given}
    known = classes["train"]
    splits = {
        name: _rows_of(stored, known, further, rows)
        for name, rows in _divided(len(stored), held_out, source).items()
    }
    for name, part in apart.items():
        rows = torch.arange(len(part.x))
        splits[name] = Split(part.x, rows, classes[name], part.covariates)
    columns = columns_of(splits, levels, binarize, table, source)
    if binarize != "none":
        splits = {n: _prepared(s, n, levels, binarize, source) for n, s in splits.items()}
        levels = 1 if binarize == "fixed" else levels
    data = DataSet(
        source,
        splits["train"],
        splits["validation"],
        splits["test"],
        levels,
        binarize,
        label_names,
        columns,
        () if table is None else table.row_names,
        reading,
    )
    warn_of_precision(data)
    return data


def _rows_of(
    x: Tensor, labels: Tensor | None, covariates: Mapping[str, Tensor], rows: Tensor
) -> Split:
    """Some of the data points as a split."""
    known = None if labels is None else labels[rows]
    return Split(x[rows], rows, known, {name: t[rows] for name, t in covariates.items()})


def make_rows(
    x: Any,
    labels: Any = None,
    covariates: Mapping[str, Any] | None = None,
    *,
    like: Mapping[str, Any],
    source: str = "array",
    seed: int = 0,
    labelled: bool = False,
) -> Batch:
    """Validate arrays as data points for a program that was fitted to others.

    Arguments:
        x, labels, covariates: As for :func:`make_data`.
        like: The ``shape`` of a data point, how it is to ``binarize``, and its ``levels``, if any:
            integers are divided by these, real numbers are taken to be divided by them. A record
            without ``levels`` leaves them to be found from the type, as :func:`make_data` does. Its
            ``label_names`` are the classes that there are.
        source: The name that messages know the data by.
        seed: Seed of the binarization.
        labelled: Whether the program takes labels, as the covariate ``y``; else they are left out.

    Raises:
        InputError: As :func:`make_data` does; if the shape is another one, or a label of none of
            the classes; or if values are not on the scale of the data that the program was fitted
            to.

    Example:
        >>> levels = {"shape": [1], "binarize": "none", "levels": 255}
        >>> x = make_rows(np.array([[51], [0]], dtype=np.uint8), like=levels)["x"]
        >>> round(x.max().item(), 6)
        0.2
    """
    levels = like.get("levels")
    x, labels = as_plain(x, labels, reading_like(like), source)
    array = _as_array(align(x, like, source) if isinstance(x, Table) else x, source)
    whole = array.dtype.kind in "bui"
    if levels is None and "levels" in like and array.dtype == np.uint8 and array.ndim > 2:
        problem = "holds bytes, but the program was fitted to numbers as they were"
        raise InputError(source, problem, "save it as floating-point numbers in the same units")
    if isinstance(x, Table) and levels is not None and not whole:
        array, whole = _as_whole(array), True
    stored, found, missing = _as_stored(array, source, levels if whole else None)
    if found == 1 and levels is None and "levels" in like:
        stored, found = stored.float(), None  # bytes that happen to be zeros and ones
    if list(stored.shape[1:]) != list(like["shape"]):
        raise InputError(
            source,
            f"has data points of shape {tuple(stored.shape[1:])}, but the program was fitted to "
            f"those of {tuple(like['shape'])}",
        )
    if levels is not None and found is None and (stored.min() < 0 or stored.max() > 1):
        problem = f"has values from {stored.min():g} to {stored.max():g}, but the program was "
        problem += f"fitted to levels of {levels}, which are divided by it"
        raise InputError(source, problem, "save whole numbers as integers, or divide them")
    further = with_mask(as_covariates(covariates, len(stored), source), stored)
    check_rows(stored, missing, like, source)
    if missing is not None:
        further = joint_mask(further, missing, stored, source)
    if labelled and like.get("label_names"):
        found_classes = known_classes(labels, like["label_names"], len(stored), source)
        further = {LABELS: found_classes, **further}
    split = Split(stored, torch.arange(len(stored)), None, further)
    if like.get("binarize", "none") != "none":
        split = _prepared(split, "new", found, "dynamic", source)
        generator = torch.Generator().manual_seed(derived_seed(seed, "new data"))
        drawn = draw_binary(split.x, found, generator).to(torch.uint8).float()
        return Batch(x=drawn, **further)
    return Batch(x=stored if found is None else stored.float() / found, **further)


def _size(fraction: float, total: int) -> int:
    if not isinstance(fraction, Real) or not 0 < fraction < 1:
        raise InputError("fractions of the data", f"must be between 0 and 1, got {fraction!r}")
    return max(1, round(fraction * total))


def _as_stored(
    array: np.ndarray, source: str, levels: int | None
) -> tuple[Tensor, int | None, np.ndarray | None]:
    """Check an array, and bring it to bytes or floats of shape (N, *data_shape), with its levels
    and where values are missing, if any are."""
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
    array = _channels_first(array)
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
        return torch.from_numpy(array.astype(np.uint8)), levels, None
    array, missing = fill_missing(array)
    if array.dtype.kind == "f":
        _check_finite(array, source)
    large = array.dtype.kind in "ui" and (array.max() > COUNT_LIMIT or array.min() < -COUNT_LIMIT)
    exact = array.dtype == np.float64 or large
    return torch.from_numpy(array.astype(np.float64 if exact else np.float32)), None, missing


def _as_whole(array: np.ndarray) -> np.ndarray:
    """A table of whole numbers as integers, for levels; any other as it is."""
    return array.astype(np.int64) if (array == np.round(array)).all() else array


def _as_array(x: Any, source: str) -> np.ndarray:
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


def _check_finite(array: np.ndarray, source: str) -> None:
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            source,
            f"has {bad.sum()} values that are infinite or beyond float32, the first at "
            f"index {first}",
            "remove or impute them",
        )


def _channels_first(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _divided(total: int, held_out: Mapping[str, int], source: str) -> dict[str, Tensor]:
    """The rows of the splits that are held out, and of the training data, in random order."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED))
    if (left := total - sum(held_out.values())) <= 0:
        counts = " and ".join(f"{count} for {name}" for name, count in held_out.items())
        problem = f"has {total} data points, too few to hold out {counts}"
        raise InputError(source, problem, "give more")
    parts = order.split([*held_out.values(), left])
    return dict(zip([*held_out, "train"], parts, strict=True))


@dataclass
class _Apart:
    """A split that came apart: its values, labels and covariates, and where values are missing."""

    x: Tensor
    labels: Any
    covariates: dict[str, Tensor]
    missing: np.ndarray | None
    source: str


def _given(source: str, **parts: Any) -> dict[str, tuple[Any, Any, Any, str]]:
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


def _apart(
    part: tuple[Any, Any, Any, str],
    train: Tensor,
    levels: int | None,
    covariates: Mapping[str, Tensor],
    reading: Reading,
) -> _Apart:
    """A split that came apart, brought to the training data's type."""
    *_, beside, source = part
    x, labels = as_plain(part[0], part[1], reading, source)
    stored, _, missing = _as_stored(_as_array(x, source), source, levels)
    if stored.shape[1:] != train.shape[1:]:
        raise InputError(
            source,
            f"has data points of shape {tuple(stored.shape[1:])}, the training data of "
            f"{tuple(train.shape[1:])}",
        )
    held = as_covariates(beside, len(stored), source, like=covariates)
    return _Apart(stored.to(train.dtype), labels, held, missing, source)


def _prepared(
    split: Split, name: str, levels: int | None, binarize: Binarize, source: str
) -> Split:
    """Check that values can be binarized; do it here and now where that is asked for."""
    top = 1 if levels is None else levels
    if len(split) and (split.x.min() < 0 or split.x.max() > top):
        raise InputError(
            source,
            f"has values from {split.x.min():g} to {split.x.max():g}, but only those in [0, 1] can "
            "be binarized",
            "binarize-or-gaussian",
        )
    if binarize == "dynamic":
        return split
    generator = torch.Generator().manual_seed(derived_seed(FIXED_BINARIZATION_SEED, name))
    return replace(split, x=draw_binary(split.x, levels, generator).byte())
