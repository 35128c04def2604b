"""The newest states of a fit, on disk."""

import re
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..storage.files import make_folder, name_of_leftover, remove
from ..storage.tensors import TornError, read_tensors, write_tensors

KEPT = 2
SHARE = 0.01  # of the time of a fit that writing may take
NAME = re.compile(r"step-(\d{9,18})\.safetensors")


class CheckpointWarning(UserWarning):
    """The newest checkpoint cannot be used, or the fit will not continue to the same bits."""


class Checkpoints:
    """A folder with the newest states of a fit, each in a file of its own.

    Each is written under another name, put on the disk, and renamed; then all but the newest two
    are removed. The name has the number of steps, and a checksum covers all of it.

    Arguments:
        folder: Where they are; it is made when the first is written.

    Example:
        >>> import torch
        >>> kept = Checkpoints(Path("checkpoints"))
        >>> for step in (10, 20, 30):
        ...     kept.write(step, {"weight": torch.full((1,), float(step))}, {})
        >>> [file.name for file in kept.files()]
        ['step-000000030.safetensors', 'step-000000020.safetensors']
        >>> kept.newest()
        ({'weight': tensor([30.])}, {})
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.before_writing: Callable[[], None] = lambda: None  # may refuse
        self._due = 0.0

    def files(self) -> list[Path]:
        """What is there, the newest first."""
        found = {f: NAME.fullmatch(f.name) for f in self.folder.glob("step-*")}
        steps = {file: int(match[1]) for file, match in found.items() if match}
        return sorted(steps, key=lambda file: steps[file], reverse=True)

    def remove_leftovers(self) -> None:
        """Remove what a crash has left half-written, while nobody else writes here."""
        for file in self.folder.iterdir():
            if NAME.fullmatch(name_of_leftover(file.name) or ""):
                remove(file)

    def is_due(self) -> bool:
        """Whether writing another one now would take no more than a hundredth of the time.

        What is written when depends on the clock; what a fit comes to does not.
        """
        return time.perf_counter() >= self._due

    def write(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        about: Mapping[str, Any],
        write_rest: Callable[[], None] = lambda: None,
    ) -> None:
        """Write a checkpoint, and remove all but the newest two.

        Arguments:
            step: How many steps were made.
            tensors: Its tensors.
            about: Its plain data.
            write_rest: Writes what belongs to it; its time counts.

        Raises:
            InputError: If it cannot be written; then those before are still there.
        """
        start = time.perf_counter()
        make_folder(self.folder)
        file = self.folder / f"step-{step:09}.safetensors"
        write_tensors(file, tensors, about, self.before_writing)
        self.before_writing()
        for file in self.files()[KEPT:]:
            remove(file)
        write_rest()
        end = time.perf_counter()
        self._due = end + (end - start) / SHARE

    def newest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint that is whole; newer ones are removed, with a warning.

        Returns:
            Its tensors and plain data; ``None`` if there is no checkpoint.

        Raises:
            InputError: If there are checkpoints, and none is whole; or the newest that may be whole
                cannot be read.
        """
        broken: list[tuple[Path, TornError]] = []
        for file in self.files():
            try:
                found = read_tensors(file)
            except TornError as error:
                broken.append((file, error))
                continue
            for torn, reason in broken:
                warnings.warn(
                    f"{reason}: continuing from {file.name}, before it", CheckpointWarning, 2
                )
                remove(torn)
            return found
        if broken:
            newest = broken[0][1]
            raise InputError(
                newest.culprit,
                f"{newest.problem}, and so is the checkpoint before it",
                "fit-again",
            )
        return None
