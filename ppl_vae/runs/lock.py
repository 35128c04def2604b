"""A run directory while it is being fitted: locked, and known again if it is moved."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError

LOCK = ".lock"


def refuse_busy(folder: Path) -> None:
    """Say that a directory is being fitted, if it is: what is wrong there may be right soon.

    Raises:
        InputError: If a process has locked it.
    """
    if not os.path.isfile(folder / LOCK):  # Path.is_file raises where a name is too long
        return
    try:
        Hold(folder).release()
    except OSError:
        return
    except InputError as error:
        raise InputError(folder, "is being written by another process", "try again") from error


class Hold:
    """Locks a directory until :meth:`release`, or until the process dies.

    Arguments:
        folder: The directory.

    Raises:
        InputError: If another process has locked it, or its lock is no file of ours.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, file = folder, folder / LOCK
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise InputError(file, "is not a file that a fit has made", "remove it")
        self._lock = FileLock(file)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                folder, "is being fitted by another process", "wait for it, or stop it"
            ) from None
        # A descriptor stays with the directory that was locked; Windows opens none, and moves none.
        self._handle = None if os.name == "nt" else os.open(folder, os.O_RDONLY)

    def require_place(self) -> None:
        """Refuse to write if the directory lies elsewhere by now.

        Raises:
            InputError: If it was moved or removed, or another is in its place.
        """
        if self._handle is None:
            return
        try:
            same = os.path.samestat(os.fstat(self._handle), os.stat(self.folder))
        except OSError:
            same = False
        if not same:
            problem = "was moved or removed while it was being fitted"
            raise InputError(self.folder, problem, "resume it where it is now")

    def release(self) -> None:
        """Give the lock back."""
        self._lock.release()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
