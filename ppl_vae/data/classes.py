"""Labels as class indices."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..storage.memory import refuse_beyond_memory

UNLABELLED = -1


def as_classes(
    labels: Any, test: tuple[Any, ...] | None, count: int, source: str
) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    """Class indices of the data, and of the test data held out by others, with their names.

    A missing label (``None``, NaN, pandas' NA) has the index -1.

    Example:
        >>> as_classes(["b", None, "a"], None, 3, "array")
        (tensor([ 1, -1,  0]), None, ('a', 'b'))
    """
    if labels is None:
        return None, None, ()
    known = [_as_label_array(labels, count, source)]
    if test is not None and test[1] is not None:
        known.append(_as_label_array(test[1], len(test[0]), f"{source} (test)"))
    # Together they are as wide as the widest.
    _refuse_wide(
        sum(len(array) for array, _ in known), max(array.itemsize for array, _ in known), source
    )
    seen = ~np.concatenate([missing for _, missing in known])
    together = np.concatenate([array for array, _ in known])
    if not seen.any():
        raise InputError(source, "has labels that are all missing", "leave them out")
    names, indices = np.unique(together[seen], return_inverse=True)
    classes = torch.full((len(together),), UNLABELLED, dtype=torch.int64)
    classes[torch.from_numpy(seen)] = torch.from_numpy(indices.astype(np.int64))
    given = classes[count:] if len(known) == 2 else None
    return classes[:count], given, tuple(str(name) for name in names)


def _as_label_array(labels: Any, count: int, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels of one type, and which are missing."""
    if isinstance(labels, list | tuple):  # NumPy would make text of None beside text
        array = np.empty(len(labels), dtype=object)
        array[:] = [x.item() if isinstance(x, Tensor) and not x.dim() else x for x in labels]
    else:
        array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.dtype == object and any(np.ndim(label) for label in array.flat):
        raise InputError(source, "has ragged labels", "give one label for each data point")
    if array.shape != (count,):
        raise InputError(
            source, f"has labels of shape {array.shape}, but {count} data points need ({count},)"
        )
    if array.dtype == object:
        array = _of_one_type(array)
    if array.dtype.kind == "f":
        missing = np.isnan(array)
        whole = array[~missing]
        if np.isfinite(whole).all() and (whole == np.round(whole)).all():
            array = np.where(missing, 0, array).astype(np.int64)
        return array, missing
    if array.dtype.kind in "mM":
        return array.astype(str), np.isnat(array)
    if array.dtype != object:
        return array, np.zeros(count, dtype=bool)
    missing = np.fromiter(map(_is_missing, array), bool, count)
    seen = array[~missing]
    _refuse_wide(count, 4 * max((len(str(label)) for label in seen), default=1), source)
    return np.where(missing, "", array).astype(str), missing


def _of_one_type(array: np.ndarray) -> np.ndarray:
    """Objects that are all numbers, or missing, as numbers."""
    missing = np.fromiter(map(_is_missing, array), bool, len(array))
    kinds = {*map(type, array[~missing])}
    if kinds and all(issubclass(kind, int | np.integer) for kind in kinds) and bool not in kinds:
        return (
            np.where(missing, np.nan, array).astype(np.float64)
            if missing.any()
            else (array.astype(np.int64))
        )
    if kinds and all(issubclass(kind, int | float | np.number) for kind in kinds - {bool}):
        return np.where(missing, np.nan, array).astype(np.float64) if bool not in kinds else array
    return array


def _is_missing(label: Any) -> bool:
    if isinstance(label, float | np.floating):
        return label != label
    return label is None or type(label).__name__ in ("NAType", "NaTType")


def _refuse_wide(count: int, width: int, source: str) -> None:
    """An array of text has as much room for each as the longest needs, so one may be enough."""
    refuse_beyond_memory(count * width, f"{source}: labels", "shorten the longest")
