"""What is raised when the user's input is at fault."""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

REMEDIES = {
    "another-path": "choose another path",
    "another-device": 'use device="cpu"',
    "binarize-or-gaussian": "rescale them, or use binarize='none' and a Gaussian likelihood",
    "code-beside": "add its folder to sys.path, if you trust what lies there",
    "column-names": "give the name of a column that there is",
    "data-dir": "place {files} in {folder}, or name another folder as data_dir",
    "date": "make it a number, such as days since a date, or leave it out, with drop = True in "
    "Reading(schema={{{column!r}: ...}})",
    "decimal": "say which, as Reading(decimal='.') or Reading(decimal=',')",
    "diagnose-again": "call diagnose and write_diagnosis again",
    "fit-first": "make one with fit(..., run=Run.create(...))",
    "make-grey": "convert them to one mode, or load them with reading=Reading(grey=True)",
    "drop-or-encode": "encode it as numbers or text, or drop it",
    "header": "say Reading(header=True) or Reading(header=False)",
    "index-or-data": "say Reading(index_column={column!r}), or the kind of the column in "
    "Reading(schema={{{column!r}: ...}})",
    "leave-out": "leave it out, with drop = True in Reading(schema={{{column!r}: ...}})",
    "leave-out-or-index": "leave it out, with drop = True in Reading(schema={{{column!r}: ...}}), "
    "or say Reading(index_column={column!r}) if it names rows",
    "levels": "say levels=255 if they are grey values, or binarize='none'",
    "mend-or-category": "mend it, or, if the column holds categories, say kind = 'category' in "
    "Reading(schema={{{column!r}: ...}})",
    "mend-row": "mend the line, or say how cells are separated in Reading(separator=...)",
    "other-kind": "choose another kind in Reading(schema=...)",
    "overwrite": "choose another path, or pass overwrite=True",
    "fit-again": "fit again with Run.create(..., overwrite=True)",
    "resize": "crop them to one size, or load them with reading=Reading(resize=(height, width))",
    "resume": "continue with fit(..., run=Run.open({run!r}), resume=True)",
    "resume-or-overwrite": "choose another path, pass overwrite=True to Run.create, or continue it "
    "with fit(..., run=Run.open({run!r}), resume=True)",
    "separator": "say which, as Reading(separator=...)",
    "then-resume": "{first}, then continue with fit(..., run=Run.open({run!r}), resume=True)",
    "trust-program": "if you trust that code, pass its class {program} to Run.load",
    "write-again": "fit(..., run=Run.open({run!r}), resume=True) writes it again",
}
"""Remedies that Python and the command line word differently, by their keys: Python's words. Those
of the command line are in ``ppl_vae/cli/messages.py``."""


class InputError(ValueError):
    """The input cannot be used.

    The command line prints it in one line and exits with code 2. Names in it may be a stranger's:
    line feeds, and what would command a terminal, are written as escapes.

    Arguments:
        culprit: What is at fault: an argument, a file, a datum, a site, a program.
        problem: What is wrong with it, as the rest of a sentence that begins with the culprit.
        remedy: What to do about it: a key of :data:`REMEDIES`, or words that suit every interface.
        details: What the words of a key of :data:`REMEDIES` are filled with.

    Example:
        >>> print(InputError("draws", "must be at least 1, got 0"))
        draws must be at least 1, got 0
        >>> error = InputError(Path("a\\nb.npy"), "is empty", "save it again")
        >>> print(error)
        a\\nb.npy is empty: save it again
        >>> error.culprit, error.problem, error.remedy
        ('a\\nb.npy', 'is empty', 'save it again')
    """

    def __init__(
        self, culprit: str | Path, problem: str, remedy: str = "", **details: object
    ) -> None:
        self.culprit, self.problem, self.remedy = str(culprit), problem, remedy
        self.details = details
        super().__init__(self.message(REMEDIES))

    def __reduce__(self) -> tuple[Any, ...]:  # by which it is sent to another process
        kind: Any = type(self)
        return partial(kind, **self.details), (self.culprit, self.problem, self.remedy)

    def message(self, remedies: Mapping[str, str], culprit: str | None = None) -> str:
        """The error in one line.

        Arguments:
            remedies: The words for each key of :data:`REMEDIES`.
            culprit: Another name for the culprit, such as that of a command-line option.
        """
        remedy = remedies.get(self.remedy)
        words = self.remedy if remedy is None else remedy.format(**self.details)
        said = " ".join(filter(None, (culprit or self.culprit, self.problem)))
        return printable(f"{said}: {words}" if words else said)


def printable(text: str) -> str:
    r"""Text without characters that move the cursor, change direction or end the line.

    Example:
        >>> printable("a\x1b[2Jb ± \u202ec")
        'a\\x1b[2Jb ± \\u202ec'
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def shell_word(text: object) -> str:
    r"""Text as a word that a shell takes for it, and that no terminal takes for a command.

    Example:
        >>> print(shell_word("a b"), shell_word("a\x1b"), shell_word("\udcff"))
        'a b' $'a\x1b' $'\xff'
    """
    word = str(text)
    if word.isprintable():
        return shlex.quote(word)
    try:
        encoded = os.fsencode(word)
    except UnicodeEncodeError:  # half of a character, which is no name of a file
        encoded = word.encode(errors="backslashreplace")
    plain = (chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in encoded)
    return f"$'{''.join(plain)}'"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for quoting it inside an :class:`InputError`."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_int(name: str, value: Any, least: int = 1) -> int:
    """Return an integer, as Python's own type.

    Raises:
        InputError: If it is not an integer, or less than the least that makes sense.

    Example:
        >>> check_int("draws", 0)
        Traceback (most recent call last):
        ppl_vae.errors.InputError: draws must be an integer of at least 1, got 0
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(name, f"must be an integer of at least {least}, got {value!r}")
    return int(value)


def check_type(name: str, value: Any, kind: type) -> None:
    """Refuse an argument of another type.

    Raises:
        InputError: Naming the argument, and both types.
    """
    if not isinstance(value, kind):
        raise InputError(name, f"must be of type {kind.__name__}, not {type(value).__name__}")


def as_path(name: str, value: Any) -> Path:
    """A path, its ``~`` expanded.

    Raises:
        InputError: If it is not a path, or there is no such user.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(name, f"must be a path, not {type(value).__name__}")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise InputError(
            str(value), "does not begin with the name of a user", "write the path in full"
        ) from None


def check_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a datum, as integers.

    Raises:
        InputError: If it is not one.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise InputError("data_shape", f"must hold integers, such as (1, 28, 28), got {shape!r}")
    return tuple(check_int("data_shape", size) for size in shape)


@contextmanager
def user_code_errors(program: Any, shape: Sequence[int]) -> Iterator[None]:
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
            type(program).__name__,
            f"does not run on data of shape {tuple(shape)} "
            f"({type(error).__name__}: {first_line(error)})",
        ) from error
