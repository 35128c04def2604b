"""HDF5 files from strangers, looked through before anything in them is read."""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5o, h5z

from ..errors import InputError
from .memory import refuse_beyond_memory, regular_size

# Those that are part of HDF5; it would look for others, and run them.
FILTERS = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32}
REFERENCES = {"DIMENSION_LIST", "REFERENCE_LIST"}  # netCDF's own, between variables and dimensions
NUMBER, TEXT = 8, 64  # bytes that one takes at most, once it is decoded
TEXTS, TEXT_BYTES = 100_000, 2**24
REMEDY = "run ppl-vae diagnose again"


def refuse_hostile(file: Path) -> None:
    """Refuse a file that leads to other files, or holds more than numbers and some text.

    A link, a data set whose values lie in a file beside it, and one that is a view of others may
    show what its reader can read and its writer could not. A data set takes its full size in
    memory, and none in the file where it was never written to; so does text that all elements
    share.

    Raises:
        InputError: Naming the object.
        Exception: Whatever h5py raises if it is no HDF5 file.
    """
    size = regular_size(file)
    with h5py.File(file, "r") as opened:
        taken = _look_through(file, opened, size, set())
    refuse_beyond_memory(taken, str(file), REMEDY)


def _look_through(file: Path, group: Any, file_size: int, seen: set[Any]) -> int:
    """What a group takes in memory, with all that is in it."""
    address = h5o.get_info(group.id).addr
    if address in seen:
        raise InputError(f"{file}: group {group.name} is its own ancestor: {REMEDY}")
    seen.add(address)
    taken = _attributes(file, group, file_size)
    for name in group:
        place = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InputError(f"{file}: {place} is a link to elsewhere: {REMEDY}")
        item = group[name]
        if isinstance(item, h5py.Group):
            taken += _look_through(file, item, file_size, seen)
        elif isinstance(item, h5py.Dataset):
            taken += _attributes(file, item, file_size) + _values(file, item)
        else:
            raise InputError(f"{file}: {place} is neither a group nor an array: {REMEDY}")
    return taken


def _values(file: Path, dataset: Any) -> int:
    """What the values of a data set take in memory."""
    if dataset.external is not None or dataset.is_virtual:
        raise InputError(f"{file}: the values of {dataset.name} lie in other files: {REMEDY}")
    stored = dataset.id.get_create_plist()
    for i in range(stored.get_nfilters()):
        if stored.get_filter(i)[0] not in FILTERS:
            raise InputError(f"{file}: {dataset.name} has a filter that is unknown: {REMEDY}")
    count = max(math.prod(dataset.shape or ()), math.prod(dataset.chunks or ()))
    if not _is_text(dataset.dtype):
        return count * _width(file, dataset.name, dataset.dtype)
    length = 0
    if count <= TEXTS:
        for index in np.ndindex(dataset.shape):  # one by one, for all may be the same long one
            length += len(dataset[index])
            if length > TEXT_BYTES:
                break
    if count > TEXTS or length > TEXT_BYTES:
        raise InputError(f"{file}: {dataset.name} has more text than a diagnosis: {REMEDY}")
    return count * TEXT + 4 * length


def _attributes(file: Path, item: Any, file_size: int) -> int:
    """What attributes take in memory."""
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
        raise InputError(f"{file}: {name} holds neither numbers nor text: {REMEDY}")
    return max(NUMBER, dtype.itemsize)
