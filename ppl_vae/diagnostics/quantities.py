"""Test quantities: what is compared between data and draws, one number for each data point."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, first_line

Quantity = Callable[[Tensor], Tensor]

WORDS = {
    "total": "total over a data point",
    "spread": "spread within a data point",
    "radius": "distance from the mean of draws, in standard deviations",
    "extreme": "largest deviation of a column from the mean of draws, in standard deviations",
    "direction": "place along the direction in which training data and draws differ most",
    "residual": "mean deviation of x from its reconstruction, in standard deviations",
    "worst_residual": "largest deviation of a column from its reconstruction, in standard "
    "deviations",
    "distance": "distance to the nearest training data point",
    "nearness": "distance to the nearest training data point over that to the next",
}
"""What the quantities are that are measured in any case."""

RESERVED = {*WORDS, "mean"}  # names of what is in the group already


def check_quantities(quantities: Any, x: Tensor) -> dict[str, Quantity]:
    r"""Refuse test quantities of the user that do not give one number for each data point.

    Arguments:
        quantities: From names to functions of ``x``, of shape (N, \*data_shape), to a tensor of
            shape (N,).
        x: Data to try them on, of shape (N, \*data_shape).

    Raises:
        InputError: Naming the quantity.

    Example:
        >>> sorted(check_quantities({"ink": lambda x: x.sum((-3, -2, -1))}, torch.ones(3, 1, 8, 8)))
        ['ink']
    """
    if quantities is None:
        return {}
    if not isinstance(quantities, Mapping):
        raise InputError(
            "quantities", f"must map names to functions of x, got {type(quantities).__name__}"
        )
    for name, quantity in quantities.items():
        culprit = f"the quantity {name!r}"
        if not isinstance(name, str) or not name.isidentifier():
            raise InputError(culprit, "must have a name of letters, digits and _")
        if name in RESERVED:
            raise InputError(culprit, "has the name of another quantity", "choose another")
        if not callable(quantity):
            raise InputError(culprit, f"must be a function of x, got {type(quantity).__name__}")
        found, part = measure(name, quantity, x), x[: -(-len(x) // 2)]
        if not np.allclose(found[: len(part)], measure(name, quantity, part), 1e-4, 1e-6):
            raise InputError(
                culprit, "depends on other data points, or on chance", "compute it row by row"
            )
    return dict(quantities)


def measure(name: str, quantity: Quantity, x: Tensor) -> np.ndarray:
    """A test quantity of the user, of each data point.

    Raises:
        InputError: If it raises an error, or does not give one finite number for each.
    """
    culprit = f"the quantity {name!r}"
    try:
        with torch.no_grad():
            found = quantity(x.clone())  # it may write into its argument
    except Exception as error:  # whatever the user's code raises
        raise InputError(culprit, f"raised {type(error).__name__}: {first_line(error)}") from error
    if not isinstance(found, Tensor):
        raise InputError(culprit, f"must give a tensor, got {type(found).__name__}")
    if found.shape != (len(x),):
        raise InputError(
            culprit,
            f"must give one number for each of {len(x)} data points, of shape ({len(x)},), got "
            f"shape {tuple(found.shape)}",
        )
    if found.is_complex() or not found.isfinite().all():
        raise InputError(culprit, "must give finite real numbers")
    return found.detach().cpu().double().numpy()


class Scale:
    """The mean and the standard deviation of each column of draws, as a unit.

    Arguments:
        x: Draws, of shape (N, columns).
    """

    def __init__(self, x: np.ndarray) -> None:
        self.mean, spread = x.mean(0), x.std(0)
        least = spread[spread > 0].min() if (spread > 0).any() else 1.0
        self.spread = np.where(spread > 0, spread, least)

    def of(self, x: np.ndarray) -> np.ndarray:
        """How far each value is from the mean, in standard deviations."""
        return (x - self.mean) / self.spread


def columns(x: Tensor) -> np.ndarray:
    """Data as an array of shape (N, columns)."""
    return x.flatten(1).double().cpu().numpy()


def size_of(deviations: np.ndarray) -> np.ndarray:
    """The root mean square of each row."""
    return np.sqrt(np.square(deviations).mean(1))


def largest(deviations: np.ndarray) -> np.ndarray:
    """The largest absolute value of each row."""
    return np.abs(deviations).max(1)


def of_data(x: Tensor, scale: Scale, quantities: Mapping[str, Quantity]) -> dict[str, np.ndarray]:
    """The quantities that need nothing but the data points themselves, and the user's."""
    values = columns(x)
    deviations = scale.of(values)
    return {
        "total": values.sum(1),
        "spread": values.std(1),
        "radius": size_of(deviations),
        "extreme": largest(deviations),
        **{name: measure(name, quantity, x) for name, quantity in quantities.items()},
    }
