"""Files that are written whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        InputError: If it cannot be made, or is a link, which may lead anywhere.
    """
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, and may lead anywhere: put a folder in its place")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): write elsewhere") from None


@contextmanager
def replacing(*files: Path) -> Iterator[list[Path]]:
    """Write under other names, and take the real ones once all is written and on the disk.

    Arguments:
        files: What is to be there in the end, all in one folder.

    Yields:
        Where to write instead, one path for each.

    Raises:
        InputError: If something cannot be written; then nothing has changed, unless it is a later
            file whose name cannot be taken.

    Example:
        >>> with replacing(Path("a.txt")) as (temporary,):
        ...     count = temporary.write_text("whole")
        >>> Path("a.txt").read_text()
        'whole'
    """
    temporary = [temporary_path(file) for file in files]
    try:
        for path in temporary:
            remove(path)  # a link there would be followed
        yield temporary
        for path in temporary:
            _flush(path)
        for source, target in zip(temporary, files, strict=True):
            os.replace(source, target)
        _flush(files[0].parent)
    except OSError as error:
        raise InputError(
            f"{files[0]} cannot be written ({error.strerror or error}): make room, or write "
            "elsewhere"
        ) from None
    finally:
        with contextlib.suppress(OSError):  # where nothing can be removed, nothing was written
            for path in temporary:
                remove(path)


def temporary_path(file: Path) -> Path:
    """Where a file is written before it takes its name: what is there was left by a crash."""
    return file.with_name(f".{file.name}")


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it, if it is there.

    Raises:
        OSError: If it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
