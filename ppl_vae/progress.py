"""How far a call has come, for whoever shows it."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

OnProgress = Callable[[float, str], None]
"""Called with the share of all work that has just been done, and with a note on it, which may be
empty. The shares of a call that returns sum to one."""


class Progress:
    """Work that is counted in a unit of its own, and told in shares of the whole.

    Arguments:
        on_progress: Whom to tell; ``None`` for nobody.
        total: All of the work, in its own unit.

    Example:
        >>> told = []
        >>> progress = Progress(lambda share, note: told.append(share), total=4)
        >>> half = progress.part(2, total=100)  # 2 of the 4, counted in hundredths
        >>> half.advance(50)
        >>> progress.advance(1)
        >>> progress.finish()
        >>> told
        [0.25, 0.25, 0.5]
    """

    def __init__(self, on_progress: OnProgress | None = None, total: float = 1.0) -> None:
        self._on_progress, self._total, self._done = on_progress, total, 0.0

    def advance(self, work: float, note: str = "") -> None:
        """Tell that some work has been done, and perhaps what comes next."""
        self._done += work
        if self._on_progress is not None:
            self._on_progress(work / self._total, note)

    def part(self, work: float, total: float = 1.0) -> "Progress":
        """Some of the work, counted in another unit, of which it takes ``total``."""
        return Progress(lambda share, note: self.advance(share * work, note), total)

    def finish(self) -> None:
        """Tell that all that is left has been done, or left out."""
        if self._done < self._total:
            self.advance(self._total - self._done)


@contextmanager
def progress_bar(text: str = "") -> Iterator[OnProgress]:
    """A progress bar on standard error, gone when it is done, and absent where nobody looks, or
    where :func:`is_quiet`.

    Where the terminal is narrow, the bar gives way first and words next; numbers stay.

    Arguments:
        text: What stands before the bar until there is a note.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    console = Console(file=_Tolerant(sys.stderr))  # type: ignore[arg-type]
    if is_quiet() or not (console.is_terminal or console.is_jupyter):
        yield lambda share, note: None  # Rich before 15 writes an empty line
        return
    column = BarColumn(bar_width=20)
    with Bar(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        column,
        TimeRemainingColumn(compact=True),
        TextColumn("left", table_column=Column(no_wrap=True)),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task(text, total=1.0)

        def show(share: float, note: str) -> None:
            room = console.width - len("  0:00:00 left ")
            words = shorten(note or bar.tasks[0].description, room - 2)
            column.bar_width = max(1, min(20, room - len(words)))
            bar.update(task, advance=share, description=words)

        yield show


def is_quiet() -> bool:
    """Whether the logger ``ppl_vae`` has been told to pass warnings only: then there are no bars.

    Example:
        >>> is_quiet()
        False
    """
    return logging.getLogger("ppl_vae").level > logging.INFO


class _Tolerant:
    """A stream for what may get lost: a terminal that has been closed ends no fit."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def shorten(text: str, width: int) -> str:
    """Shorten the longest words of a text, and never a number, until it fits.

    Example:
        >>> shorten("epoch 15/20: loss 232568.12, validation ELBO -232568.22", 50)
        'epoch 15/20: loss 232568.12, val. ELBO -232568.22'
    """
    while len(text) > width and (words := re.findall(r"[^\W\d_]{5,}", text)):
        longest = max(words, key=len)
        text = text.replace(longest, f"{longest[:3]}.", 1)
    return text
