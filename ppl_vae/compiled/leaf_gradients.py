"""Gradients of leaves: added to as ``backward()`` does, and zeroed as Pyro does."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_ZEROS = WeakIdKeyDictionary()  # of each leaf, and their version: whether they still are zeros


def gradients_of(leaves: Iterable[Tensor]) -> dict[int, Tensor | None]:
    """What ``.grad`` of each leaf is, by its identity."""
    return {id(leaf): leaf.grad for leaf in leaves}


@contextmanager
def gradients_apart(leaves: Sequence[Tensor]) -> Iterator[Callable[[], list[Tensor | None]]]:
    """Set gradients aside, and give a function that lists what was added to each inside."""
    kept = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    try:
        yield lambda: [leaf.grad for leaf in leaves]
    finally:
        for leaf, gradient in zip(leaves, kept, strict=True):
            leaf.grad = gradient


def add_gradients(leaves: Sequence[Tensor], gradients: Iterable[Tensor | None]) -> None:
    """Add to the gradients of leaves.

    Example:
        >>> leaf = torch.ones(2, requires_grad=True)
        >>> for _ in range(2):
        ...     add_gradients([leaf], [torch.ones(2)])
        >>> leaf.grad
        tensor([2., 2.])
    """
    for leaf, gradient in zip(leaves, gradients, strict=True):
        if gradient is None:
            continue
        held = leaf.grad
        leaf.grad = gradient if held is None or are_zeros(leaf, held) else held + gradient


def zero_gradients(leaves: Iterable[Tensor]) -> None:
    """Make gradients zero where there are any, as ``pyro.infer.util.zero_grads`` does."""
    for leaf in leaves:
        held = leaf.grad
        if held is None or are_zeros(leaf, held):
            continue
        zeros, version = _ZEROS.get(leaf, (None, 0))
        usable = zeros is not None and zeros._version == version and zeros.shape == held.shape
        if not (usable and zeros.dtype == held.dtype and zeros.device == held.device):
            zeros = torch.zeros_like(held)
            _ZEROS[leaf] = zeros, zeros._version
        leaf.grad = zeros


def are_zeros(leaf: Tensor, gradient: Tensor) -> bool:
    """Whether a gradient is what :func:`zero_gradients` has left there."""
    zeros, version = _ZEROS.get(leaf, (None, 0))
    return zeros is gradient and gradient._version == version


def has_no_gradient(leaf: Tensor) -> bool:
    """Whether a leaf's gradient is missing, or what :func:`zero_gradients` has left there."""
    return leaf.grad is None or are_zeros(leaf, leaf.grad)
