"""Named tensors, one row a data point: what programs take and simulations give."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

OBSERVED = "x"


class Batch(dict[str, Tensor]):
    r"""Named tensors, one row a data point: ``x`` of shape (N, \*data_shape), and covariates.

    Covariates are whatever else a program takes, such as ``y``, ``mask`` or ``exposure``, each of
    shape (N, ...). A batch is a dictionary: ``svi.step(**batch)``.

    Example:
        >>> batch = Batch(x=torch.zeros(3, 5), y=torch.arange(3))
        >>> batch
        Batch(x=(3, 5) float32, y=(3,) int64)
        >>> batch.rows(slice(1, None)).covariates["y"]
        tensor([1, 2])
    """

    @classmethod
    def of(cls, data: "Tensor | Mapping[str, Tensor]") -> "Batch":
        """Data as a batch: a tensor is its ``x``."""
        if isinstance(data, Mapping):
            return data if isinstance(data, cls) else cls(data)
        return cls({OBSERVED: data})

    @property
    def x(self) -> Tensor:
        r"""What the model generates, of shape (N, \*data_shape)."""
        return self[OBSERVED]

    @property
    def covariates(self) -> dict[str, Tensor]:
        """Everything but ``x``."""
        return {name: tensor for name, tensor in self.items() if name != OBSERVED}

    @property
    def size(self) -> int:
        """The number of data points, N."""
        return len(self.x)

    def call(self, function: Callable[..., Any]) -> Any:
        """What a model, a guide or a handler around one returns on this batch."""
        return function(self.x, **self.covariates)

    def rows(self, index: slice | Tensor) -> "Batch":
        """Some of the data points."""
        return Batch({name: tensor[index] for name, tensor in self.items()})

    def split(self, size: int) -> "Iterator[Batch]":
        """The data points in turn, at most so many at a time."""
        for start in range(0, self.size, size):
            yield self.rows(slice(start, start + size))

    def to(self, device: torch.device, dtype: torch.dtype) -> "Batch":
        """The batch on a device, ``x`` and all real numbers of one type."""
        return Batch(
            {
                name: tensor.to(device, dtype)
                if name == OBSERVED or tensor.is_floating_point()
                else tensor.to(device)
                for name, tensor in self.items()
            }
        )

    def __repr__(self) -> str:
        described = (f"{name}={describe(tensor)}" for name, tensor in self.items())
        return f"Batch({', '.join(described)})"


def describe(tensor: Tensor) -> str:
    """The shape and type of a tensor, in a few words.

    Example:
        >>> describe(torch.zeros(3, 5))
        '(3, 5) float32'
    """
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
