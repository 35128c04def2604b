"""Arrays checked, and split into training, validation and test data."""

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..choices import Binarize
from ..errors import InputError
from ..runtime import derived_seed
from ..storage.memory import refuse_beyond_memory
from .batch import Batch
from .binarization import draw_binary
from .covariates import as_covariates
from .dataset import DataSet, Split
from .reading import Reading

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

    Bytes (uint8) are read as levels of grey in [0, 1], unless they hold zeros and ones only; other
    numbers are taken as they are. Images of shape (N, height, width) or (N, height, width,
    channels) become (N, channels, height, width).

    Arguments:
        x: Array or tensor of shape (N, *data_shape).
        labels: One label for each data point, of any type. Pictures show them, and a program that
            takes ``y`` is given their indices.
        test: A pair (x, labels), or with covariates a triple (x, labels, covariates), held out by
            others; without it, ``test_fraction`` of the data is.
        validation: Likewise, instead of ``validation_fraction`` of the data.
        covariates: What programs take beside ``x``, by the name of the argument, such as ``mask``:
            arrays of numbers or booleans, of shape (N, ...).
        levels: Highest value of integer data; found from the type if left out.
        binarize: See :class:`DataSet`.
        validation_fraction: Share of ``x`` held out to choose the best epoch by.
        test_fraction: Share of ``x`` held out for the final figures.
        source: The name that messages and runs know the data by.
        reading: What is not to be found out: see :class:`ppl_vae.data.reading.Reading`.

    Raises:
        InputError: If an array is empty, ragged, not numeric, holds NaN or infinity, does not fit
            its labels or covariates, or cannot be binarized.

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
    stored, levels = _as_stored(x, source, levels)
    apart = {
        name: _test_like(part[0], stored, levels, f"{source} ({name})")
        for name, part in given.items()
    }
    counts = {name: len(tensor) for name, tensor in apart.items()}
    classes, label_names = _as_classes(labels, given, len(stored), counts, source)
    further = as_covariates(covariates, len(stored), source)
    order = torch.randperm(len(stored), generator=torch.Generator().manual_seed(SPLIT_SEED))
    fractions = {"test": test_fraction, "validation": validation_fraction}
    held_out, held_back = (
        0 if name in given else _size(fraction, len(stored)) for name, fraction in fractions.items()
    )
    if held_out + held_back >= len(stored):
        raise InputError(
            source,
            f"has {len(stored)} data points, too few to hold out {held_back} for validation and "
            f"{held_out} for testing",
            "give more",
        )
    parts = order.split([held_out, held_back, len(stored) - held_out - held_back])
    splits = {
        name: Split(
            stored[rows],
            rows,
            None if (of_all := classes["train"]) is None else of_all[rows],
            {covariate: tensor[rows] for covariate, tensor in further.items()},
        )
        for name, rows in zip(("test", "validation", "train"), parts, strict=True)
    }
    for name, tensor in apart.items():
        held = as_covariates(given[name][2], len(tensor), f"{source} ({name})", like=further)
        splits[name] = Split(tensor, torch.arange(len(tensor)), classes[name], held)
    if binarize != "none":
        splits = {n: _prepared(s, n, levels, binarize, source) for n, s in splits.items()}
        levels = 1 if binarize == "fixed" else levels
    return DataSet(
        source,
        splits["train"],
        splits["validation"],
        splits["test"],
        levels=levels,
        binarize=binarize,
        label_names=label_names,
        reading=reading or Reading(),
    )


def make_rows(
    x: Any,
    labels: Any = None,
    covariates: Mapping[str, Any] | None = None,
    *,
    like: Mapping[str, Any],
    source: str = "array",
    seed: int = 0,
) -> Batch:
    """Validate arrays as data points for a program that was fitted to others.

    Arguments:
        x, labels, covariates: As for :func:`make_data`. Labels are left out: which class an index
            stands for is not known here.
        like: The ``shape`` of a data point, how it is to ``binarize``, and its ``levels``, if any:
            integers are divided by these, real numbers are taken to be divided by them. A record
            without ``levels`` leaves them to be found from the type, as :func:`make_data` does.
        source: The name that messages know the data by.
        seed: Seed of the binarization.

    Raises:
        InputError: As :func:`make_data` does; if the shape is another one; or if values are not on
            the scale of the data that the program was fitted to.

    Example:
        >>> levels = {"shape": [1], "binarize": "none", "levels": 255}
        >>> make_rows(np.array([[1], [0]], dtype=np.uint8), like=levels)["x"].max().item() * 255
        1.0
    """
    levels = like.get("levels")
    array = _as_array(x, source)
    whole = array.dtype.kind in "bui"
    if levels is None and "levels" in like and array.dtype == np.uint8:
        problem = "holds bytes, but the program was fitted to numbers as they were"
        raise InputError(source, problem, "save it as floating-point numbers in the same units")
    stored, found = _as_stored(array, source, levels if whole else None)
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
    further = as_covariates(covariates, len(stored), source)
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


