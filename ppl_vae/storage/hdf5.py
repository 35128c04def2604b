"""HDF5 files from strangers, checked before any data in them are read."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5o, h5z

from ..errors import InputError
from .memory import refuse_beyond_memory, regular_size

# Those that are part of HDF5; it would search for the code of others, and run it.
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
REFERENCES = {"DIMENSION_LIST", "REFERENCE_LIST"}  # netCDF's, between variables and dimensions
REMEDY = "diagnose-again"
NUMBER, TEXT = 8, 64  # bytes that one takes at most in memory
TEXTS, TEXT_BYTES = 100_000, 2**24  # more than any diagnosis has


def refuse_hostile(file: Path) -> None:
    """Refuse a file that refers to other files, or holds anything but numbers and some text.

    A link, a data set with external storage and a virtual one give access to files that the reader
    may read and the writer of this one may not. A data set that was never written to takes no
    space in the file, and its full size in memory; so does one text that all elements share.

    Raises:
        InputError: Naming the object.
        Exception: Whatever h5py raises if it is not an HDF5 file.
    """
    size = regular_size(file)
    with h5py.File(file, "r") as opened:
        taken = _group_bytes(file, opened, size, set())
    refuse_beyond_memory(taken, file, REMEDY)


def _refusal(file: Path, problem: str) -> InputError:
    return InputError(file, problem, REMEDY)


def _group_bytes(file: Path, group: Any, file_size: int, seen: set[Any]) -> int:
    """Memory that a group takes with its contents, in bytes."""
    address = h5o.get_info(group.id).addr
    if address in seen:
        raise _refusal(file, f"holds a group {group.name} that contains itself")
    seen.add(address)
    taken = _attribute_bytes(file, group, file_size)
    for name in group:
        place = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise _refusal(file, f"holds a link {place}")
        item = group[name]
        if isinstance(item, h5py.Group):
            taken += _group_bytes(file, item, file_size, seen)
        elif isinstance(item, h5py.Dataset):
            taken += _attribute_bytes(file, item, file_size) + _value_bytes(file, item)
        else:
            raise _refusal(file, f"holds {place}, which is neither a group nor an array")
    return taken


def _value_bytes(file: Path, dataset: Any) -> int:
    """Memory that the values of a data set take, in bytes."""
    if dataset.external is not None or dataset.is_virtual:
        raise _refusal(file, f"stores the values of {dataset.name} in other files")
    stored = dataset.id.get_create_plist()
    for i in range(stored.get_nfilters()):
        if stored.get_filter(i)[0] not in FILTERS:
            raise _refusal(file, f"stores {dataset.name} with an unknown filter")
    count = max(math.prod(dataset.shape or ()), math.prod(dataset.chunks or ()))
    if not _is_text(dataset.dtype):
        return count * _width(file, dataset.name, dataset.dtype)
    length = 0
    if count <= TEXTS:
        for index in np.ndindex(dataset.shape):  # one by one: all may be the same long one
            length += len(dataset[index])
            if length > TEXT_BYTES:
                break
    if count > TEXTS or length > TEXT_BYTES:
        raise _refusal(file, f"has more text in {dataset.name} than a diagnosis has")
    return count * TEXT + 4 * length


def _attribute_bytes(file: Path, item: Any, file_size: int) -> int:
    """Memory that attributes take, in bytes."""
    taken = 0
    for name in item.attrs:
        stored = item.attrs.get_id(name)
        count = math.prod(stored.shape)
        if _is_text(stored.dtype) or name in REFERENCES:
            taken += count * (TEXT + 4 * file_size)  # no text is longer than the file
        else:
            taken += count * _width(file, f"{item.name}, {name}", stored.dtype)
    return taken


def _is_text(dtype: np.dtype) -> bool:
    info = h5py.check_string_dtype(dtype)
    return info is not None and info.length is None


def _width(file: Path, name: str, dtype: np.dtype) -> int:
    if dtype.kind == "S":
        return TEXT + 4 * dtype.itemsize
    if dtype.kind not in "biuf" or h5py.check_ref_dtype(dtype) is not None:
        raise _refusal(file, f"holds {name}, which is neither numbers nor text")
    return max(NUMBER, dtype.itemsize)
