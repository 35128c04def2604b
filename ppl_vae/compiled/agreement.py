"""Whether a graph and the function it was captured from return the same."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

ROUNDINGS = 16  # of the inputs, by which results may differ
DOUBLES = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def agree(some: Any, others: Any, ulps: float | None = None) -> bool:
    """Whether two trees of results are the same but for rounding.

    Each tensor is compared on its own scale, that of its largest number.

    Arguments:
        some: A tree of tensors and numbers.
        others: One of the same structure.
        ulps: How many units in the last place, on that scale, are rounding. Without it, half of
            the digits of the type are.

    Example:
        >>> agree([torch.ones(3), torch.tensor(1.0)], [torch.ones(3) + 1e-6, torch.tensor(1.01)])
        False
    """
    (ones, one_spec), (twos, two_spec) = map(pytree.tree_flatten, (some, others))
    if one_spec != two_spec:
        return False
    return all(_near(a, b, ulps) for a, b in zip(ones, twos, strict=True))


def agree_nearby(some: Any, others: Any, plain: Any, nearby: Any) -> bool:
    """Whether two trees of results are the same but for what rounding their inputs changes.

    Where terms cancel, as in a gradient at the optimum, rounding is large on the scale of what is
    left of them.

    Arguments:
        some: A tree of tensors and numbers.
        others: One of the same structure.
        plain: What they are computed to be, operation by operation.
        nearby: What that becomes where all inputs are larger by their rounding.

    Example:
        >>> two, three, four = ([torch.tensor(x)] for x in (2e-9, 3e-9, 4e-9))
        >>> agree_nearby(two, three, two, four), agree_nearby(two, three, two, two)
        (True, False)
    """
    trees = [pytree.tree_flatten(tree) for tree in (some, others, plain, nearby)]
    if any(spec != trees[0][1] for _, spec in trees):
        return False
    leaves = zip(*(leaves for leaves, _ in trees), strict=True)
    return all(_near(one, other, None) or _near_by(one, other, *two) for one, other, *two in leaves)


def _near_by(one: Any, other: Any, plain: Any, nearby: Any) -> bool:
    if not all(isinstance(x, Tensor) and x.is_floating_point() for x in (one, other)):
        return False
    if one.shape != other.shape:
        return False
    allowed = ROUNDINGS * _size(nearby - plain)
    return bool(torch.isclose(one, other, rtol=0.0, atol=allowed, equal_nan=True).all())


def larger(tensor: Tensor) -> Tensor:
    """A tensor whose numbers are larger by their rounding."""
    copied = tensor.detach().clone()
    rounded = copied.is_floating_point() or copied.is_complex()
    return copied * (1 + torch.finfo(copied.dtype).eps) if rounded else copied


def _near(one: Any, other: Any, ulps: float | None) -> bool:
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
    if not (b.is_floating_point() or b.is_complex()):
        return torch.equal(a.to(b), b)
    unit = max(torch.finfo(t.dtype).eps for t in (a, b) if t.is_floating_point() or t.is_complex())
    tolerance = (unit**0.5 if ulps is None else ulps * unit) * _size(b)
    return bool(torch.isclose(a.to(b), b, rtol=0.0, atol=tolerance, equal_nan=True).all())


def _size(values: Tensor) -> float:
    finite = values[values.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def agree_in_double(
    graph: fx.GraphModule,
    inputs: Sequence[Tensor],
    results: Any,
    compiler: Callable[..., Any],
    begin: Callable[[], None],
) -> bool:
    """Whether a graph returns the same once it is compiled, in double precision.

    Rounding may flip a sign, as where x is the mean of a Laplace distribution, or leave little of a
    difference of large terms. In double precision it does so at other places, and less; an error of
    the compiler stays. The results are the same if no single precision could tell them apart.

    Arguments:
        graph: What was captured.
        inputs: What it takes.
        results: What it returned, in its own precision.
        compiler: Takes a graph and its inputs.
        begin: Sets random state, and what the graph changes, to what they were at first.
    """
    twice, default = _InDouble(graph), torch.get_default_dtype()

    def doubled(scale: float = 1.0) -> list[Tensor]:
        return [_double(tensor.detach()) * scale for tensor in inputs]

    try:
        torch.set_default_dtype(torch.float64)
        with torch.no_grad():
            begin()
            expected = twice.run(*doubled())
            begin()
            nearby = twice.run(*doubled(1 + torch.finfo(torch.float64).eps))
            compiled = compiler(make_fx(lambda *args: twice.run(*args))(*doubled()), doubled())
            begin()
            found = compiled(*doubled())
    finally:
        torch.set_default_dtype(default)
    single = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]
    return all(map(_near_in_double, found, expected, nearby, single))


def _near_in_double(found: Tensor, expected: Tensor, nearby: Tensor, single: Tensor) -> bool:
    if not (expected.is_floating_point() or expected.is_complex()):
        return torch.equal(found, expected)
    if single.dtype in DOUBLES:
        unit = torch.finfo(single.dtype).eps * max(_size(expected), _size(single))
    else:  # it was in double precision before: allow what rounding its inputs changes
        unit = ROUNDINGS * _size(nearby - expected)
    return bool(torch.isclose(found, expected, rtol=0.0, atol=unit, equal_nan=True).all())


class _InDouble(fx.Interpreter):
    """Carry out a graph in double precision, on the draws of single precision."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if torch.Tag.nondeterministic_seeded in getattr(target, "tags", ()):
            args, kwargs = pytree.tree_map_only(Tensor, _single, (args, kwargs))
            return pytree.tree_map_only(Tensor, _double, target(*args, **kwargs))
        replace = lambda dtype: DOUBLES.get(dtype, dtype)  # noqa: E731
        args, kwargs = pytree.tree_map_only(torch.dtype, replace, (args, kwargs))
        return super().call_function(target, args, kwargs)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return pytree.tree_map_only(Tensor, _double, super().get_attr(target, args, kwargs))


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(DOUBLES.get(tensor.dtype, tensor.dtype))


def _single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float64 else tensor
