"""What is raised when the user's input is at fault."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any


class InputError(ValueError):
    """The input cannot be used: one line that names the culprit and the remedy.

    The shell prints it and exits with code 2. Names in it may be a stranger's: line feeds, and what
    would command a terminal, are written as escapes.

    Example:
        >>> print(InputError("a\\nb.npy is broken"))
        a\\nb.npy is broken
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Text without characters that move the cursor, change direction or end the line.

    Example:
        >>> printable("a\x1b[2Jb ± \u202ec")
        'a\\x1b[2Jb ± \\u202ec'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for quoting it inside an :class:`InputError`."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def whole(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number, as Python's own.

    Raises:
        InputError: If it is none, or below the least that makes sense.

    Example:
        >>> whole("draws", 0)
        Traceback (most recent call last):
        ppl_vae.errors.InputError: draws must be a whole number of at least 1, got 0
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def instance(name: str, value: Any, kind: type) -> None:
    """Refuse an argument of another type.

    Raises:
        InputError: Naming the argument, and both types.
    """
    if not isinstance(value, kind):
        raise InputError(f"{name} must be of type {kind.__name__}, not {type(value).__name__}")


def as_path(name: str, value: Any) -> Path:
    """A path, its ``~`` expanded.

    Raises:
        InputError: If it is none, or there is no such user.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name} must be a path, not {type(value).__name__}")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise InputError(f"{value} begins with no user's name: write the path in full") from None


def check_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a datum, as whole numbers.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise InputError(f"data_shape must hold whole numbers, such as (1, 28, 28), got {shape!r}")
    return tuple(whole("data_shape", size) for size in shape)


@contextmanager
def running(program: Any, shape: Sequence[int]) -> Iterator[None]:
    """Run a program on data of some shape, and turn whatever it raises into one line.

    Raises:
        InputError: Naming its class and the shape of a datum.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise InputError(
            f"{type(program).__name__} does not run on data of shape {tuple(shape)} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error
