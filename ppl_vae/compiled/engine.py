"""Functions that run Pyro programs: compiled where that is worth it, run as they are elsewhere."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import InitVar, dataclass
from typing import Any, get_args

import torch
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.utils import _pytree as pytree

from ..choices import Engine
from ..errors import InputError, first_line
from ..progress import OnProgress
from .agreement import agree
from .capture import Capture, CaptureError, capture, random_state, rehearsal, set_random_state
from .cuda_graph import CUDAGraphCallable
from .kernels import compile_graph

# Measured on two cores: what compiling takes, what a call saves, and for each number in it.
SECONDS_TO_COMPILE, SECONDS_SAVED = 15.0, 3e-3
STEP, DENSITY_AND_SLOPE, DENSITY = 3e-8, 6e-9, 3e-9
MOST_GRAPHS, MOST_SHAPES = 8, 64
FIRST_CHECK = 16  # calls of a graph before it is compared with the function again


class EagerWarning(UserWarning):
    """A program runs through Pyro at each call, and the message says why."""


def worth_compiling(calls: int, numbers: int, saved: float = STEP) -> bool:
    """Whether so many calls save more time than compiling takes.

    A rule of counts, not of clocks, so that the same program does the same every time.

    Arguments:
        calls: How often.
        numbers: Elements of all tensors given to a call.
        saved: Seconds that it saves for each of them: ``STEP``, ``DENSITY_AND_SLOPE``, ``DENSITY``.

    Example:
        >>> worth_compiling(calls=20 * 12, numbers=128 * 64)
        False
        >>> worth_compiling(calls=20 * 422, numbers=128 * 784)
        True
    """
    return calls * (SECONDS_SAVED + saved * numbers) > SECONDS_TO_COMPILE


class Compiled:
    """A function that runs a Pyro program: the same results from the same draws, without Pyro.

    The first call of a shape runs the function. Once it is worth it, a call is captured as a graph,
    which is compiled and compared with what the function returned; later calls run the graph. It
    is compared with the function again at its calls 16, 32, 64, ..., since what Python keeps, such
    as a weight in an attribute, is in no graph. What cannot be captured, or does not agree, runs as
    it is, with one :class:`EagerWarning` that names the cause.

    Tensors and floats may change from call to call, floats becoming tensors of no dimension. Each
    shape, and each value of anything else, is a graph of its own, and there are few of them. Where
    all tensors are on a GPU, the graph and what follows a call replay as one CUDA graph.

    Arguments:
        function: Takes and returns trees of tensors and other things.
        engine: ``"compiled"`` compiles the first shape at its second call, and others where it
            pays; ``"auto"`` all where it pays; ``"eager"`` none.
        modules: Whose modes, training or evaluation, make another shape.
        name: What messages call the function.

    Raises:
        InputError: If there is no such engine.

    Attributes:
        on_progress: Told, by a note, before and after something is compiled.
        on_result: Called with the results of each call, such as the step of an optimizer.
        recordable: Says whether ``on_result`` may be part of a CUDA graph, by an object that
            changes when it must be recorded anew, or ``None``.

    Example:
        >>> double = Compiled(lambda x: {"twice": 2 * x}, engine="compiled")
        >>> [double(torch.ones(2))["twice"].tolist() for _ in range(3)], double.graphs
        ([[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]], 1)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        engine: Engine = "auto",
        modules: Iterable[Any] = (),
        name: str = "the program",
    ) -> None:
        if engine not in get_args(Engine):
            raise InputError(
                "engine", f"must be one of {', '.join(get_args(Engine))}, got {engine!r}"
            )
        self.function, self.engine, self.name = function, engine, name
        self.on_progress: OnProgress = lambda share, note: None
        self.on_result: Callable[[Any], None] = lambda results: None
        self.recordable: Callable[[], Any] = lambda: None
        self._modules = list(modules)
        self._shapes: dict[Any, _Shape] = {}
        self._remembered: dict[str, list[int]] = {}
        self._warned = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Handlers around a call want to see the sites, which a graph does not have.
        shape, leaves = None, list[Any]()
        if self.engine != "eager" and not am_i_wrapped():
            leaves, spec = pytree.tree_flatten((args, kwargs))
            shape = self._shape(leaves, spec)
        if shape is not None:
            shape.calls += 1
            if shape.graph is not None and not shape.graph.fits():
                shape.graph = None  # parameters are of another type now, or elsewhere
            if shape.graph is not None and not shape.is_checked():
                return self._replay(shape.graph, shape.tensors(leaves))
        if shape is not None and shape.graph is not None:
            results = self._check(shape, shape.graph, leaves)
        elif shape is not None and not shape.refused and self._worth(shape):
            results = self._compile(shape, leaves)
        else:
            results = self.function(*args, **kwargs)
        self.on_result(results)
        return results

    @property
    def graphs(self) -> int:
        """How many graphs there are, those included that are yet to be made again."""
        return sum(has_graph for *_, has_graph in self.state().values())

    def forget(self) -> None:
        """Drop all graphs, as when parameters that they read have been replaced."""
        self._shapes.clear()
        self._remembered.clear()

    def state(self) -> dict[str, list[int]]:
        """What the next calls depend on beside their arguments, as plain data."""
        seen = {repr(key): shape.counts() for key, shape in self._shapes.items()}
        return self._remembered | seen

    def restore(self, state: dict[str, list[int]]) -> None:
        """Go on as the one did whose :meth:`state` it was: what was a graph is one again.

        Raises:
            ValueError: If it is no such state.
        """
        self.forget()
        if not all(len(counts) == 5 and {*map(type, counts)} == {int} for counts in state.values()):
            raise ValueError("what the engine has compiled is not five counts a shape")
        self._remembered = dict(state)

    def _shape(self, leaves: list[Any], spec: Any) -> "_Shape | None":
        described = tuple(map(_describe, leaves))
        modes = tuple(m.training for module in self._modules for m in module.modules())
        key = (spec, described, modes, torch.is_grad_enabled())
        try:
            known = self._shapes.get(key)
        except TypeError:
            self._warn("an argument is no tensor, and nothing that can be hashed")
            return None
        if known is None:
            counts = self._remembered.pop(repr(key), None)
            if len(self._shapes) + len(self._remembered) >= MOST_SHAPES:
                changes = _change(described, [shape.described for shape in self._shapes.values()])
                self._warn(f"its arguments keep changing, {changes}")
                return None
            known = self._shapes[key] = _Shape(spec, described, leaves)
            if counts is not None:
                self._remember(known, counts, leaves)
        return known

    def _remember(self, shape: "_Shape", counts: list[int], leaves: list[Any]) -> None:
        """Give a shape the counts it had, and its graph, by calls that leave no trace."""
        shape.calls, shape.compiled_at, shape.next_check, refused, has_graph = counts
        shape.refused = bool(refused)
        if not has_graph:
            return
        args, kwargs = pytree.tree_unflatten(leaves, shape.spec)
        buffers = [buffer for module in self._modules for buffer in module.buffers()]
        with rehearsal(buffers):
            self.function(*args, **kwargs)  # makes the parameters
        with rehearsal(buffers):
            self._compile(shape, leaves)
        shape.compiled_at = counts[1]

    def _worth(self, shape: "_Shape") -> bool:
        if self.engine == "compiled" and self.graphs == 0:
            return shape.calls > 1
        if shape.calls == 1 or not worth_compiling(shape.calls, shape.numbers):
            return False
        if self.graphs >= MOST_GRAPHS:
            self._refuse(shape, f"there are {MOST_GRAPHS} graphs already, for other arguments")
        return not shape.refused

    def _compile(self, shape: "_Shape", leaves: list[Any]) -> Any:
        """Capture this call, whose results are the function's own, and compile what it did."""
        inputs, before = shape.tensors(leaves), random_state()
        self.on_progress(0.0, "compiling, once")
        try:
            found = capture(shape.of_tensors(self.function, leaves), *inputs)
        except CaptureError as error:
            self._refuse(shape, str(error))
            set_random_state(before)
            args, kwargs = pytree.tree_unflatten(leaves, shape.spec)
            return self.function(*args, **kwargs)
        else:
            self._adopt(shape, found, inputs, before)
            return found.results
        finally:
            self.on_progress(0.0, "")

    def _adopt(
        self, shape: "_Shape", found: Capture, inputs: list[Tensor], before: list[Tensor]
    ) -> None:
        """Compile, and see whether the same draws give the same results."""
        try:
            given = [*inputs, *found.closed]
            with rehearsal(given[i] for i in found.before):
                graph = _Graph(found, compile_graph(found.graph, given))
                set_random_state(before)
                with torch.no_grad():
                    for position, values in found.before.items():
                        given[position].copy_(values)
                again = graph(inputs)
        except Exception as error:  # whatever a compiler may raise
            cause = getattr(error, "inner_exception", error)
            self._refuse(shape, f"it does not compile here: {first_line(cause)}")
            return
        shape.graph, shape.compiled_at = graph, shape.calls
        self._compare(shape, again, found.results)

    def _replay(self, graph: "_Graph", inputs: list[Tensor]) -> Any:
        """Run the graph, and what follows; on a GPU, as it was recorded."""

        def work(tensors: list[Tensor]) -> Any:
            results = graph(tensors)
            self.on_result(results)
            return results

        token = self.recordable() if graph.on_gpu(inputs) else None
        if token is None:
            return work(inputs)
        if graph.recorded_for is not token:
            graph.recorded_for = token
            try:
                graph.recording = CUDAGraphCallable(work, inputs)
            except RuntimeError as error:
                graph.recording = None
                self._warn(f"it cannot be a CUDA graph: {first_line(error)}")
        return work(inputs) if graph.recording is None else graph.recording(inputs)

    def _check(self, shape: "_Shape", graph: "_Graph", leaves: list[Any]) -> Any:
        """Run the graph and, with the same draws, the function, whose results are returned."""
        shape.next_check *= 2
        given = shape.tensors(leaves)
        with rehearsal(graph.changed(given)):
            again = graph(given)
        args, kwargs = pytree.tree_unflatten(leaves, shape.spec)
        results = self.function(*args, **kwargs)
        self._compare(shape, again, results)
        return results

    def _compare(self, shape: "_Shape", again: Any, results: Any) -> None:
        if not agree(again, results):
            shape.graph = None
            self._refuse(
                shape,
                "its results are not those of its graph: what it reads beside its arguments, such "
                "as a weight in an attribute, must be a tensor, changed in place, or an argument",
            )

    def _refuse(self, shape: "_Shape", reason: str) -> None:
        shape.refused = True
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{self.name} runs eagerly: {reason}", EagerWarning, stacklevel=4)


@dataclass
class _Shape:
    """Calls whose arguments differ in the values of tensors and floats only."""

    spec: Any
    described: tuple
    example: InitVar[list[Any]]
    calls: int = 0
    graph: "_Graph | None" = None
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

    def of_tensors(self, function: Callable[..., Any], leaves: list[Any]) -> Callable[..., Any]:
        """The function of these tensors alone."""

        def call(*tensors: Tensor) -> Any:
            given = iter(tensors)
            filled = [next(given) if isinstance(x, Tensor | float) else x for x in leaves]
            args, kwargs = pytree.tree_unflatten(filled, self.spec)
            return function(*args, **kwargs)

        return call


class _Graph:
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
