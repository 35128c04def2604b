"""Signals that ask a process to end. It imports next to nothing: they may come at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

# What Ctrl-C sends, what schedulers send before they kill, and what a terminal that closes sends.
ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
INTERRUPTED = 130


@contextmanager
def handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Give signals that ask to end to a handler, but for those that are ignored, as by nohup."""
    with _replaced(handler, lambda before: before not in (None, signal.SIG_IGN), {}):
        yield


@contextmanager
def first_waits() -> Iterator[None]:
    """Let the first signal that asks to end wait until the block is done; a second one does not.

    For what is short, and would be lost. Signals that end the process at once still do.

    Example:
        >>> done = []
        >>> try:
        ...     with first_waits():
        ...         signal.raise_signal(signal.SIGINT)
        ...         done.append("written")
        ... except KeyboardInterrupt:
        ...     done.append("interrupted")
        >>> done
        ['written', 'interrupted']
    """
    waiting: list[int] = []
    before: dict[int, Any] = {}

    def wait(sign: int, frame: FrameType | None) -> None:
        waiting.append(sign)
        if len(waiting) > 1:
            before[sign](sign, frame)

    try:
        with _replaced(wait, callable, before):
            yield
    finally:
        if len(waiting) == 1:
            signal.raise_signal(waiting[0])


@contextmanager
def _replaced(
    handler: Callable[[int, FrameType | None], Any],
    wanted: Callable[[Any], bool],
    before: dict[int, Any],
) -> Iterator[None]:
    """Put a handler in the place of those that are wanted, which ``before`` is filled with."""
    if threading.current_thread() is threading.main_thread():
        before |= {s: earlier for s in ENDING if wanted(earlier := signal.getsignal(s))}
    try:
        for sign in before:
            signal.signal(sign, handler)
        yield
    finally:
        for sign, earlier in before.items():
            signal.signal(sign, earlier)


def leave_or_raise(_: int, frame: FrameType | None) -> NoReturn:
    """Raise ``KeyboardInterrupt``, but leave at once while a module is imported.

    Libraries turn an interrupt in their import into other errors, or lose it.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            leave()
        frame = frame.f_back
    raise KeyboardInterrupt


def leave() -> NoReturn:
    """End the process, and say why."""
    show_cursor = b"\x1b[?25h" if os.isatty(2) else b""  # which a progress bar may have hidden
    with contextlib.suppress(OSError):
        os.write(2, show_cursor + b"interrupted\n")
    os._exit(INTERRUPTED)
