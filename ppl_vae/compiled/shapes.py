"""The shapes of calls that a compiled function has seen, and the graph of each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import first_line
from .capture import Capture, CaptureError, rehearsal, set_random_state
from .cuda_graph import CUDAGraphCallable

MOST_SHAPES = 64
FIRST_CHECK = 16  # calls of a graph before it is compared with the function again


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
        key = (spec, described, modes, torch.is_grad_enabled())
        try:
            known = self._known.get(key)
        except TypeError:
            raise CaptureError("an argument is not a tensor, and cannot be hashed") from None
        if known is not None:
            return known, False
        counts = self._remembered.pop(repr(key), None)
        if len(self._known) + len(self._remembered) >= MOST_SHAPES:
            changes = _change(described, [shape.described for shape in self._known.values()])
            raise CaptureError(f"its arguments keep changing, {changes}")
        shape = self._known[key] = Shape(spec, described, leaves)
        return shape, counts is not None and shape.restore(counts)

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
        if not all(len(counts) == 5 and {*map(type, counts)} == {int} for counts in state.values()):
            raise ValueError("what the engine has compiled is not five counts a shape")
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
    refused: bool = False

    def __post_init__(self, example: list[Any]) -> None:
        tensors = [leaf for leaf in example if isinstance(leaf, Tensor)]
        self.numbers = sum(tensor.numel() for tensor in tensors)
        self.device = tensors[0].device if tensors else torch.device("cpu")
        floating = [tensor.dtype for tensor in tensors if tensor.is_floating_point()]
        self.dtype = floating[0] if floating else torch.get_default_dtype()

    def counts(self) -> list[int]:
        """What a shape of the same kind must be given to go on as this one."""
        has_graph = self.graph is not None
        return [self.calls, self.compiled_at, self.next_check, int(self.refused), int(has_graph)]

    def restore(self, counts: list[int]) -> bool:
        """Take the :meth:`counts` of another shape, and say whether it had a graph."""
        self.calls, self.compiled_at, self.next_check, refused, had_graph = counts
        self.refused = bool(refused)
        return bool(had_graph)

    def is_checked(self) -> bool:
        """Whether this call is one of those at which the graph is compared with the function."""
        return self.calls - self.compiled_at == self.next_check

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


class Graph:
    """A compiled graph that returns what the function does."""

    def __init__(self, found: Capture, run: Callable[..., Any]) -> None:
        self.closed, self.run, self._changed = found.closed, run, list(found.before)
        self.recording: CUDAGraphCallable | None = None
        self.recorded_for: Any = None
        self.kinds = list(map(_kind, found.closed))
        self.leaves, self.spec = pytree.tree_flatten(found.results)
        self.computed = [isinstance(leaf, Tensor) for leaf in self.leaves]

    def fits(self) -> bool:
        """Whether what it reads beside its inputs is where and what it was."""
        return list(map(_kind, self.closed)) == self.kinds

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
            results = self(tensors)
            follow(results)
            return results

        token = recordable() if self.on_gpu(inputs) else None
        if token is None:
            return work(inputs)
        if self.recorded_for is not token:
            self.recorded_for, self.recording = token, None
            try:
                self.recording = CUDAGraphCallable(work, inputs)
            except RuntimeError as error:
                warn(f"it cannot be a CUDA graph: {first_line(error)}")
        return work(inputs) if self.recording is None else self.recording(inputs)

    def on_gpu(self, inputs: list[Tensor]) -> bool:
        """Whether nothing that it reads is elsewhere."""
        return all(tensor.is_cuda for tensor in (*inputs, *self.closed))

    def __call__(self, inputs: list[Tensor]) -> Any:
        outputs = iter(self.run(*inputs, *self.closed))
        leaves = [
            next(outputs) if computed else leaf
            for leaf, computed in zip(self.leaves, self.computed, strict=True)
        ]
        return pytree.tree_unflatten(leaves, self.spec)


def _kind(tensor: Tensor) -> Any:
    return tensor.dtype, tensor.device, tensor.shape, tensor.stride()


def _describe(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.device, leaf.requires_grad
    return float if isinstance(leaf, float) else (type(leaf), leaf)


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
) -> tuple[Graph, Any]:
    """Compile what was captured, and run it on the same inputs and draws.

    Arguments:
        found: What was captured.
        inputs: The arguments that it was captured with.
        random_state: The state before that.
        compiler: Takes a graph and its inputs.

    Returns:
        The graph, and its results.

    Raises:
        CaptureError: If it does not compile, or does not run.
    """
    given = [*inputs, *found.closed]
    with rehearsal(given[i] for i in found.before):
        try:
            graph = Graph(found, compiler(found.graph, given))
            set_random_state(random_state)
            with torch.no_grad():
                for position, values in found.before.items():
                    given[position].copy_(values)
            return graph, graph(list(inputs))
        except Exception as error:  # whatever a compiler may raise
            cause = getattr(error, "inner_exception", error)
            raise CaptureError(f"it does not compile here: {first_line(cause)}") from error
