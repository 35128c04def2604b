"""The shapes of calls that a compiled function has seen, and the graph of each."""

import operator
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import InitVar, dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext

from .capture import CaptureError
from .graphs import Graph

MOST_SHAPES, FEW_SHAPES = 64, 8
# Calls of a graph before it is compared with the function again, which takes as long as some ten
# calls: that often at first, and that rarely at most.
FIRST_CHECK, FURTHEST_CHECK = 16, 1024
FIRST_MISSES = 16  # calls in a row without a graph that fits, before there is another
ATOMS = (
    bool, int, complex, np.generic, str, bytes, type(None), Enum, type, slice, range,
    torch.dtype, torch.device, FunctionType, MethodType, BuiltinFunctionType, nn.Module,
)  # fmt: skip
NAMESPACES = Namespace, SimpleNamespace


class Shapes:
    """What is known of each shape: arguments that differ in the values of tensors and floats only.

    Arguments:
        modules: Whose modes, training or evaluation, make another shape.
    """

    def __init__(self, modules: Iterable[Any]) -> None:
        self.modules = list(modules)
        self._known: dict[Any, Shape] = {}
        self._remembered: dict[str, list[int]] = {}

    def find(self, leaves: list[Any], spec: Any) -> "tuple[Shape, bool]":
        """The shape of some arguments, and whether it had a graph in the state that was restored.

        Raises:
            CaptureError: If there are too many shapes, or an argument cannot be told from others.
        """
        described = tuple(map(_describe, leaves))
        modes = tuple(m.training for module in self.modules for m in module.modules())
        key = (spec, described, _alike(leaves), modes, _environment())
        try:
            known = self._known.get(key)
        except TypeError as error:
            raise CaptureError(f"an argument cannot be told from others: {error}") from None
        if known is not None:
            return known, False
        counts = self._remembered.pop(repr(key), None)
        if len(self._known) + len(self._remembered) >= MOST_SHAPES:
            changes = _change(described, [shape.described for shape in self._known.values()])
            raise CaptureError(f"its arguments keep changing, {changes}")
        shape = self._known[key] = Shape(spec, described, leaves)
        return shape, counts is not None and shape.restore(counts)

    def differ(self) -> bool:
        """Whether there were many calls, and no two of one shape."""
        calls = [shape.calls for shape in self._known.values()]
        return len(calls) > FEW_SHAPES and max(calls) <= 1

    def state(self) -> dict[str, list[int]]:
        """The counts of each shape, as plain data."""
        return self._remembered | {repr(key): shape.counts() for key, shape in self._known.items()}

    def graphs(self) -> int:
        """How many graphs there are, those included that are yet to be made again."""
        return sum(has_graph for *_, has_graph in self.state().values())

    def restore(self, state: dict[str, list[int]]) -> None:
        """Forget all shapes, and give those to come the counts of a state.

        Raises:
            ValueError: If it is not such a state.
        """
        self._known.clear()
        self._remembered.clear()
        if not all(len(counts) == 7 and {*map(type, counts)} == {int} for counts in state.values()):
            raise ValueError("what the engine has compiled is not seven counts a shape")
        self._remembered.update(state)


