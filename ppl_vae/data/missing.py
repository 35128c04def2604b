"""Values that are missing: filled with 0, beside a mask of those that were observed."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from .blocks import blocks

MASK = "mask"  # the covariate that says which values were observed


def fill_missing(array: np.ndarray) -> np.ndarray | None:
    """Put 0 where an array has NaN, in place, and say where that was; ``None`` if nowhere.

    Example:
        >>> array = np.array([[np.nan, 2.0]])
        >>> fill_missing(array), array
        (array([[ True, False]]), array([[0., 2.]]))
    """
    if array.dtype.kind != "f":
        return None
    missing = None
    for rows in blocks(array):
        where = np.isnan(array[rows])
        if where.any():
            missing = np.zeros(array.shape, bool) if missing is None else missing
            missing[rows] = where
            array[rows][where] = 0
    return missing


def observed(x: Tensor, covariates: Mapping[str, Tensor]) -> Tensor:
    """Which values of ``x`` were observed, of its shape: those of a mask of this shape, or all.

    Example:
        >>> observed(torch.zeros(1, 2), {"mask": torch.tensor([[True, False]])})
        tensor([[ True, False]])
        >>> observed(torch.zeros(1, 2), {})
        tensor([[True, True]])
    """
    mask = covariates.get(MASK)
    if mask is None or mask.shape != x.shape:
        return torch.ones((), dtype=torch.bool, device=x.device).expand(x.shape)  # of one byte
    return mask.bool()


def joint_mask(
    covariates: Mapping[str, Tensor], missing: np.ndarray | None, stored: Tensor, source: str
) -> dict[str, Tensor]:
    """Covariates with a mask of what was observed: what the user's mask hides was not either.

    Arguments:
        covariates: The user's, perhaps with a mask of the shape of ``x``.
        missing: Where ``x`` was NaN, as it is stored; the mask is made in its memory.
        stored: ``x``.
        source: What messages call the data.

    Raises:
        InputError: If the user's mask is of another shape.
    """
    given = covariates.get(MASK)
    if given is not None and given.shape != stored.shape:
        raise InputError(
            source,
            f"has missing values, and a mask of shape {tuple(given.shape)} beside data of "
            f"shape {tuple(stored.shape)}",
            "give one of the same shape, or none",
        )
    if missing is None:
        seen = torch.ones(stored.shape, dtype=torch.bool)
    else:
        seen = torch.from_numpy(np.logical_not(missing, out=missing))
    if given is not None:
        seen &= given.bool()
    return {**covariates, MASK: seen}