def _as_stored(x: Any, source: str, levels: int | None) -> tuple[Tensor, int | None]:
    """Check an array and bring it to bytes or floats of shape (N, *data_shape)."""
    array = _as_array(x, source)
    if array.dtype.kind not in "buif":
        raise InputError(source, f"holds data of type {array.dtype}, which are not numbers")
    if array.size == 0 or array.ndim < 2:
        raise InputError(
            source,
            f"is an array of shape {array.shape}, which holds no data",
            "give (N, ...), such as (1000, 28, 28) for images or (1000, 17) for a table",
        )
    if levels is None and (array.dtype == np.uint8 or array.dtype == bool):
        levels = 1 if array.max() <= 1 else 255
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
        return torch.from_numpy(array.astype(np.uint8)), levels
    if array.dtype.kind == "f":
        _check_finite(array, source)
    kept = np.float64 if array.dtype == np.float64 else np.float32
    return torch.from_numpy(array.astype(kept)), None


def _as_array(x: Any, source: str) -> np.ndarray:
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise InputError(source, "is a sparse tensor", "make it dense with .to_dense()")
        if x.is_meta:
            raise InputError(source, "is a tensor on the device meta", "give one with values")
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise InputError(source, f"has {np.ma.count_masked(x)} masked values", "impute them")
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
            f"has {bad.sum()} values that are NaN, infinite or beyond float32, the first at index "
            f"{first}",
            "remove or impute them",
        )


def _channels_first(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _given(source: str, **parts: Any) -> dict[str, tuple[Any, Any, Any]]:
    """The splits that came apart, as triples of x, labels and covariates."""
    found = {}
    for name, part in parts.items():
        if part is None:
            continue
        if not (isinstance(part, tuple | list) and len(part) in (2, 3)):
            raise InputError(source, f"{name} must be (x, labels) or (x, labels, covariates)")
        found[name] = (*part, None)[:3]
    return found


def _as_classes(
    labels: Any,
    given: Mapping[str, tuple[Any, Any, Any]],
    count: int,
    counts: Mapping[str, int],
    source: str,
) -> tuple[dict[str, Tensor | None], tuple[str, ...]]:
    """Class indices of the data, and of splits that came apart, with their names."""
    found: dict[str, Tensor | None] = {"train": None, **dict.fromkeys(given)}
    known = {} if labels is None else {"train": _as_label_array(labels, count, source)}
    for name, part in given.items():
        if part[1] is not None:
            known[name] = _as_label_array(part[1], counts[name], f"{source} ({name})")
    if not known:
        return found, ()
    # Together they are as wide as the widest.
    widest = max(array.itemsize for array in known.values())
    _refuse_wide(sum(map(len, known.values())), widest, source)
    names, indices = np.unique(np.concatenate([*known.values()]), return_inverse=True)
    classes = torch.from_numpy(indices.astype(np.int64)).split([*map(len, known.values())])
    return found | dict(zip(known, classes, strict=True)), tuple(str(name) for name in names)


def _as_label_array(labels: Any, count: int, source: str) -> np.ndarray:
    try:
        array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    except ValueError:
        raise InputError(
            source, "has ragged labels", "give one label for each data point"
        ) from None
    if array.shape != (count,):
        raise InputError(
            source, f"has labels of shape {array.shape}, but {count} data points need ({count},)"
        )
    if array.dtype != object:
        return array
    _refuse_wide(count, 4 * max(len(str(label)) for label in array), source)
    return array.astype(str)


def _refuse_wide(count: int, width: int, source: str) -> None:
    """An array of text has as much room for each as the longest needs, so one may be enough."""
    refuse_beyond_memory(count * width, f"{source}: labels", "shorten the longest")


def _test_like(x: Any, train: Tensor, levels: int | None, source: str) -> Tensor:
    """Test data that came apart, brought to the training data's type."""
    stored, _ = _as_stored(x, source, levels)
    if stored.shape[1:] != train.shape[1:]:
        raise InputError(
            source,
            f"has data points of shape {tuple(stored.shape[1:])}, the training data of "
            f"{tuple(train.shape[1:])}",
        )
    return stored.to(train.dtype)


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
