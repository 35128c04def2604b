"""Files that are written whole or not at all."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError

LOG = logging.getLogger(__name__)


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
def replacing(*files: Path) -> Iterator[list[Path]]:
    """Write files under temporary names, and rename them once all are written and on the disk.

    Arguments:
        files: The files to write or replace, all in one folder.

    Yields:
        The temporary path of each.

    Raises:
        InputError: If a file cannot be written. Then nothing has changed, unless only the renaming
            of a later file failed.

    Example:
        >>> with replacing(Path("a.txt")) as (temporary,):
        ...     count = temporary.write_text("whole")
        >>> Path("a.txt").read_text()
        'whole'
    """
    temporary = [temporary_path(file) for file in files]
    try:
        for path in temporary:
            remove(path)  # writing would follow a link
        yield temporary
        for path in temporary:
            _flush(path)
        for source, target in zip(temporary, files, strict=True):
            os.replace(source, target)
            LOG.debug("wrote %s", target)
        _flush(files[0].parent)
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


def temporary_path(file: Path) -> Path:
    """Where a file is written before it is renamed. A file already there is left from a crash."""
    return file.with_name(f".{file.name}")


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
    """Make the system write a file, or the names in a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
