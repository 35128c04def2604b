"""What reaches a terminal, a pipe or a log: text that commands none, and that may get lost."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.text import Text

from ..errors import InputError, printable

LOG = logging.getLogger("ppl_vae")
PREFIXES = {logging.WARNING: "warning: ", logging.ERROR: "[bold red]error:[/] "}
PIPE_CLOSED = 141  # as a shell tells of a program that SIGPIPE has ended


class Console(RichConsole):
    """Rich's console, to which no name in a text is a command.

    Example:
        >>> Console(width=20).print("a\\x1b[2J", markup=False)
        a\\x1b[2J
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as Rich shows it, with escapes for all that is not printable but line feeds."""
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)

    def on_broken_pipe(self) -> None:
        """Let whoever prints know, rather than leave."""
        raise


class ToStandardError(logging.Handler):
    """Shows what is said beside results; where nobody can be told, work goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record, as one line for each of its own."""
        with contextlib.suppress(OSError, ValueError):
            words = PREFIXES.get(record.levelno, "") + escape(record.getMessage())
            Console(stderr=True).print(words, soft_wrap=True, highlight=False)


class StandardOutput:
    """Standard output that says why it cannot be written, and has characters for everything.

    Arguments:
        stream: The stream that takes the text.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text, with escapes for characters that the encoding lacks."""
        encoding = self._stream.encoding or "utf-8"
        with self._told():
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def flush(self) -> None:
        """Write all that waits to be written."""
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError, ValueError):  # or Python tries once more at its end
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise SystemExit(PIPE_CLOSED) from None  # it has read what it wanted
            problem = f"cannot be written ({error.strerror})"
            raise InputError("standard output", problem, "make room, or write elsewhere") from None


def write_line(text: str) -> None:
    """Write to standard output, if there is one. Typer would get round :class:`StandardOutput`."""
    if sys.stdout is not None:
        sys.stdout.write(f"{text}\n")


@contextmanager
def speaking() -> Iterator[None]:
    """Log to standard error, warnings too, and tell of a standard output that fails."""
    _open_missing()
    handler, level = ToStandardError(), LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.showwarning = lambda message, *_: LOG.warning("%s", message)
            if sys.stdout is not None:
                stack.enter_context(contextlib.redirect_stdout(StandardOutput(sys.stdout)))
            yield
    finally:
        LOG.removeHandler(handler)
        LOG.setLevel(level)


def _open_missing() -> None:
    """Open streams that were closed: a file opened later would take their place, and their text."""
    for stream in range(3):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
