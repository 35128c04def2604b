"""Covariates checked: named arrays beside x, one row a data point."""

import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .batch import OBSERVED
from .blocks import are_zeros_and_ones, holds
from .missing import MASK


def as_covariates(
    given: Any,
    shape: Sequence[int],
    source: str,
    like: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Check named arrays, and bring them to tensors.

    Arguments:
        given: A mapping from names to arrays of numbers or booleans, of shape (N, ...), or ``None``
            for none.
        shape: That of ``x``, (N, *data_shape).
        source: What messages call the data.
        like: Covariates of other data points, whose names, shapes and types these must have.

    Returns:
        Tensors of booleans, of 64-bit integers, or of the floating-point type that they have. A
        ``mask`` of zeros and ones, one for each value of ``x``, is of booleans, since files keep
        masks as numbers, which no distribution can be masked with. They may share memory with what
        was given.

    Raises:
        InputError: Naming the covariate, and what is wrong with it.

    Example:
        >>> as_covariates({"mask": [[1, 0]]}, (1, 2), "array")
        {'mask': tensor([[ True, False]])}
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise InputError(source, f"covariates must be a mapping, not {type(given).__name__}")
    if like is not None and like.keys() != given.keys():
        name = min(like.keys() ^ given.keys())
        raise InputError(source, f"has the covariate {name!r} in training or test data only")
    found = {name: _as_covariate(name, array, shape, source) for name, array in given.items()}
    for name, tensor in found.items():
        if like is None:
            continue
        if tensor.shape[1:] != like[name].shape[1:]:
            raise InputError(
                source,
                f"covariate {name!r} has shape {tuple(tensor.shape[1:])} in the test data, and "
                f"{tuple(like[name].shape[1:])} in the training data",
            )
        found[name] = tensor.to(like[name].dtype)
    return found


def _as_covariate(name: Any, array: Any, shape: Sequence[int], source: str) -> Tensor:
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise InputError(source, f"covariate {name!r} cannot be the name of an argument")
    if name in (OBSERVED, "self"):
        raise InputError(source, f"covariate {name!r} has a name that is taken", "rename it")
    try:
        values = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    except (ValueError, TypeError):
        raise InputError(source, f"covariate {name!r} is not an array of numbers") from None
    if values.dtype.kind not in "buif":
        raise InputError(source, f"covariate {name!r} is of type {values.dtype}, not of numbers")
    if not values.ndim or len(values) != shape[0]:
        raise InputError(
            source,
            f"covariate {name!r} has shape {values.shape}, but there are {shape[0]} data points",
        )
    if values.dtype.kind == "f" and not holds(values, np.isfinite):
        raise InputError(
            source, f"covariate {name!r} holds NaN or infinity", "remove or impute what is missing"
        )
    if name == MASK and values.shape == tuple(shape) and are_zeros_and_ones(values):
        values = values.astype(bool, copy=False)
    elif values.dtype.kind in "ui":
        if values.size and values.max() > np.iinfo(np.int64).max:
            raise InputError(source, f"covariate {name!r} holds integers beyond 64 bits")
        values = values.astype(np.int64, copy=False)
    elif values.dtype.kind == "f" and values.dtype != np.float64:
        values = values.astype(np.float32, copy=False)
    return torch.from_numpy(np.ascontiguousarray(values))
