"""The shapes of calls that a compiled function has seen, and the graph of each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext

from ..errors import first_line
from .agreement import agree, agree_in_double
from .capture import Capture, CaptureError, rehearsal, set_random_state
from .cuda_graph import CUDAGraphCallable
from .leaf_gradients import add_gradients, has_no_gradient
from .tracing import memory

MOST_SHAPES, FEW_SHAPES = 64, 8
# Calls of a graph before it is compared with the function again, which takes as long as some ten
# calls: that often at first, and that rarely at most.
FIRST_CHECK, FURTHEST_CHECK = 16, 1024
ATOMS = (
    bool, int, complex, np.generic, str, bytes, type(None), Enum, type, slice, range,
    torch.dtype, torch.device, FunctionType, MethodType, BuiltinFunctionType, nn.Module,
)  # fmt: skip


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
        known = self._known.get(key)
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
    graph: "Graph | None" = None
    compiled_at: int = 0
    next_check: int = FIRST_CHECK
    compiled: int = 0  # how often
    misses: int = 0  # calls in a row that found Python's state changed
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
        return self.calls - self.compiled_at >= self.next_check

    def tensors(self, leaves: list[Any]) -> list[Tensor]:
        """What a graph takes."""
        return [
            leaf.contiguous()
            if isinstance(leaf, Tensor)
            else torch.tensor(leaf, dtype=self.dtype, device=self.device)
            for leaf in leaves
            if isinstance(leaf, Tensor | float)
        ]

    def call(self, function: Callable[..., Any], leaves: list[Any]) -> Any:
        """The function of these arguments."""
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return function(*args, **kwargs)

    def of_tensors(self, function: Callable[..., Any], leaves: list[Any]) -> Callable[..., Any]:
        """The function of these tensors alone."""

        def call(*tensors: Tensor) -> Any:
            given = iter(tensors)
            filled = [next(given) if isinstance(x, Tensor | float) else x for x in leaves]
            return self.call(function, filled)

        return call


class GraphError(RuntimeError):
    """A graph that does not run."""


class Graph:
    """A compiled graph that returns what the function does, and gives leaves their gradients."""

    def __init__(self, found: Capture, run: Callable[..., Any]) -> None:
        self.closed, self.run, self._changed = found.closed, run, list(found.before)
        self.plain, self.guards, self.targets = found.graph, found.guards, found.leaves
        self._sets_gradients = found.sets_gradients
        self.recording: CUDAGraphCallable | None = None
        self.recorded_for: Any = None
        self.leaves, self.spec = pytree.tree_flatten(found.results)
        self.computed = [isinstance(leaf, Tensor) for leaf in self.leaves]
        self.copied = [True] * len(found.leaves)

    def fits(self, inputs: list[Tensor]) -> bool:
        """Whether all is as it was when it was captured, that it takes for granted."""
        if self._sets_gradients and not all(map(has_no_gradient, self.targets)):
            return False
        return self.guards.hold() and not (self._changed and self._overlaps(inputs))

    def _overlaps(self, inputs: list[Tensor]) -> bool:
        given = [memory(tensor) for tensor in (*inputs, *self.closed) if tensor.numel()]
        changed = [memory(tensor) for tensor in self.changed(inputs)]
        return any(given.count(place) > 1 for place in changed)

    def changed(self, inputs: list[Tensor]) -> list[Tensor]:
        """What a run on these inputs changes in place."""
        given = (*inputs, *self.closed)
        return [given[position] for position in self._changed]

    def replay(
        self,
        inputs: list[Tensor],
        follow: Callable[[Any], None],
        recordable: Callable[[], Any],
        warn: Callable[[str], None],
    ) -> Any:
        """Run the graph and what follows its results, on a GPU as one CUDA graph where it may be.

        Where it cannot be recorded, ``warn`` is told why, once.
        """

        def work(tensors: list[Tensor]) -> Any:
            results, gradients = self(tensors)
            add_gradients(self.targets, gradients)
            follow(results)
            return results

        token = recordable() if self.on_gpu(inputs) else None
        if token is None:
            return work(inputs)
        if self.recorded_for is not token:
            self.recorded_for, self.recording = token, None
            try:
                self.recording = CUDAGraphCallable(work, inputs)
            except GraphError:
                raise
            except RuntimeError as error:
                warn(f"it cannot be a CUDA graph: {first_line(error)}")
        return work(inputs) if self.recording is None else self.recording(inputs)

    def on_gpu(self, inputs: list[Tensor]) -> bool:
        """Whether nothing that it reads is elsewhere."""
        return all(tensor.is_cuda for tensor in (*inputs, *self.closed))

    def __call__(self, inputs: list[Tensor], plain: bool = False) -> tuple[Any, list[Tensor]]:
        """The results, and what is to be added to the gradient of each leaf.

        Arguments:
            inputs: The tensors of a call.
            plain: Whether to carry out what was captured, one operation after the other.
        """
        run = torch.no_grad()(self.plain) if plain else self.run
        try:
            outputs = iter(run(*inputs, *self.closed))
        except Exception as error:
            raise GraphError(f"its graph does not run: {first_line(error)}") from error
        leaves = [
            next(outputs) if computed else leaf
            for leaf, computed in zip(self.leaves, self.computed, strict=True)
        ]
        gradients = [g.clone() if own else g for g, own in zip(outputs, self.copied, strict=True)]
        return pytree.tree_unflatten(leaves, self.spec), gradients

    def copy_shared(self, inputs: list[Tensor]) -> None:
        """Find out which gradients lie where nothing else does: they need no copy of their own."""
        outputs = self.run(*inputs, *self.closed)
        used = [memory(tensor) for tensor in (*outputs, *inputs, *self.closed)]
        gradients = outputs[len(outputs) - len(self.copied) :]
        self.copied = [used.count(memory(g)) > 1 or not g.is_contiguous() for g in gradients]


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
        return leaf.shape, leaf.dtype, leaf.device
    if isinstance(leaf, float):
        return float
    if not isinstance(leaf, ATOMS):
        kind = type(leaf).__name__
        raise CaptureError(f"an argument is a {kind}, which no graph sees into: give its tensors")
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


def first_run(
    found: Capture,
    inputs: Sequence[Tensor],
    random_state: list[Tensor],
    compiler: Callable[..., Any],
) -> Graph:
    """Compile what was captured, and compare it with the function on the same inputs and draws.

    Arguments:
        found: What was captured.
        inputs: The arguments that it was captured with.
        random_state: The state before that.
        compiler: Takes a graph and its inputs.

    Raises:
        CaptureError: If it does not compile, does not run, or comes to other results.
    """
    given = [*inputs, *found.closed]

    def begin() -> None:
        set_random_state(random_state)
        with torch.no_grad():
            for position, values in found.before.items():
                given[position].copy_(values)

    with rehearsal(given[i] for i in found.before):
        try:
            graph = Graph(found, compiler(found.graph, given))
            graph.copy_shared(list(inputs))
            begin()
            again = graph(list(inputs))
            if agree(again, (found.results, list(found.gradients))):
                return graph
            same = agree_in_double(found.graph, given, again, compiler, begin)
        except Exception as error:  # whatever a compiler may raise
            cause = getattr(error, "inner_exception", error)
            raise CaptureError(f"it does not compile here: {first_line(cause)}") from error
    if not same:
        raise CaptureError("its results are not those of its graph, once that is compiled")
    return graph
