"""What may be taken into memory: regular files, and no more than there is room for."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..errors import InputError

SHARE = 0.5  # of all memory, for one thing: what is made of it takes the rest
LARGEST_TEXT = 50_000_000  # bytes; a config has hundreds, and metrics a hundred an epoch
UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def regular_size(file: Path) -> int:
    """The size of a file in bytes, if it is one: nothing else may be opened, for it may never end.

    Raises:
        InputError: If it is not there, or is a folder, a pipe, a device or the like.

    Example:
        >>> regular_size(Path("/dev/zero"))
        Traceback (most recent call last):
        ppl_vae.errors.InputError: /dev/zero is no regular file: copy what it holds into one
    """
    try:
        found = file.stat()
    except (OSError, ValueError) as error:  # of a loop of links, of a zero in its name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} cannot be read ({reason}): check the path") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{file} is no regular file: copy what it holds into one")
    return found.st_size


def read_text(file: Path) -> str:
    """The text of a file of ours, which are small: what is larger than any of them is not read.

    Raises:
        InputError: If it is no regular file, or larger.
        OSError, UnicodeDecodeError: If it cannot be read.
    """
    if regular_size(file) > LARGEST_TEXT:
        raise InputError(
            f"{file} is larger than {_readable(LARGEST_TEXT)}: it was not written here"
        )
    return file.read_text(encoding="utf-8")


def refuse_beyond_memory(size: int, culprit: str, remedy: str) -> None:
    """Refuse what would take more than half of the memory, before it is taken.

    Arguments:
        size: What it would take, in bytes.
        culprit: What would take it.
        remedy: What to do about it.

    Raises:
        InputError: If it would.

    Example:
        >>> refuse_beyond_memory(1000, "a.npy", "take fewer data")
        >>> refuse_beyond_memory(8 * 10**18, "a.npy", "take fewer data")
        Traceback (most recent call last):
        ppl_vae.errors.InputError: a.npy would take 8.0 EB of memory, more than half of the ...
    """
    limit = memory_limit()
    if limit is not None and size > SHARE * limit:
        raise InputError(
            f"{culprit} would take {_readable(size)} of memory, more than half of the "
            f"{_readable(limit)} here: {remedy}"
        )


def memory_limit() -> int | None:
    """How many bytes this process may have: what the machine has, its container or its own limit
    allows, whichever is least; ``None`` where nothing tells."""
    return min((*_of_machine(), *_of_container(), *_of_process()), default=None)


def _of_machine() -> Iterator[int]:
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_container() -> Iterator[int]:
    """The limits of the control groups, version 2 and 1, that this process is in."""
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
