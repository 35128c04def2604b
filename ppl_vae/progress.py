"""How far a call has come, for whoever shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    """A progress bar on standard error, gone when it is done, and absent where nobody looks.

    Arguments:
        text: What stands before the bar until there is a note.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not (console.is_terminal or console.is_jupyter),
    ) as bar:
        task = bar.add_task(text, total=1.0)
        yield lambda share, note: bar.update(task, advance=share, description=note or None)
