"""Files that are written whole or not at all."""

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

LOG = logging.getLogger(__name__)
STEM = 40  # characters of a file's name that are kept in the temporary one: 255 bytes are all
TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{16}\.part(\.[^.]*)?")
_warned: set[int] = set()  # devices


class DurabilityWarning(UserWarning):
    """What was written may not outlast a power cut."""


def make_folder(folder: Path) -> None:
    """Make a folder, if it does not exist.

    Raises:
        InputError: If it cannot be made, or is a symbolic link, which may lead anywhere.
    """
    if folder.is_symlink():
        raise InputError(folder, "is a link, which may lead anywhere", "put a folder in its place")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot be made ({error.strerror})", "write elsewhere") from None


@contextmanager
def replacing(*files: Path, check: Callable[[], None] = lambda: None) -> Iterator[list[Path]]:
    """Write files under names of their own, and rename them once all are written and on the disk.

    Nobody else's file has such a name, and no two writers share one. Several files are renamed
    while their folder is locked, so that of two writers one has written all of them.

    Arguments:
        files: The files to write or replace, all in one folder.
        check: Called once the folder is open; it may refuse.

    Yields:
        The temporary path of each: an empty file, with the suffix of the file.

    Raises:
        InputError: If a file cannot be written. Then nothing has changed, unless only the renaming
            of a later file failed.

    Example:
        >>> with replacing(Path("a.txt")) as (temporary,):
        ...     count = temporary.write_text("whole")
        >>> Path("a.txt").read_text()
        'whole'
    """
    temporary: list[Path] = []
    try:
        with _opened(files[0].parent) as folder:
            check()
            for file in files:
                temporary.append(_make_temporary(file))  # noqa: PERF401 - if one fails, those before
            yield temporary
            for path in temporary:
                _flush(path)
            with _locked(folder) if len(files) > 1 else contextlib.nullcontext():
                for source, target in zip(temporary, files, strict=True):
                    _rename(source, target, folder)
                    LOG.debug("wrote %s", target)
            _flush_folder(folder, files[0].parent)
    except OSError as error:
        raise InputError(
            files[0],
            f"cannot be written ({error.strerror or error})",
            "make room, or write elsewhere",
        ) from None
    finally:
        with contextlib.suppress(OSError):  # in a folder where nothing was written
            for path in temporary:
                remove(path)


def name_of_leftover(name: str) -> str | None:
    """What a file was to be called that a crash has left half-written; ``None`` for all others.

    Example:
        >>> name_of_leftover(".a.0123456789abcdef.part.txt"), name_of_leftover(".a.txt")
        ('a.txt', None)
    """
    match = TEMPORARY.fullmatch(name)
    return f"{match[1]}{match[2] or ''}" if match else None


def _make_temporary(file: Path) -> Path:
    """Make an empty file beside another one, of a name that nothing has."""
    name = f".{file.stem[:STEM]}.{secrets.token_hex(8)}.part{file.suffix}"
    path = file.with_name(name)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # follows no link
    return path


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """A folder as a descriptor, which stays with it if it is moved; none on Windows."""
    if os.name == "nt":
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _rename(source: Path, target: Path, folder: int | None) -> None:
    """Rename a file in a folder, unless another folder is in its place by now."""
    if folder is None:
        os.replace(source, target)
        return
    if not os.path.samestat(os.fstat(folder), os.stat(target.parent)):
        raise OSError(errno.ESTALE, "another folder is in its place by now")
    os.replace(source.name, target.name, src_dir_fd=folder, dst_dir_fd=folder)


@contextmanager
def _locked(folder: int | None) -> Iterator[None]:
    """Keep other writers from renaming files in a folder, where the system can lock one."""
    if folder is None:
        yield
        return
    import fcntl

    with contextlib.suppress(OSError):  # some network file systems lock no folders
        fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents, if it exists.

    Raises:
        OSError: If it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Make the system write a file to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: int | None, path: Path) -> None:
    """Make the system write the names in a folder to the disk, where it does so for folders."""
    if folder is None:
        return
    try:
        os.fsync(folder)
    except OSError as error:
        device = os.fstat(folder).st_dev
        if device not in _warned:
            _warned.add(device)
            warnings.warn(
                f"the file system of {path} does not sync folders ({error.strerror}): after a "
                "power cut its newest files may be missing",
                DurabilityWarning,
                stacklevel=3,
            )
