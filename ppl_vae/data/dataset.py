"""Training, validation and test data, in memory."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor

from ..choices import Binarize, SplitName
from ..errors import InputError, check_int
from ..runtime import derived_seed
from ..storage.spilled import float_tensor
from .batch import Batch, describe
from .binarization import BLOCK, draw_binary
from .reading import Reading
from .schema import Column, has_names


@dataclass(frozen=True, repr=False)
class Split:
    """Part of a data set.

    Attributes:
        x: Stored values of shape (N, *data_shape), bytes where the data are bytes.
        rows: Where each data point stood in the array that was split, of shape (N,).
        labels: Class indices of shape (N,), if there are any, -1 where one is not known. Only a
            program that takes ``y`` sees them.
        covariates: Further tensors that programs take, one row a data point, by name.
    """

    x: Tensor
    rows: Tensor
    labels: Tensor | None = None
    covariates: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def __repr__(self) -> str:
        covariates = (f", {name} {describe(t)}" for name, t in self.covariates.items())
        labelled = "" if self.labels is None else ", labels"
        return f"Split(x {describe(self.x)}{''.join(covariates)}{labelled})"


@dataclass(frozen=True, repr=False)
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
        label_names: What the class indices stand for. The index of a missing label is -1.
        columns: What the columns are, of data of shape (N, D) that are no grey values.
        row_names: The names of the rows of the table that was split, if it has any.
        reading: How its file was read.
        known_labels: How many training labels were kept, and the seed that chose them; see
            :func:`ppl_vae.keep_labels`. ``None`` where none were hidden.

    Example:
        >>> from ppl_vae import load_data
        >>> load_data("digits")
        DataSet(digits: 1,437 train, 180 validation, 180 test; x (1, 8, 8), 16 levels; 10 classes)
    """

    source: str
    train: Split
    validation: Split
    test: Split
    levels: int | None
    binarize: Binarize
    label_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    row_names: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    known_labels: tuple[int, int] | None = None

    def __repr__(self) -> str:
        splits = ("train", "validation", "test")
        sizes = ", ".join(f"{len(getattr(self, name)):,} {name}" for name in splits)
        about = [f"x {self.shape}"]
        about += [f"{n} {tuple(t.shape[1:])}" for n, t in self.train.covariates.items()]
        about += [] if self.levels is None else [f"{self.levels} levels"]
        about += [] if self.binarize == "none" else [f"binarized: {self.binarize}"]
        classes = f"; {len(self.label_names):,} classes" if self.label_names else ""
        classes += f", {self.known_labels[0]:,} labels known" if self.known_labels else ""
        return f"DataSet({self.source}: {sizes}; {', '.join(about)}{classes})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``x`` of one data point; images are (channels, height, width)."""
        return tuple(self.train.x.shape[1:])

    @property
    def digest(self) -> str:
        """A hash of all stored values and labels, and of what they mean: levels, binarization, the
        names of classes, of a table's columns and of its categories. A run knows its data by it."""
        meaning = [self.levels, self.binarize, list(self.label_names)]
        sha = hashlib.sha256(json.dumps(meaning).encode())
        if has_names(self.columns):
            names = [[column.name, *column.categories] for column in self.columns]
            sha.update(json.dumps(names).encode())
        for split in (self.train, self.validation, self.test):
            labels = {} if split.labels is None else {"labels": split.labels}
            for name, tensor in {"x": split.x, **labels, **split.covariates}.items():
                sha.update(f"{name} {describe(tensor)} ".encode())
                sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()

    def order(self, generator: torch.Generator) -> Tensor:
        """A random order of the training data, as indices of shape (N,)."""
        return torch.randperm(len(self.train), generator=generator, device=generator.device)

    def batches(
        self, size: int, generator: torch.Generator, order: Tensor | None = None
    ) -> Iterator[Batch]:
        """Go through the training data once, in random order.

        Rows are gathered, and binarized, where the generator is.

        Arguments:
            size: Data points in a batch; the last one holds what is left.
            generator: Where binarization comes from, and the order if it is left out.
            order: Indices of the data points to go through, as :meth:`order` draws them.

        Yields:
            Batches whose ``x`` is of a floating-point type and of shape (size, *data_shape).
        """
        size = check_int("size", size)
        stored = {"x": self.train.x, **self.train.covariates}
        stored = {name: tensor.to(generator.device) for name, tensor in stored.items()}
        for index in (self.order(generator) if order is None else order).split(size):
            batch = Batch({name: t.index_select(0, index) for name, t in stored.items()})
            batch["x"] = self._values(batch.x, generator)
            yield batch

    def batch(self, split: SplitName, seed: int = 0) -> Batch:
        """All data points of a split, :meth:`fixed` and their covariates."""
        return Batch(x=self.fixed(split, seed), **getattr(self, split).covariates)

    def fixed(self, split: SplitName, seed: int = 0) -> Tensor:
        """All ``x`` of a split; with dynamic binarization, one seeded draw of them.

        Returns:
            Floating-point data of shape (N, *data_shape). Those made of many bytes lie in a
            temporary file, so that they need not be in memory all at once.
        """
        if split not in get_args(SplitName):
            raise InputError("split", f"must be one of {', '.join(get_args(SplitName))}: {split!r}")
        generator = torch.Generator().manual_seed(derived_seed(seed, f"{split} data"))
        stored, levels = getattr(self, split).x, self.levels
        if self.binarize == "dynamic":
            stored = draw_binary(stored, levels, generator).view(torch.uint8)
            levels = 1
        if levels is None:
            return stored
        size = max(1, BLOCK // stored[:1].numel())
        return float_tensor(
            stored.shape, lambda: (_floats(part, levels) for part in stored.split(size))
        )

    def pieces(self, split: SplitName, seed: int = 0) -> Iterator[Batch]:
        """The data points of a split in turn, some at a time, as floating-point data.

        With dynamic binarization, draws are others than those of :meth:`fixed`.
        """
        part = getattr(self, split)
        generator = torch.Generator().manual_seed(derived_seed(seed, f"{split} data"))
        size = max(2, BLOCK // part.x[:1].numel())
        for some in Batch(x=part.x, **part.covariates).split(size):
            some["x"] = self._values(some.x, generator)
            yield some

    def _values(self, stored: Tensor, generator: torch.Generator) -> Tensor:
        if self.binarize == "dynamic":
            drawn = draw_binary(stored, self.levels, generator)
            return _floats(drawn.view(torch.uint8), 1)  # in a sixth of the time that bool takes
        return stored if self.levels is None else _floats(stored, self.levels)


def _floats(stored: Tensor, levels: int) -> Tensor:
    """Levels as numbers in [0, 1]."""
    return stored.float() if levels == 1 else stored.float().div_(levels)
