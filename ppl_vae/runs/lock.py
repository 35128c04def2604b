"""The lock on a run directory while it is being fitted."""

from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError


def take_lock(file: Path) -> FileLock:
    """Lock the directory of a file until the lock is released, or the process dies.

    Raises:
        InputError: If another process has locked it, or the file is not a lock.
    """
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise InputError(file, "is not a file that a fit has made", "remove it")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            file.parent, "is being fitted by another process", "wait for it, or stop it"
        ) from None
    return lock
