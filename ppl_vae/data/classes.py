"""Labels as class indices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..storage.memory import refuse_beyond_memory

LABELS = "y"  # the covariate that class labels serve as
UNKNOWN = -1  # the label of a data point whose class is not known


def as_classes(
    labels: Any, apart: Mapping[str, tuple[Any, int]], count: int, source: str
) -> tuple[dict[str, Tensor | None], tuple[str, ...]]:
    """Class indices of the data, called train, and of splits that came apart, with their names.

    A missing label (``None``, NaN, pandas' NA) has the index -1.

    Arguments:
        labels: One for each of the ``count`` data points, or ``None`` for none.
        apart: Likewise, labels and count of each split that came apart.
        count: The number of data points.
        source: What messages call the data.

    Example:
        >>> as_classes(["b", None, "a"], {}, 3, "array")
        ({'train': tensor([ 1, -1,  0])}, ('a', 'b'))
    """
    given = {"train": (labels, count, source)}
    given |= {name: (*part, f"{source} ({name})") for name, part in apart.items()}
    known = {name: _as_label_array(*part) for name, part in given.items() if part[0] is not None}
    found: dict[str, Tensor | None] = dict.fromkeys(given)
    if not known:
        return found, ()
    # Together they are as wide as the widest.
    arrays = [array for array, _ in known.values()]
    _refuse_wide(sum(map(len, arrays)), max(array.itemsize for array in arrays), source)
    seen = ~np.concatenate([missing for _, missing in known.values()])
    together = np.concatenate(arrays)
    if not seen.any():
        raise InputError(source, "has labels that are all missing", "leave them out")
    names, indices = np.unique(together[seen], return_inverse=True)
    classes = torch.full((len(together),), UNKNOWN, dtype=torch.int64)
    classes[torch.from_numpy(seen)] = torch.from_numpy(indices.astype(np.int64))
    found |= dict(zip(known, classes.split([*map(len, arrays)]), strict=True))
    return found, tuple(str(name) for name in names)


def known_classes(labels: Any, names: Sequence[str], count: int, source: str) -> Tensor:
    """Class indices of new data, among classes that are known; -1 where a label is missing.

    Arguments:
        labels: One for each of the ``count`` data points, or ``None`` for none.
        names: The names of the classes, by index.
        count: The number of data points.
        source: What messages call the data.

    Raises:
        InputError: If a label is none of them.

    Example:
        >>> known_classes(["b", None, "a"], ("a", "b"), 3, "array")
        tensor([ 1, -1,  0])
    """
    found = torch.full((count,), UNKNOWN, dtype=torch.int64)
    if labels is None:
        return found
    indices = {name: index for index, name in enumerate(names)}
    for row, (label, missing) in enumerate(
        zip(*_as_label_array(labels, count, source), strict=True)
    ):
        if missing:
            continue
        if str(label) not in indices:
            some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
            raise InputError(
                source,
                f"has the label {str(label)!r} in row {row}, which is none of those that the "
                f"program was fitted to ({some})",
                "correct it, leave it empty, or leave the row out",
            )
        found[row] = indices[str(label)]
    return found


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
