"""Gradients of leaves: added to as ``backward()`` does, and zeroed as Pyro does."""

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def gradients_of(leaves: Iterable[Tensor]) -> dict[int, Tensor | None]:
    """What ``.grad`` of each leaf is, by its identity."""
    return {id(leaf): leaf.grad for leaf in leaves}


@contextmanager
def gradients_apart(leaves: Sequence[Tensor]) -> Iterator[Callable[[], list[Tensor | None]]]:
    """Set gradients aside, and give a function that lists what was added to each inside.

    Afterwards each leaf has both, errors or not.
    """
    kept = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    try:
        yield lambda: [leaf.grad for leaf in leaves]
    finally:
        added = [leaf.grad for leaf in leaves]
        for leaf, gradient in zip(leaves, kept, strict=True):
            leaf.grad = gradient
        add_gradients(leaves, added)


def add_gradients(leaves: Sequence[Tensor], gradients: Iterable[Tensor | None]) -> None:
    """Add to the gradients of leaves, where they lie: others may have them, too.

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
        if has_no_gradient(leaf):  # which is asked before there is another name for it
            leaf.grad = gradient
            continue
        held = leaf.grad
        assert held is not None
        if held.layout is torch.strided:
            with torch.no_grad():
                held.add_(gradient)
        else:
            leaf.grad = gradient + held


def zero_gradients(leaves: Iterable[Tensor]) -> None:
    """Make gradients zero where there are any, as ``pyro.infer.util.zero_grads`` does."""
    for leaf in leaves:
        if leaf.grad is None or are_zeros(leaf):
            continue
        zeros = _zeros_of(leaf)
        if leaf.grad.layout is not torch.strided:
            leaf.grad = torch.zeros_like(leaf.grad)
        elif zeros is not None and zeros.serves(leaf):
            leaf.grad = zeros.tensor
        else:
            _ZEROS[id(leaf)] = _Zeros(leaf)


def are_zeros(leaf: Tensor) -> bool:
    """Whether a gradient is what :func:`zero_gradients` left there, and nobody else has it."""
    zeros = _zeros_of(leaf)
    return zeros is not None and leaf.grad is zeros.tensor and zeros.are_ours(zeros.given)


def has_no_gradient(leaf: Tensor) -> bool:
    """Whether a leaf's gradient is missing, or may be replaced without that being seen."""
    return leaf.grad is None or are_zeros(leaf)


class _Zeros:
    """Zeros that nobody has written to, and nobody else has, as long as they are ours.

    No version counts what is written by way of ``.data`` or an array. But zeros that are copied
    when they are written to, whatever the way, can be asked whether they have been.

    Arguments:
        leaf: Its gradient is replaced by them.
    """

    def __init__(self, leaf: Any) -> None:
        key = id(leaf)
        self.leaf = weakref.ref(leaf, lambda _: _ZEROS.pop(key, None))
        self.tensor: Any = torch.zeros_like(leaf.grad)._lazy_clone()
        self._storage = self.tensor.untyped_storage()
        self._apart = self._references()
        leaf.grad = self.tensor
        self.given = self._references()

    def _references(self) -> tuple[int, int, int]:
        """How often it is had by Python, by others, and how many see its memory."""
        views = torch._C._storage_Use_Count(self._storage._cdata)
        return sys.getrefcount(self.tensor), self.tensor._use_count(), views

    def are_ours(self, references: tuple[int, int, int]) -> bool:
        """Whether nobody has written to them, or has them beside those counted."""
        c: Any = torch._C  # its stubs lack it
        return c._is_cow_tensor(self.tensor) and self._references() == references

    def serves(self, leaf: Any) -> bool:
        """Whether it can be the gradient of a leaf that has another one."""
        held, mine = leaf.grad, self.tensor
        alike = mine.shape == held.shape and mine.stride() == held.stride()
        alike = alike and mine.dtype == held.dtype and mine.device == held.device
        del mine
        return held is not self.tensor and alike and self.are_ours(self._apart)


# By the identity of the leaf that has them: a WeakIdKeyDictionary takes ten times as long.
_ZEROS: dict[int, _Zeros] = {}


def _zeros_of(leaf: Tensor) -> _Zeros | None:
    zeros = _ZEROS.get(id(leaf))
    return zeros if zeros is not None and zeros.leaf() is leaf else None
