"""NumPy's .npy and .npz files: plain numbers, and no more of them than the file holds."""

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError, first_line
from ..storage.memory import refuse_beyond_memory, regular_size

MEMBERS = 4  # no data set has more arrays: x and y, of training and test data
ZIP = (b"PK\x03\x04", b"PK\x05\x06")
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # numpy's; others are read unbounded
REMEDY = "save it again with numpy.save or numpy.savez"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file by name; that of an ``.npy`` file under the name ``x``.

    What headers claim is held against the size of the file, and against memory, before an array is
    made. Objects are never unpickled.

    Raises:
        InputError: If the file is broken, claims more than it holds, holds other things than plain
            arrays, or is too large.
    """
    size = regular_size(path)
    if not size:
        raise InputError(f"{path} cannot be read (it is empty): {REMEDY}")
    try:
        with path.open("rb") as stream:
            zipped = stream.read(4) in ZIP
            stream.seek(0)
            if zipped:
                with zipfile.ZipFile(stream) as archive:
                    return _members(path, archive)
            _check_header(stream, size)
            refuse_beyond_memory(size, str(path), "take fewer data")
            stream.seek(0)
            return {"x": np.lib.format.read_array(stream, allow_pickle=False)}
    except InputError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, MemoryError) as error:
        raise InputError(f"{path} cannot be read ({first_line(error)}): {REMEDY}") from None
    except Exception:  # whatever a broken header makes the reader raise
        raise InputError(
            f"{path} is truncated, or holds no plain array of numbers: {REMEDY}"
        ) from None


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    members = archive.infolist()
    if len(members) > MEMBERS:
        raise InputError(f"{path} holds {len(members)} arrays, expected at most {MEMBERS}")
    for member in members:
        if member.flag_bits & 1 or member.compress_type not in COMPRESSIONS:
            raise InputError(f"{path} is encrypted or compressed in another way: {REMEDY}")
    # A member never gives more bytes than its entry declares, whatever its stream expands to.
    refuse_beyond_memory(sum(m.file_size for m in members), str(path), "take fewer data")
    for member in members:
        with archive.open(member) as stream:
            _check_header(stream, member.file_size)
    arrays = {}
    for member in members:
        with archive.open(member) as stream:
            name = member.filename.removesuffix(".npy")
            arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def _check_header(stream: IO[bytes], size: int) -> None:
    """Raise ``ValueError`` unless an .npy file of that size holds what its header claims."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError("only headers of structured arrays have another version")
    if dtype.hasobject or not dtype.itemsize or min(shape, default=0) < 0:
        raise ValueError("no plain array")
    if stream.tell() + math.prod(shape) * dtype.itemsize > size:
        raise ValueError("truncated")
