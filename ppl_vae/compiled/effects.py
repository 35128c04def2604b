"""What a program does outside of tensors and Python's state: prints, files, clocks."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

import torch

from .sources import from_program, trusted

CALLS = {print: "prints", open: "opens a file", input: "asks for input"}
# Clocks, and what leaves a trace outside, in C; what but computes a path is none of it.
MODULES = {
    "time", "datetime", "posix", "secrets", "_warnings", "_socket", "socket", "_posixsubprocess",
    "_sqlite3", "sqlite3", "mmap", "fcntl", "select",
}  # fmt: skip
ANYWHERE = MODULES - {"_warnings", "time", "datetime"}  # whoever calls, if for the program
PURE = {"fspath", "_path_normpath", "getpid", "fsencode", "fsdecode"}
OF_FILES = {"fromfile", "tofile", "from_file"}
# The same by the file that its code is in.
FILES = {logging.__file__, warnings.__file__, torch.serialization.__file__}


def effect_of(function: Any, existed: Container[int], of_library: bool = False) -> str:
    """What a function that is written in C does outside, if anything.

    Arguments:
        function: What is called.
        existed: The identities of what was there before.
        of_library: Whether a library calls it, which has clocks of its own.
    """
    modules = ANYWHERE if of_library else MODULES
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or getattr(owner, "__module__", None)
    name = getattr(function, "__name__", "")
    if isinstance(module, str) and module in modules and name not in PURE:
        return f"it calls {name} of {module}"
    if isinstance(owner, io.IOBase):
        seen = not of_library or id(owner) in existed
        return "it writes to a file" if seen else ""
    if name in OF_FILES:
        return f"it calls {name}, which opens a file"
    return f"it {CALLS[function]}" if function in CALLS else ""


class Output:
    """A stream that tells when it is written to, as C code does whom no hook sees."""

    def __init__(self, stream: Any, tell: Callable[[FrameType | None], None]) -> None:
        self._stream, self._tell = stream, tell

    def write(self, text: str) -> int:
        """Tell, and write."""
        self._tell(from_program(sys._getframe(1), trusted))
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
