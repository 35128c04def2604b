"""Whether a graph and the function it was captured from return the same."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def agree(some: Any, others: Any) -> bool:
    """Whether two trees of results are the same but for rounding.

    Differences are compared with the largest number of all arrays, or of a number's own size if
    that is larger, for a sum of large terms may be small. The square root of the precision leaves
    room for both.

    Arguments:
        some: A tree of tensors and numbers.
        others: One of the same structure.

    Example:
        >>> agree([torch.ones(3), torch.tensor(1.0)], [torch.ones(3) + 1e-6, torch.tensor(1.01)])
        False
    """
    (ones, one_spec), (twos, two_spec) = map(pytree.tree_flatten, (some, others))
    if one_spec != two_spec:
        return False
    arrays = [_size(b) for b in twos if isinstance(b, Tensor) and b.dim() and b.is_floating_point()]
    largest = max(arrays, default=0.0)
    return all(_near(a, b, largest) for a, b in zip(ones, twos, strict=True))


def _near(one: Any, other: Any, largest: float) -> bool:
    # A number that the function has read is a tensor in its graph.
    kinds = {type(one), type(other)}
    if len(kinds) > 1 and not (Tensor in kinds and kinds < {Tensor, bool, int, float}):
        return False
    if not isinstance(other, Tensor | float) and Tensor not in kinds:
        return bool(one == other)
    a, b = torch.as_tensor(one), torch.as_tensor(other)
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    if a.shape != b.shape or (both and a.dtype != b.dtype):
        return False
    if not b.is_floating_point():
        return torch.equal(a.to(b), b)
    size = largest if b.dim() else max(largest, _size(b))
    tolerance = max(torch.finfo(t.dtype).eps for t in (a, b)) ** 0.5 * size
    return bool(torch.isclose(a.to(b), b, rtol=0.0, atol=tolerance, equal_nan=True).all())


def _size(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0
