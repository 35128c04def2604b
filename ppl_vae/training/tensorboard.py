"""Rows of a fit as TensorBoard events."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import InputError, as_path
from ..storage.files import make_folder


class TensorBoard:
    """Writes the rows of a fit as TensorBoard events, as its ``on_epoch``.

    Arguments:
        folder: Where the events go. Those of a fit that was stopped are void once it is resumed:
            all rows are written again.

    Raises:
        InputError: If TensorBoard is not installed.

    Example:
        >>> with TensorBoard("events") as tensorboard:
        ...     tensorboard({"epoch": 1, "elbo": -75.2})
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = as_path("folder", folder)
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError(
                "tensorboard", "is not installed", "pip install 'ppl-vae[tensorboard]'"
            ) from None
        self._kind: Any = SummaryWriter

    def __call__(self, row: Mapping[str, float]) -> None:
        """Write the row of an epoch.

        Raises:
            InputError: If it cannot be written.
        """
        try:
            if self._writer is None:
                make_folder(self.folder)
                self._writer = self._kind(str(self.folder), purge_step=1)
            for name in row.keys() - {"epoch"}:
                self._writer.add_scalar(name, row[name], int(row["epoch"]))
            self._writer.flush()
        except OSError as error:
            raise InputError(
                self.folder, f"cannot be written ({error.strerror})", "make room"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            with suppress(OSError):  # a full disk has been told of
                self._writer.close()
            self._writer = None
