"""Values that are missing: filled with 0, beside a mask of those that were observed."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

MASK = "mask"  # the covariate that says which values were observed


def fill_missing(array: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """An array with 0 for NaN, and where it had NaN; ``None`` if nowhere.

    Example:
        >>> fill_missing(np.array([[np.nan, 2.0]]))
        (array([[0., 2.]]), array([[ True, False]]))
    """
    if array.dtype.kind != "f":
        return array, None
    missing = np.isnan(array)
    if not missing.any():
        return array, None
    return np.where(missing, array.dtype.type(0), array), missing


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
        return torch.ones_like(x, dtype=torch.bool)
    return mask.bool()


def with_mask(covariates: Mapping[str, Tensor], stored: Tensor) -> dict[str, Tensor]:
    """Covariates whose ``mask`` is of booleans, if it is one of zeros and ones for each value of x.

    Files keep masks as numbers, which no distribution can be masked with.

    Example:
        >>> with_mask({"mask": torch.tensor([[1, 0]])}, torch.zeros(1, 2))
        {'mask': tensor([[ True, False]])}
    """
    mask = covariates.get(MASK)
    if mask is None or mask.shape != stored.shape or not ((mask == 0) | (mask == 1)).all():
        return {**covariates}
    return {**covariates, MASK: mask.bool()}


def joint_mask(
    covariates: Mapping[str, Tensor], missing: np.ndarray | None, stored: Tensor, source: str
) -> dict[str, Tensor]:
    """Covariates with a mask of what was observed: what the user's mask hides was not either.

    Arguments:
        covariates: The user's, perhaps with a mask of the shape of ``x``.
        missing: Where ``x`` was NaN, in the order of its channels as stored.
        stored: ``x``.
        source: What messages call the data.

    Raises:
        InputError: If the user's mask is of another shape.
    """
    seen = torch.ones(stored.shape, dtype=torch.bool)
    if missing is not None:
        seen = ~torch.from_numpy(missing).reshape(stored.shape)
    if MASK in covariates:
        given = covariates[MASK]
        if given.shape != stored.shape:
            raise InputError(
                source,
                f"has missing values, and a mask of shape {tuple(given.shape)} beside data of "
                f"shape {tuple(stored.shape)}",
                "give one of the same shape, or none",
            )
        seen = seen & given.bool()
    return {**covariates, MASK: seen}
