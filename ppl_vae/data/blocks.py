"""Large arrays checked, converted and put in order a block at a time: no second one of their size
is ever there."""

from collections.abc import Callable, Iterator

import numpy as np

BLOCK = 2**22  # bytes at once
LARGE = 2**24  # bytes of an array that is put in order in place, which takes longer than a copy
SHARE = 16  # of a large array, the part that is copied meanwhile
FEW = 8  # numbers in a row, each of which would be a large part


def blocks(array: np.ndarray) -> Iterator[slice]:
    """The rows of an array, so many at a time that their values take a block.

    Example:
        >>> [*blocks(np.zeros((3, 2**18)))]
        [slice(0, 2, None), slice(2, 4, None)]
    """
    size = max(1, BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), size):
        yield slice(start, start + size)


def holds(array: np.ndarray, condition: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Whether all values of an array satisfy a condition.

    Example:
        >>> holds(np.ones(3), np.isfinite)
        True
    """
    if not array.ndim:
        return bool(condition(array))
    return all(bool(condition(array[rows]).all()) for rows in blocks(array))


def are_zeros_and_ones(array: np.ndarray) -> bool:
    """Whether an array of numbers or booleans holds nothing else."""
    return array.dtype == bool or holds(array, lambda part: (part == 0) | (part == 1))


def are_whole(array: np.ndarray) -> bool:
    """Whether all numbers are whole."""
    return holds(array, lambda part: part == np.round(part))


def channels_first(array: np.ndarray, ours: bool) -> np.ndarray:
    """Images of shape (N, height, width, channels) as (N, channels, height, width): a view, or, of
    an array that is ``ours``, the same memory in another order.

    Example:
        >>> channels_first(np.zeros((5, 4, 3, 2)), ours=True).shape
        (5, 2, 4, 3)
    """
    if not (ours and _is_plain(array)):
        return array.transpose(0, 3, 1, 2)
    count, height, width, channels = array.shape
    turned = array.reshape(count, channels, height, width)
    for rows in blocks(array):
        turned[rows] = array[rows].transpose(0, 3, 1, 2).copy()
    return turned


def bring(
    array: np.ndarray, dtype: type | np.dtype, order: np.ndarray | None = None, *, ours: bool
) -> np.ndarray:
    """The rows of an array in some order, and of some type, as a C-contiguous array of our own.

    Arguments:
        array: Of shape (N, ...).
        dtype: The type.
        order: A permutation of the rows; as they are, if left out.
        ours: Whether nobody else needs the array, so that its memory may be used.

    Example:
        >>> bring(np.arange(3), np.float32, np.array([2, 0, 1]), ours=False)
        array([2., 0., 1.], dtype=float32)
    """
    dtype = np.dtype(dtype)
    if array.dtype == bool and dtype == np.uint8:
        array = array.view(np.uint8)
    if ours and _is_plain(array) and dtype.itemsize <= array.dtype.itemsize:
        array = _narrowed(array, dtype)
        if order is None:
            return array
        if array.nbytes >= LARGE:
            _reorder(array, order)
            return array
    found = np.empty(array.shape, dtype)
    for rows in blocks(found):
        found[rows] = array[rows if order is None else order[rows]]
    return found


def _is_plain(array: np.ndarray) -> bool:
    return bool(array.flags.c_contiguous and array.flags.writeable)


def _narrowed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array as one of a type that takes no more memory, in the same memory."""
    if array.dtype == dtype:
        return array
    flat = array.reshape(-1)
    target = flat.view(dtype)[: flat.size]
    for part in blocks(flat):  # which begin no later in the target, so that none is overwritten
        target[part] = flat[part].astype(dtype)
    if array.base is None and array.flags.owndata:
        shape, count = array.shape, array.size
        del flat, target
        # Nobody else has it, so that no view of it is left: the rest goes back to the system.
        array.resize(-(-count * dtype.itemsize // array.itemsize), refcheck=False)
        return array.view(dtype)[:count].reshape(shape)
    return target.reshape(array.shape)


def _reorder(array: np.ndarray, order: np.ndarray) -> None:
    """Put the rows of an array in another order, some columns of their bytes at a time."""
    flat = array.reshape(len(array), -1)
    if flat.shape[1] < FEW:  # less than a number at once
        flat = flat.view(np.uint8)
    width = max(1, flat.shape[1] // SHARE)
    for start in range(0, flat.shape[1], width):
        part = slice(start, start + width)
        flat[:, part] = flat[:, part][order]
