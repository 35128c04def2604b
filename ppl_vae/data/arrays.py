"""NumPy's .npy and .npz files. Headers are checked before memory is taken; no object is loaded."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size, tell_lack_of_memory
from .blocks import BLOCK, blocks
from .reading import Reading

MAX_ARRAYS = 16
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # numpy's; others have no size limit
REMEDY = "save it again with numpy.save or numpy.savez"
PARTS = ("_train", "_test")


def read_numpy(path: Path, reading: Reading | None = None) -> dict[str, Any]:
    """The arguments for :func:`ppl_vae.make_data` in an ``.npy`` or ``.npz`` file.

    An ``.npz`` file holds ``x``, ``y`` with labels if there are any, and covariates of any other
    names; or all of these as ``NAME_train`` and ``NAME_test``. One array alone may have any name.

    Raises:
        InputError: If the file cannot be read, or its names do not say what the arrays are.
    """
    arrays = read_arrays(path)
    if len(arrays) == 1:
        return {"x": next(iter(arrays.values()))}
    if "x" in arrays and not any(name.endswith(PARTS) for name in arrays):
        return {"x": arrays.pop("x"), "labels": arrays.pop("y", None), "covariates": arrays}
    if not {"x_train", "x_test"} <= arrays.keys():
        raise InputError(
            path,
            f"holds the arrays {', '.join(arrays) or '(none)'}",
            "name them x and, for labels, y, or x_train and x_test and, for labels, y_train and "
            "y_test",
        )
    train, test = (
        {name.removesuffix(part): a for name, a in arrays.items() if name.endswith(part)}
        for part in PARTS
    )
    paired = train.keys() & test.keys() | {"y"}
    known = {name + part for name in paired for part in PARTS}
    if unpaired := arrays.keys() - known:
        raise InputError(
            path,
            f"holds the array {min(unpaired)} beside x_train and x_test",
            "give each array of the training data, NAME_train, one of the test data, NAME_test",
        )
    held_out = (test.pop("x"), test.pop("y", None), test)
    x, labels = train.pop("x"), train.pop("y", None)
    return {"x": x, "labels": labels, "covariates": train, "test": held_out}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name; that of an ``.npy`` file under the name ``x``.

    The sizes that headers claim are compared with the size of the file, and with memory, before an
    array is allocated. Objects are never unpickled.

    Raises:
        InputError: If the file is broken, claims more than it holds, holds anything but plain
            arrays, or is too large.
    """
    size = regular_size(path)
    if not size:
        raise InputError(path, "is empty", REMEDY)
    try:
        with path.open("rb") as stream:
            zipped = stream.read(4) in ZIP
            stream.seek(0)
            if zipped:
                with zipfile.ZipFile(stream) as archive:
                    return _members(path, archive)
            refuse_beyond_memory(size, path, "take fewer data")
            return {"x": _read_array(stream, size)}
    except InputError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        tell_lack_of_memory(error, path)
        raise InputError(path, f"cannot be read ({first_line(error)})", REMEDY) from None
    except Exception:  # whatever a broken header makes the reader raise
        raise InputError(path, "is truncated, or not a plain array of numbers", REMEDY) from None


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = archive.infolist()
    if len(members) > MAX_ARRAYS:
        raise InputError(
            path,
            f"holds {len(members)} arrays, more than the {MAX_ARRAYS} that are read",
            "save those alone that the program takes",
        )
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in COMPRESSIONS:
            raise InputError(path, "is encrypted, or compressed by another method", REMEDY)
    # zipfile gives no more bytes of a member than its entry declares.
    refuse_beyond_memory(sum(m.file_size for m in members), path, "take fewer data")
    for member in members:
        with archive.open(member) as stream:
            try:
                _read_header(stream, member.file_size)
            except _ObjectsError:
                name = member.filename.removesuffix(".npy")
                raise InputError(
                    path, f"holds an array of objects, {name!r}", "save it again without that one"
                ) from None
    arrays = {}
    for member in members:
        with archive.open(member) as stream:
            name = member.filename.removesuffix(".npy")
            arrays[name] = _read_array(stream, member.file_size)
    return arrays


class _ObjectsError(ValueError):
    """Objects are pickled, and a pickle may run code."""


def _read_array(stream: IO[bytes], size: int) -> np.ndarray:
    """The array of an .npy file of that size, in C order, with no second one beside it."""
    shape, is_fortran, dtype = _read_header(stream, size)
    array = np.empty(shape, dtype)
    if array.size:
        _fill(array.T if is_fortran else array, stream)
    return array


def _fill(array: np.ndarray, stream: IO[bytes]) -> None:
    """Read values into an array, which need not be contiguous, in the order of its indices."""
    if array.ndim > 1 and array[0].nbytes > BLOCK:
        for part in array:
            _fill(part, stream)
        return
    for rows in blocks(array) if array.ndim else (...,):
        part = np.empty(array[rows].shape, array.dtype)
        content = part.reshape(-1).view(np.uint8).data
        while content:
            if not (count := stream.readinto(content)):  # type: ignore[attr-defined]
                raise ValueError("truncated")
            content = content[count:]
        array[rows] = part


def _read_header(stream: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns come first, and type; ``ValueError`` unless an .npy file of that size
    holds what its header claims."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError("other versions are for structured arrays")
    if dtype.hasobject:
        raise _ObjectsError
    if not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError("not a plain array")
    if stream.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError("truncated")
    return shape, is_fortran, dtype
