"""What is raised when the user's input is at fault."""

from numbers import Integral
from typing import Any


class InputError(ValueError):
    """The input cannot be used: one line that names the culprit and the remedy.

    The shell prints it and exits with code 2. What cannot be printed, such as a line break in the
    name of a file, is escaped.

    Example:
        >>> str(InputError("a\\nb is no file"))
        'a\\\\nb is no file'
    """

    def __init__(self, message: str) -> None:
        printable = (c if c.isprintable() else repr(c)[1:-1] for c in message)
        super().__init__("".join(printable))


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
