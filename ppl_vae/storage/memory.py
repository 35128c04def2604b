"""Limits on what is read into memory: regular files only, and at most half of the memory."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import InputError

SHARE = 0.5  # of all memory, for one object: what is computed from it needs the rest
LARGEST_TEXT = 50_000_000  # bytes; a config has hundreds, metrics a hundred for each epoch
# How torch, the system, and what is written in Rust and C++ say it.
LACKING = ("allocate memory", "out of memory", "not enough memory", "bad_alloc", "bad alloc")
UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def regular_size(file: Path) -> int:
    """The size of a regular file in bytes. Others must not be opened: reading may never end.

    Raises:
        InputError: If it does not exist, or is a folder, a pipe, a device or the like.

    Example:
        >>> regular_size(Path("/dev/zero"))
        Traceback (most recent call last):
        ppl_vae.errors.InputError: /dev/zero is not a regular file: copy its contents into one
    """
    try:
        found = file.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(file, f"cannot be read ({reason})", "check the path") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(file, "is not a regular file", "copy its contents into one")
    return found.st_size


def read_text(file: Path) -> str:
    """The text of a file that this package wrote: these are small, so a large one is not read.

    Raises:
        InputError: If it is not a regular file, or is larger than any that is written here.
        OSError, UnicodeDecodeError: If it cannot be read.
    """
    if regular_size(file) > LARGEST_TEXT:
        raise InputError(
            file, f"is larger than {_readable(LARGEST_TEXT)}, so it was not written by ppl_vae"
        )
    return file.read_text(encoding="utf-8")


def refuse_beyond_memory(size: int, culprit: str | Path, remedy: str) -> None:
    """Refuse an object that would take more than half of the memory, before it is allocated.

    Arguments:
        size: Its size in bytes.
        culprit: What would take the memory; see :class:`ppl_vae.InputError`.
        remedy: What to do about it; see :class:`ppl_vae.InputError`.

    Raises:
        InputError: If it is too large.

    Example:
        >>> refuse_beyond_memory(1000, "a.npy", "take fewer data")
        >>> refuse_beyond_memory(8 * 10**18, "a.npy", "take fewer data")
        Traceback (most recent call last):
        ppl_vae.errors.InputError: a.npy would take 8.0 EB of memory, more than half of the ...
    """
    limit = memory_limit()
    if limit is not None and size > SHARE * limit:
        raise InputError(
            culprit,
            f"would take {_readable(size)} of memory, more than half of the "
            f"{_readable(limit)} here",
            remedy,
        )


def is_lack_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that there is too little memory, be it Python's, torch's or another's.

    Example:
        >>> is_lack_of_memory(MemoryError()), is_lack_of_memory(ValueError("bad magic number"))
        (True, False)
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    said = str(error).lower()
    return isinstance(error, Exception) and any(words in said for words in LACKING)


def tell_lack_of_memory(error: BaseException, culprit: str | Path) -> None:
    """Where an error says that there is too little memory, say so, and not that a file is broken.

    Raises:
        InputError: If it says so.

    Example:
        >>> tell_lack_of_memory(MemoryError(), "a.npy")
        Traceback (most recent call last):
        ppl_vae.errors.InputError: a.npy does not fit into the memory that is free: free some, ...
    """
    if is_lack_of_memory(error):
        raise InputError(
            culprit, "does not fit into the memory that is free", "free some, and try again"
        ) from None


def memory_limit() -> int | None:
    """How many bytes this process may use: the least of the machine's memory, the limit of its
    container and that of the process; ``None`` if none is known."""
    return min((*_of_machine(), *_of_container(), *_of_process()), default=None)


def _of_machine() -> Iterator[int]:
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_container() -> Iterator[int]:
    """The limits of this process's control groups, of versions 2 and 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if not controllers:
            root, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        inner = root / place.lstrip("/")
        for folder in (inner, *inner.parents):
            with suppress(OSError, ValueError):  # "max" is no limit
                yield int((folder / name).read_text())


def _of_process() -> Iterator[int]:
    with suppress(ImportError):  # Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _readable(size: int) -> str:
    power = min(len(UNITS) - 1, (len(str(size)) - 1) // 3)
    tenths = size * 10 // 1000**power
    return f"{tenths // 10}.{tenths % 10} {UNITS[power]}"
