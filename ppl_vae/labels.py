"""Arrays with names, units and meanings; numbers that add up as they are printed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor


def variable(
    dims: str | Sequence[str], values: Tensor | np.ndarray, meaning: str, units: str = "1"
) -> tuple[Sequence[str], np.ndarray, dict[str, str]]:
    """A labelled array: its dimensions, its values, and what they are.

    Arguments:
        dims: Names of the dimensions.
        values: The array.
        meaning: What it is, with its source.
        units: Its unit.
    """
    array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    return names, array, {"long_name": meaning, "units": units}


def round_together(
    values: Mapping[str, Any], identities: Mapping[str, tuple[str, str]], decimals: int
) -> dict[str, Any]:
    """Round numbers, or columns of them, so that what is printed adds up.

    Numbers that are rounded one by one need not: 1.4 = 0.9 + 0.5 turns into 1 = 1 + 1. Hence a
    difference is taken of what it is the difference of, once that is rounded; by that it is off by
    at most one and a half in the last decimal, and more where differences are taken of differences.

    Arguments:
        values: Numbers or columns by name.
        identities: Names of differences, each with what is taken from what; one may be of another
            that stands before it.
        decimals: How many to leave.

    Returns:
        Those that stand in an identity, rounded.

    Example:
        >>> values = {"elbo": -1.4, "reconstruction": -0.9, "kl": 0.5}
        >>> round_together(values, {"kl": ("reconstruction", "elbo")}, 0)
        {'reconstruction': -1.0, 'elbo': -1.0, 'kl': 0.0}
    """
    found = {
        name: round(values[name], decimals) + 0.0  # no -0.0
        for pair in identities.values()
        for name in pair
        if name in values
    }
    for name, (whole, part) in identities.items():
        if name in values and whole in values and part in values:
            found[name] = round(found[whole] - found[part], decimals) + 0.0
    return found