@dataclass
class Shape:
    """Calls whose arguments differ in the values of tensors and floats only."""

    spec: Any
    described: tuple
    example: InitVar[list[Any]]
    calls: int = 0
    graph: Graph | None = None
    compiled_at: int = 0
    next_check: int = FIRST_CHECK
    compiled: int = 0  # how often
    misses: int = 0  # calls in a row that found Python's state changed
    strayed: int = 0  # calls in which Python would have decided otherwise than the graph
    weight: float = 1.0  # what compiling it takes, beside what it takes for most programs
    refused: bool = False

    def __post_init__(self, example: list[Any]) -> None:
        tensors = [leaf for leaf in example if isinstance(leaf, Tensor)]
        self.numbers = sum(tensor.numel() for tensor in tensors)
        self.device = tensors[0].device if tensors else torch.device("cpu")
        self.dtype = torch.get_default_dtype()
        for tensor in tensors:
            if tensor.is_floating_point():
                self.dtype = torch.promote_types(self.dtype, tensor.dtype)

    def widen(self, leaves: list[Any], closed: Iterable[Tensor]) -> bool:
        """Make floats as precise as tensors beside the arguments, and say whether they were not."""
        before = self.dtype
        for tensor in closed:
            if tensor.is_floating_point():
                self.dtype = torch.promote_types(self.dtype, tensor.dtype)
        return self.dtype != before and has_floats(leaves)

    def strays_too_often(self) -> bool:
        """Count a call that took another path than the graph; whether they are too many for it."""
        self.strayed += 1
        return self.strayed >= max(FIRST_MISSES, (self.calls - self.compiled_at) // 4)

    def counts(self) -> list[int]:
        """What a shape of the same kind must be given to go on as this one."""
        has_graph = self.graph is not None
        counts = [self.calls, self.compiled_at, self.next_check, self.compiled, self.misses]
        return [*counts, int(self.refused), int(has_graph)]

    def restore(self, counts: list[int]) -> bool:
        """Take the :meth:`counts` of another shape, and say whether it had a graph."""
        self.calls, self.compiled_at, self.next_check, self.compiled, self.misses = counts[:5]
        refused, had_graph = counts[5:]
        self.refused = bool(refused)
        return bool(had_graph)

    def is_checked(self) -> bool:
        """Whether this call is one of those at which the graph is compared with the function."""
        if self.calls - self.compiled_at < self.next_check:
            return False
        self.next_check += min(self.next_check, FURTHEST_CHECK)
        return True

    def tensors(self, leaves: list[Any]) -> list[Tensor]:
        """What a graph takes."""
        return [
            leaf
            if isinstance(leaf, Tensor)
            else torch.tensor(leaf, dtype=self.dtype, device=self.device)
            for leaf in leaves
            if isinstance(leaf, Tensor | float)
        ]

    def call(self, function: Callable[..., Any], leaves: list[Any]) -> Any:
        """The function of these arguments, in collections of their own.

        Raises:
            CaptureError: If it changes what they hold, which nobody would see.
        """
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        results = function(*args, **kwargs)
        after, spec = flatten(args, kwargs)
        if spec != self.spec or any(map(operator.is_not, leaves, after)):
            raise CaptureError("it changes what its arguments hold")
        return results

    def of_tensors(self, function: Callable[..., Any], leaves: list[Any]) -> Callable[..., Any]:
        """The function of these tensors alone."""
        # It must not hold the tensors, or they would be taken for some of the program's own.
        given = [isinstance(x, Tensor | float) for x in leaves]
        others = [None if is_given else x for x, is_given in zip(leaves, given, strict=True)]

        def call(*tensors: Tensor) -> Any:
            left = iter(tensors)
            pairs = zip(others, given, strict=True)
            return self.call(function, [next(left) if is_given else x for x, is_given in pairs])

        return call


class Opened:
    """An argument that has attributes, as a collection of them."""

    def __init__(self, kind: type, attributes: dict[str, Any]) -> None:
        self.kind, self.attributes = kind, attributes

    def flatten(self) -> tuple[list[Any], Any]:
        """The values of the attributes, and what is needed beside them."""
        return list(self.attributes.values()), (self.kind, tuple(self.attributes))

    @staticmethod
    def unflatten(values: Iterable[Any], context: Any) -> Any:
        """Another object with these attributes."""
        kind, names = context
        made = kind.__new__(kind)
        vars(made).update(zip(names, values, strict=True))
        return made


pytree.register_pytree_node(Opened, Opened.flatten, Opened.unflatten)


def flatten(args: Any, kwargs: Any) -> tuple[list[Any], Any]:
    """Arguments as a list, and their structure: collections, namespaces and dataclasses.

    Raises:
        CaptureError: If there is no end of them.
    """
    try:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if any(map(_has_attributes, leaves)):
            return pytree.tree_flatten(pytree.tree_map(_open, (args, kwargs)))
    except RecursionError:
        raise CaptureError("an argument holds itself") from None
    return leaves, spec


def has_floats(leaves: Iterable[Any]) -> bool:
    """Whether there are arguments that are floats, which graphs take as tensors."""
    return any(isinstance(leaf, float) for leaf in leaves)


def _has_attributes(leaf: Any) -> bool:
    kind = type(leaf)
    if kind is Tensor or issubclass(kind, nn.Module | type) or not hasattr(leaf, "__dict__"):
        return False
    return isinstance(leaf, NAMESPACES) or hasattr(kind, "__dataclass_fields__")


def _open(leaf: Any) -> Any:
    if not _has_attributes(leaf):
        return leaf
    return Opened(type(leaf), pytree.tree_map(_open, vars(leaf)))


def _describe(leaf: Any) -> Any:
    """What decides about a graph in one argument.

    Raises:
        CaptureError: If it can change without that being seen.
    """
    if isinstance(leaf, Tensor):
        if type(leaf) not in (Tensor, nn.Parameter):
            raise CaptureError(f"an argument is a {type(leaf).__name__}, no plain tensor")
        if leaf.requires_grad:
            raise CaptureError("an argument requires a gradient, which goes on outside of it")
        if leaf.layout is not torch.strided:
            raise CaptureError(f"an argument has layout {leaf.layout}")
        # Copies of it, which graphs are captured with, have none. Pyro's own decide about nothing.
        if leaf.__dict__ and not all(name.startswith("_pyro") for name in leaf.__dict__):
            raise CaptureError(f"an argument is a tensor with attributes, {min(leaf.__dict__)}")
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    if isinstance(leaf, float):
        return float
    if not isinstance(leaf, ATOMS):
        kind = type(leaf).__name__
        raise CaptureError(f"an argument is a {kind}, which no graph sees into: give its tensors")
    if isinstance(leaf, slice):  # which has no hash before Python 3.12
        return slice, *(_describe(part) for part in (leaf.start, leaf.stop, leaf.step))
    return type(leaf), leaf


def _alike(leaves: list[Any]) -> tuple[int, ...]:
    """Which arguments are the same tensor: nothing if none are."""
    places = [id(leaf) for leaf in leaves if isinstance(leaf, Tensor)]
    return tuple(map(places.index, places)) if len(set(places)) < len(places) else ()


def _environment() -> tuple[Any, ...]:
    """What else decides about all graphs.

    Raises:
        CaptureError: If a mode is on that graphs do not know of.
    """
    if _has_any_global_hook():
        raise CaptureError("a hook on all modules is set")
    if torch.is_anomaly_enabled():
        raise CaptureError("anomaly mode is on, which sees each operation")
    if torch._C._is_any_autocast_enabled():
        raise CaptureError("autocast is on")
    device = None
    if torch._C._len_torch_function_stack():
        modes = _get_current_function_mode_stack()
        if not all(isinstance(mode, DeviceContext) for mode in modes):
            raise CaptureError(f"{type(modes[-1]).__name__} sees its operations")
        device = torch.get_default_device()
    if torch._C._len_torch_dispatch_stack():
        raise CaptureError("a dispatch mode sees its operations")
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    return grad, inference, torch.get_default_dtype(), device


def _change(described: tuple, others: list[tuple]) -> str:
    """Which argument it is that took other values before."""
    for position, now in enumerate(described):
        values = {other[position] for other in others if len(other) > position}
        if len(values - {now}) > MOST_SHAPES // 4:
            if now is float or isinstance(now[0], torch.Size):
                of_shape = () if now is float else tuple(now[0])
                return f"the latest a tensor of shape {of_shape}: pad or crop it to one shape"
            return f"the latest {now[1]!r}: hand it over as a tensor or a float"
    return "in number or structure"
