"""Data in memory: validation, splits, binarization."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from ..choices import Binarize, SplitName
from ..errors import InputError, check_int
from ..runtime import derived_seed
from .binarization import draw_binary


@dataclass(frozen=True)
class Split:
    """Part of a data set.

    Attributes:
        x: Stored values of shape (N, *data_shape), bytes where the data are bytes.
        rows: Where each datum stood in the array that was split, of shape (N,).
        labels: Class indices of shape (N,), if there are any. Fits never see them.
    """

    x: Tensor
    rows: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class DataSet:
    """Training, validation and test data, in memory.

    Attributes:
        source: The name or path that it came from.
        train: Data to fit.
        validation: Data to choose the best epoch by.
        test: Data that no fit sees.
        levels: What the stored values are divided by to be in [0, 1]; ``None`` leaves them.
        binarize: ``"dynamic"`` draws each pixel from Bernoulli(value) every time it is read,
            ``"fixed"`` did so once, ``"none"`` leaves values as they are.
        label_names: What the class indices stand for.
    """

    source: str
    train: Split
    validation: Split
    test: Split
    levels: int | None
    binarize: Binarize
    label_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one datum; images are (channels, height, width)."""
        return tuple(self.train.x.shape[1:])

    @property
    def digest(self) -> str:
        """A hash of all stored values, by which a run knows its data again."""
        sha = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            sha.update(split.x.numpy().tobytes())
        return sha.hexdigest()

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of the training data, as indices of shape (N,)."""
        return torch.randperm(len(self.train), generator=generator, device=generator.device)

    def batches(
        self, size: int, generator: torch.Generator, order: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Go through the training data once, in random order.

        Rows are gathered, and binarized, where the generator is.

        Arguments:
            size: Data in a batch; the last one holds what is left.
            generator: Where binarization comes from, and the order if it is left out.
            order: Indices of the data to go through, as :meth:`order` draws them.

        Yields:
            Floating-point batches of shape (size, *data_shape).
        """
        size = check_int("size", size)
        stored = self.train.x.to(generator.device)
        for index in (self.order(generator) if order is None else order).split(size):
            yield self._values(stored.index_select(0, index), generator)

    def fixed(self, split: SplitName, seed: int = 0) -> Tensor:
        """All values of a split; with dynamic binarization, one seeded draw of them.

        Returns:
            Floating-point data of shape (N, *data_shape).
        """
        if split not in get_args(SplitName):
            raise InputError(f"no split {split!r}: choose from {', '.join(get_args(SplitName))}")
        generator = torch.Generator().manual_seed(derived_seed(seed, f"{split} data"))
        return self._values(getattr(self, split).x, generator)

    def _values(self, stored: Tensor, generator: torch.Generator) -> Tensor:
        if self.binarize == "dynamic":
            drawn = draw_binary(stored, self.levels, generator)
            return drawn.view(torch.uint8).float()  # in a sixth of the time that bool takes
        return stored if self.levels is None else stored.float() / self.levels
