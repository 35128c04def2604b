"""Data in memory: validation, splits, binarization."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from .errors import InputError, whole
from .memory import refuse_beyond_memory
from .runtime import derived_seed

Binarize = Literal["none", "fixed", "dynamic"]
SplitName = Literal["train", "validation", "test"]

SPLIT_SEED = 0  # The same data are held out whatever the seed of the fit.
FIXED_BINARIZATION_SEED = 0


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
        size = whole("size", size)
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


def draw_binary(stored: Tensor, levels: int | None, generator: torch.Generator) -> Tensor:
    """Draw each value from Bernoulli(stored / levels), or Bernoulli(stored) without levels.

    With levels the draw is exact, and on a processor takes a byte at random for nearly all of
    them. Of 256 v = t L + r, a uniform byte is below t with probability t / 256; where it is t,
    another draw of probability r / L decides, which makes v / L.

    Arguments:
        stored: Values of any shape: bytes, if there are levels.
        levels: The highest value L.
        generator: Where draws come from, on the device of the values.

    Example:
        >>> draw_binary(torch.tensor([0.0, 1.0]), None, torch.Generator().manual_seed(0))
        tensor([False,  True])
    """
    if levels is None:
        noise = torch.rand(stored.shape, generator=generator, dtype=stored.dtype)
        return noise < stored
    if stored.device.type != "cpu":  # where to count the ties is to wait for them
        drawn = torch.randint(
            levels, stored.shape, generator=generator, dtype=torch.uint8, device=stored.device
        )
        return drawn < stored
    threshold, remainder = _thresholds(levels)
    # With 255 levels t is v, but for the highest, where it is 255 too.
    limit = stored if levels == 255 else threshold[stored.long()]
    noise = _random_bytes(stored.shape, generator)
    drawn = noise < limit
    ties = torch.from_numpy(np.flatnonzero((noise == limit).numpy()))
    again = torch.randint(levels, ties.shape, generator=generator)
    drawn.view(-1)[ties] = again < remainder[stored.flatten()[ties].long()]
    return drawn


@cache
def _thresholds(levels: int) -> tuple[Tensor, Tensor]:
    """t and r of each value 0 ... L, in bytes and in whole numbers."""
    scaled = 256 * torch.arange(levels + 1)
    # At v = L, t is 256, which is no byte: 255 and a remainder of L come to the same.
    threshold = (scaled // levels).clamp(max=255)
    return threshold.byte(), scaled - threshold * levels


def _random_bytes(shape: torch.Size, generator: torch.Generator) -> Tensor:
    count = shape.numel()
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)  # all of 64 bits
    return words.view(torch.uint8)[:count].view(shape)


def make_data(
    x: Any,
    labels: Any = None,
    *,
    test: tuple[Any, Any] | None = None,
    levels: int | None = None,
    binarize: Binarize = "none",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    source: str = "array",
) -> DataSet:
    """Validate arrays and split them, the same way every time.

    Bytes (uint8) are read as levels of grey in [0, 1], unless they hold zeros and ones only; other
    numbers are taken as they are. Images of shape (N, height, width) or (N, height, width,
    channels) become (N, channels, height, width).

    Arguments:
        x: Array or tensor of shape (N, *data_shape).
        labels: One label for each datum, of any type; used in pictures only.
        test: Data and labels held out by others; without it, ``test_fraction`` of ``x`` is.
        levels: Highest value of whole-number data; found from the type if left out.
        binarize: See :class:`DataSet`.
        validation_fraction: Share of ``x`` held out to choose the best epoch by.
        test_fraction: Share of ``x`` held out for the final figures.
        source: The name that messages and runs know the data by.

    Raises:
        InputError: If the array is empty, ragged, not numeric, holds NaN or infinity, does not fit
            its labels, or cannot be binarized.

    Example:
        >>> data = make_data(np.eye(10), binarize="fixed")
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (8, 1, 1, (10,))
    """
    if binarize not in get_args(Binarize):
        raise InputError(f"binarize must be one of {', '.join(get_args(Binarize))}: {binarize!r}")
    if test is not None and not (isinstance(test, tuple | list) and len(test) == 2):
        raise InputError(f"{source}: test must be a pair (x, labels), not {type(test).__name__}")
    stored, levels = _as_stored(x, source, levels)
    given = None if test is None else _test_like(test[0], stored, levels, f"{source} (test)")
    classes, given_classes, label_names = _as_classes(labels, test, len(stored), source)
    order = torch.randperm(len(stored), generator=torch.Generator().manual_seed(SPLIT_SEED))
    held_out = _size(test_fraction, len(stored)) if given is None else 0
    validation = _size(validation_fraction, len(stored))
    if held_out + validation >= len(stored):
        raise InputError(
            f"{source}: {len(stored)} data are too few to hold out {validation} for validation and "
            f"{held_out} for testing: give more"
        )
    parts = order.split([held_out, validation, len(stored) - held_out - validation])
    splits = {
        name: Split(stored[rows], rows, None if classes is None else classes[rows])
        for name, rows in zip(("test", "validation", "train"), parts, strict=True)
    }
    if given is not None:
        splits["test"] = Split(given, torch.arange(len(given)), given_classes)
    if binarize != "none":
        splits = {n: _prepared(s, n, levels, binarize, source) for n, s in splits.items()}
        levels = 1 if binarize == "fixed" else levels
    return DataSet(source, **splits, levels=levels, binarize=binarize, label_names=label_names)


def _size(fraction: float, total: int) -> int:
    if not isinstance(fraction, Real) or not 0 < fraction < 1:
        raise InputError(f"fractions of the data must be between 0 and 1, got {fraction!r}")
    return max(1, round(fraction * total))


def _as_stored(x: Any, source: str, levels: int | None) -> tuple[Tensor, int | None]:
    """Check an array and bring it to bytes or floats of shape (N, *data_shape)."""
    array = _as_array(x, source)
    if array.dtype.kind not in "buif":
        raise InputError(f"{source}: data are of type {array.dtype}, but must be numbers")
    if array.size == 0 or array.ndim < 2:
        raise InputError(
            f"{source}: an array of shape {array.shape} holds no data, expected (N, ...) such as "
            "(1000, 28, 28) for images or (1000, 17) for a table"
        )
    if levels is None and (array.dtype == np.uint8 or array.dtype == bool):
        levels = 1 if array.max() <= 1 else 255
    array = _channels_first(array)
    if levels is not None:
        if (
            not isinstance(levels, Integral)
            or not 1 <= levels <= 255
            or array.dtype.kind not in "bui"
        ):
            raise InputError(f"{source}: levels={levels!r} must be 1 ... 255, of whole numbers")
        if array.min() < 0 or array.max() > levels:
            raise InputError(
                f"{source}: values run from {array.min()} to {array.max()}, outside the levels "
                f"0 ... {levels}"
            )
        return torch.from_numpy(array.astype(np.uint8)), levels
    if array.dtype.kind == "f":
        _check_finite(array, source)
    kept = np.float64 if array.dtype == np.float64 else np.float32
    return torch.from_numpy(array.astype(kept)), None


def _as_array(x: Any, source: str) -> np.ndarray:
    if isinstance(x, Tensor):
        if x.layout != torch.strided:
            raise InputError(f"{source}: the tensor is sparse: make it dense with .to_dense()")
        if x.is_meta:
            raise InputError(f"{source}: the tensor is of the device meta: give one with values")
        x = x.detach().cpu()
        return (x.float() if x.dtype == torch.bfloat16 else x).numpy()
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise InputError(f"{source}: {np.ma.count_masked(x)} values are masked: impute them")
    try:
        return np.asarray(x)
    except ValueError:
        raise InputError(f"{source}: data are ragged, every datum needs the same shape") from None


def _check_finite(array: np.ndarray, source: str) -> None:
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(array.astype(np.float32, copy=False))
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"{source}: {bad.sum()} values are NaN, infinite or beyond float32, the first at index "
            f"{first}: remove or impute them"
        )


def _channels_first(array: np.ndarray) -> np.ndarray:
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array)


def _as_classes(
    labels: Any, test: tuple[Any, Any] | None, count: int, source: str
) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    """Class indices of the data, and of the test data held out by others, with their names."""
    if labels is None:
        return None, None, ()
    known = [_as_label_array(labels, count, source)]
    if test is not None and test[1] is not None:
        known.append(_as_label_array(test[1], len(test[0]), f"{source} (test)"))
    # Together they are as wide as the widest.
    _refuse_wide(sum(map(len, known)), max(array.itemsize for array in known), source)
    names, indices = np.unique(np.concatenate(known), return_inverse=True)
    classes = torch.from_numpy(indices.astype(np.int64))
    given = classes[count:] if len(known) == 2 else None
    return classes[:count], given, tuple(str(name) for name in names)


def _as_label_array(labels: Any, count: int, source: str) -> np.ndarray:
    try:
        array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    except ValueError:
        raise InputError(f"{source}: labels are ragged: expected one for each datum") from None
    if array.shape != (count,):
        raise InputError(
            f"{source}: labels have shape {array.shape}, but there are {count} data: expected "
            f"({count},)"
        )
    if array.dtype != object:
        return array
    _refuse_wide(count, 4 * max(len(str(label)) for label in array), source)
    return array.astype(str)


def _refuse_wide(count: int, width: int, source: str) -> None:
    """An array of text has as much room for each as the longest needs, so one may be enough."""
    refuse_beyond_memory(count * width, f"{source}: labels", "shorten the longest")


def _test_like(x: Any, train: Tensor, levels: int | None, source: str) -> Tensor:
    """Test data held out by others, brought to the training data's type."""
    stored, _ = _as_stored(x, source, levels)
    if stored.shape[1:] != train.shape[1:]:
        raise InputError(
            f"{source}: test data have shape {tuple(stored.shape[1:])}, training data "
            f"{tuple(train.shape[1:])}"
        )
    return stored.to(train.dtype)


def _prepared(
    split: Split, name: str, levels: int | None, binarize: Binarize, source: str
) -> Split:
    """Check that values can be binarized; do it here and now where that is asked for."""
    top = 1 if levels is None else levels
    if len(split) and (split.x.min() < 0 or split.x.max() > top):
        raise InputError(
            f"{source}: values run from {split.x.min():g} to {split.x.max():g}, but only those in "
            "[0, 1] can be binarized: rescale them, or use --binarize none --likelihood gaussian"
        )
    if binarize == "dynamic":
        return split
    generator = torch.Generator().manual_seed(derived_seed(FIXED_BINARIZATION_SEED, name))
    return Split(draw_binary(split.x, levels, generator).byte(), split.rows, split.labels)
