"""What holds data in Python beside arrays: frames, sparse matrices, data sets, lists of tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory
from .reading import Reading
from .table import Table


def as_plain(x: Any, labels: Any, reading: Reading, source: str) -> tuple[Any, Any]:
    """An array, a tensor or a :class:`.Table` of what was given, and its labels.

    Arguments:
        x: Anything that :func:`ppl_vae.make_data` takes.
        labels: Labels given beside it.
        reading: How a frame is to be read.
        source: What messages call it.

    Raises:
        InputError: If it cannot be had, or there are labels twice.

    Example:
        >>> data = TensorDataset(torch.zeros(2, 3), torch.tensor([0, 1]))
        >>> as_plain(data, None, Reading(), "data")[1]
        tensor([0, 1])
    """
    if _is_of(x, "pandas", "DataFrame"):
        from .frames import frame_table

        x = frame_table(x, reading, source)
    elif _is_of(x, "scipy.sparse"):
        x = _dense(x, source)
    elif isinstance(x, Dataset):
        x, own = _of_dataset(x, source)
        labels = _only(labels, own, source)
    elif isinstance(x, list | tuple) and len(x) and all(isinstance(item, Tensor) for item in x):
        x = _stacked(x, source)
    if isinstance(x, Table):
        labels = _only(labels, x.labels, source)
    return x, labels


def is_made(given: Any, plain: Any) -> bool:
    """Whether :func:`as_plain` made what it gave, so that nobody else has its memory."""
    return plain is not given and not isinstance(given, TensorDataset)


def _only(labels: Any, own: Any, source: str) -> Any:
    if labels is not None and own is not None:
        raise InputError(source, "holds labels, and others are given", "give them once")
    return own if labels is None else labels


def _is_of(x: Any, module: str, name: str | None = None) -> bool:
    """Whether an object is of a class of a package, which need not be installed."""
    kinds = [kind for kind in type(x).__mro__ if kind.__module__.startswith(module)]
    return any(name in (None, kind.__name__) for kind in kinds)


def _dense(x: Any, source: str) -> np.ndarray:
    """A sparse matrix with its zeros."""
    kept = x.dtype if x.dtype.kind in "buif" else np.dtype(np.float64)
    refuse_beyond_memory(int(np.prod(x.shape)) * kept.itemsize, source, "take fewer data")
    return np.asarray(x.toarray())


def _stacked(items: Sequence[Tensor], source: str) -> Tensor:
    shapes = {tuple(item.shape) for item in items}
    if len(shapes) > 1:
        raise InputError(source, "is ragged", "give every data point the same shape")
    size = items[0].numel() * items[0].element_size()
    refuse_beyond_memory(len(items) * size, source, "take fewer data")
    if any(item.is_meta or item.layout != torch.strided for item in items):
        raise InputError(source, "holds tensors that are sparse, or without values", "give others")
    return torch.stack([item.detach().cpu() for item in items])


def _of_dataset(data: Any, source: str) -> tuple[Tensor, Any]:
    """The items of a map-style data set: tensors, or pairs of a tensor and a label."""
    tensors = data.tensors if isinstance(data, TensorDataset) else _items(data, source)
    if len(tensors) > 2:
        raise InputError(
            source, f"has items of {len(tensors)} parts", "give x, labels and covariates by name"
        )
    labels = tensors[1] if len(tensors) == 2 else None
    if labels is not None and (labels.is_floating_point() or labels.dim() != 1):
        raise InputError(source, "has items whose second part is no class", "give it as covariate")
    return tensors[0], labels


def _items(data: Any, source: str) -> tuple[Tensor, ...]:
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise InputError(source, "is a Dataset without a length", "give its items as a list")
    parts: list[list[Tensor]] = []
    for place in range(len(data)):
        try:
            item = data[place]
        except Exception as error:  # whatever the user's code raises
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(source, f"has no item {place} ({reason})", "mend it") from error
        item = item if isinstance(item, list | tuple) else (item,)
        if not isinstance(item[0] if item else None, Tensor):
            kind = type(item[0]).__name__ if item else "nothing"
            raise InputError(
                source, f"is a Dataset of {kind}", "give it a transform that makes tensors"
            )
        found = [torch.as_tensor(part) for part in item]
        if not parts:
            size = sum(part.numel() * part.element_size() for part in found)
            refuse_beyond_memory(2 * size * len(data), source, "take fewer data")
            parts = [[] for _ in found]
        if len(found) != len(parts):
            raise InputError(source, f"has another number of parts in item {place}", "mend it")
        for part, one in zip(parts, found, strict=True):
            part.append(one)
    if not parts:
        raise InputError(source, "holds no data", "give items")
    return tuple(_stacked(part, source) for part in parts)
