"""Large results in a file without a name, whose pages the system reads when they are asked for."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

LARGE = 2**28  # bytes


def float_tensor(shape: torch.Size, parts: Callable[[], Iterable[Tensor]]) -> Tensor:
    """A tensor of float32 made of parts that come one after the other.

    A large one lies in a temporary file that has no name, if the disk has room for twice as much:
    the system may then take its memory back, and gives it where values are read. It is a tensor as
    any other, and what is written to it stays in memory.

    Arguments:
        shape: Its shape, (N, ...).
        parts: Gives its rows, of type float32, on the CPU; it may be asked twice.

    Example:
        >>> float_tensor(torch.Size((2, 1)), lambda: [torch.zeros(1, 1), torch.ones(1, 1)])
        tensor([[0.],
                [1.]])
    """
    size = 4 * shape.numel()
    if size >= LARGE and os.name == "posix":
        with suppress(OSError):  # no such folder, or no room after all
            if shutil.disk_usage(tempfile.gettempdir()).free > 2 * size:
                return _in_file(shape, parts())
    found, start = torch.empty(shape), 0
    for part in parts():
        found[start : start + len(part)] = part
        start += len(part)
    return found


def _in_file(shape: torch.Size, parts: Iterable[Tensor]) -> Tensor:
    with tempfile.TemporaryFile(buffering=0) as file:
        for part in parts:
            content = part.contiguous().numpy().data.cast("B")
            while content:
                content = content[file.write(content) :]
        # The mapping outlives the file's being closed. Changes are the process's own.
        return torch.from_numpy(np.memmap(file, np.float32, mode="c", shape=tuple(shape)))
