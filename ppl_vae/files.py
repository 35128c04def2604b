"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        InputError: If it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): write elsewhere") from None


@contextmanager
def replacing(*files: Path) -> Iterator[list[Path]]:
    """Write under other names, and take the real ones once all is written.

    Arguments:
        files: What is to be there in the end.

    Yields:
        Where to write instead, one path for each.

    Raises:
        InputError: If something cannot be written; then nothing has changed.

    Example:
        >>> with replacing(Path("a.txt")) as (temporary,):
        ...     count = temporary.write_text("whole")
        >>> Path("a.txt").read_text()
        'whole'
    """
    temporary = [file.with_name(f".{file.name}") for file in files]
    try:
        yield temporary
        for source, target in zip(temporary, files, strict=True):
            os.replace(source, target)
    except OSError as error:
        raise InputError(f"{files[0]} cannot be written ({error.strerror or error})") from None
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
