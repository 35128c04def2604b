"""Functions that run Pyro programs: compiled where that is worth it, run as they are elsewhere."""

import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, get_args

import pyro
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor

from ..choices import Engine
from ..errors import InputError
from ..progress import OnProgress
from .capture import CaptureError, capture, random_state, rehearsal
from .graphs import Graph, GraphError, OtherPathError, first_run, run_beside
from .kernels import compile_graph
from .leaf_gradients import gradients_of
from .shapes import FIRST_CHECK, FIRST_MISSES, Shape, Shapes, flatten, has_floats

# Measured on two cores: what compiling takes, what a call saves, and for each number in it.
SECONDS_TO_COMPILE, SECONDS_SAVED = 15.0, 3e-3
STEP, DENSITY_AND_SLOPE, DENSITY = 3e-8, 6e-9, 3e-9
# Compiling takes longer for graphs of more operations than a VAE's.
OPERATIONS = 300
MOST_GRAPHS = 8
Compiler = Callable[..., Callable[..., Any]]
SINCE_THEN = (
    "since it was compiled: hand over what changes as an argument, or as a tensor that is changed "
    "in place"
)


class EagerWarning(UserWarning):
    """A program runs through Pyro at each call, and the message says why."""


def worth_compiling(calls: float, numbers: int, saved: float = STEP) -> bool:
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

    Once it is worth it, a call of a shape is captured as a graph, which later calls run. What the
    graph takes for granted of Python's state, such as a weight in an attribute, is compared at each
    call: where it has changed, the function runs as it is, and after a while makes another graph.
    Graph and function are compared at once, and at calls 16, 32, 64, ..., then every 1,024. What
    cannot be captured, or does not agree, runs as it is. An :class:`EagerWarning` names each cause.
    Tensors and floats may change from call to call. Each shape, and each value of anything else, is
    a graph of its own. On a GPU, the graph and what follows a call replay as one CUDA graph.

    Arguments:
        function: Takes and returns trees of tensors and other things.
        engine: ``"compiled"`` compiles the first shape at its second call, and others, as
            ``"auto"`` does all, where that is worth it; ``"eager"`` none.
        modules: Whose modes, training or evaluation, make another shape.
        name: What messages call the function.

    Raises:
        InputError: If there is no such engine.

    Attributes:
        on_progress: Told by a note before something is compiled, and after it.
        on_result: Takes the results of each call, such as the step of an optimizer.
        compiler: Takes a graph and its inputs, and gives what runs in its place.
        quiet: Whether no warning says what cannot be captured, where nobody asked for a graph.
        recordable: Gives what changes when ``on_result`` must be recorded anew in a CUDA graph.

    Example:
        >>> import torch
        >>> double = Compiled(lambda x: 2 * x, engine="compiled")
        >>> [double(torch.ones(1)).item() for _ in range(3)], double.graphs
        ([2.0, 2.0, 2.0], 1)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        engine: Engine = "auto",
        modules: Iterable[Any] = (),
        name: str = "the program",
    ) -> None:
        if engine not in get_args(Engine):
            raise InputError("engine", f"must be one of {get_args(Engine)}, got {engine!r}")
        self.function, self.engine, self.name = function, engine, name
        self.compiler, self.quiet = compile_graph, False
        self.on_progress: OnProgress = lambda share, note: None
        self.on_result: Callable[[Any], None] = lambda results: None
        self.recordable: Callable[[], Any] = lambda: None
        self.shapes, self._told = Shapes(modules), set[str]()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Handlers around a call want to see the sites, which a graph lacks.
        if self.engine == "eager" or am_i_wrapped():
            if self.engine == "compiled" and self.graphs == 0:
                self._warn("Pyro's handlers around it see its sites, which a graph does not have")
            return self._followed(self.function(*args, **kwargs))
        call = partial(self.function, *args, **kwargs)  # as they are: it may change what they hold
        try:
            leaves, spec = flatten(args, kwargs)
            shape = self._shape(leaves, spec)
        except CaptureError as error:
            self._warn(str(error), cause=str(error).partition(",")[0])
            return self._followed(call())
        shape.calls, graph = shape.calls + 1, shape.graph
        if graph is not None and self._fits(shape, graph, leaves):
            if shape.is_checked():
                return self._followed(_check(shape, leaves, call, self._failed))
            try:
                inputs = shape.tensors(leaves)
                return graph.replay(inputs, self.on_result, self.recordable, self._warn)
            except GraphError as error:
                results = call()  # which may raise the same error, as its own
                self._failed(shape, error)
                return self._followed(results)
        if not shape.refused and self._worth(shape):
            return self._followed(self._compile(shape, leaves, call))
        return self._followed(call())

    @property
    def graphs(self) -> int:
        """How many graphs there are, those included that are yet to be made again."""
        return self.shapes.graphs()

    def _followed(self, results: Any) -> Any:
        self.on_result(results)
        return results

    def _shape(self, leaves: list[Any], spec: Any) -> Shape:
        shape, had_graph = self.shapes.find(leaves, spec)
        if had_graph:
            _make_again(shape, self.function, leaves, self.shapes.modules, self.compiler)
        elif self.engine == "compiled" and self.shapes.differ():
            self._warn("its arguments have had another shape, or other values, at each call so far")
        return shape

    def _fits(self, shape: Shape, graph: Graph, leaves: list[Any]) -> bool:
        inputs = shape.tensors(leaves)
        if graph.fits(inputs):
            shape.misses = 0
            return True
        if graph.guards.moved():  # as after pyro.clear_param_store(), or net.double()
            shape.graph, shape.calls, shape.misses = None, 1, 0
            return False
        shape.misses += 1
        name, change = next(graph.guards.broken(), ("", ""))
        reason = f"{name} {change}, {SINCE_THEN}" if name else graph.hindrance(inputs)
        if name or shape.misses == FIRST_MISSES:  # a step or two by hand are not worth a word
            self._warn(reason, cause=name)
        return False

    def _worth(self, shape: Shape) -> bool:
        worth = _is_due(shape, self.engine == "compiled", self.graphs == 0)
        if worth and sys.getprofile() is not None:  # there is but one such hook, and guards need it
            self._warn("a profiler sees its calls, as cProfile does, and nothing can be captured")
            return False
        if worth and (surplus := _surplus(shape, self.graphs)):
            self._refuse(shape, surplus)
        return worth and not shape.refused

    def _compile(self, shape: Shape, leaves: list[Any], call: Callable[[], Any]) -> Any:
        self.on_progress(0.0, "compiling, once")
        try:
            refusal = _make_graph(shape, self.function, leaves, self.engine, self.compiler)
        finally:
            self.on_progress(0.0, "")
        if shape.graph is not None:
            return _check(shape, leaves, call, self._failed)
        found = call()  # which may raise an error of its own
        if refusal:
            self._refuse(shape, refusal)
        return found

    def _failed(self, shape: Shape, error: GraphError) -> None:
        """A graph was of no use at this call, and may be of none at all."""
        if not isinstance(error, OtherPathError):
            self._refuse(shape, str(error))
        elif shape.strays_too_often():
            self._refuse(shape, f"its graph fits too rarely: {error}")
        else:
            self._warn(str(error), cause="control flow")

    def _refuse(self, shape: Shape, reason: str) -> None:
        shape.refused, shape.graph = True, None
        self._warn(reason)

    def _warn(self, reason: str, cause: str = "") -> None:
        if not self.quiet and (cause or reason) not in self._told:
            self._told.add(cause or reason)
            warnings.warn(f"{self.name} runs eagerly: {reason}", EagerWarning, stacklevel=4)


def _check(
    shape: Shape,
    leaves: list[Any],
    call: Callable[[], Any],
    failed: Callable[[Shape, GraphError], None],
) -> Any:
    """Run the graph and, with the same draws, the function, whose results are returned."""
    assert shape.graph is not None
    try:
        results, same = run_beside(shape.graph, shape.tensors(leaves), call)
    except GraphError as error:
        results, same = call(), True  # which may raise the same error, as its own
        failed(shape, error)
    if not same:
        failed(shape, GraphError("its results are not those of its graph"))
    return results


def _is_due(shape: Shape, wanted: bool, first: bool) -> bool:
    """Whether a graph, or another one, is worth what it costs; ``wanted`` in any case, or so."""
    if shape.graph is not None:  # one that does not fit
        missed = shape.misses >= FIRST_MISSES * 4**shape.compiled
        return missed and (wanted or _saves(shape, shape.misses))
    return shape.calls > 1 and ((wanted and first) or _saves(shape, shape.calls))


def _surplus(shape: Shape, graphs: int) -> str:
    """Why there are graphs enough, if there are."""
    if shape.compiled >= MOST_GRAPHS:
        return f"{MOST_GRAPHS} graphs were made, and each time something changed"
    if shape.graph is None and graphs >= MOST_GRAPHS:
        return f"there are {MOST_GRAPHS} graphs already, for other arguments"
    return ""


def _saves(shape: Shape, calls: int) -> bool:
    return worth_compiling(calls / shape.weight, shape.numbers)


def _make_graph(
    shape: Shape,
    function: Callable[..., Any],
    leaves: list[Any],
    engine: Engine,
    compiler: Compiler,
) -> str:
    """Capture a call and compile what it did. This is a rehearsal, which leaves no trace.

    Arguments:
        shape: What is given the graph.
        function: What is called.
        leaves: Its arguments.
        engine: If ``"compiled"``, it is compiled even if that does not save enough.
        compiler: What compiles it.

    Returns:
        What speaks against a graph, if anything.
    """
    shape.graph = None  # one that no longer fits
    try:
        found = capture(shape.of_tensors(function, leaves), *shape.tensors(leaves))
        if shape.widen(leaves, found.closed):  # floats must be as precise as all that they meet
            found = capture(shape.of_tensors(function, leaves), *shape.tensors(leaves))
        if found.asks_for_types and has_floats(leaves):
            raise CaptureError(
                "its own code asks for types, and an argument that is a float is a tensor to its "
                "graph: hand it over as a tensor"
            )
        shape.weight = max(1.0, len(found.graph.graph.nodes) / OPERATIONS)
        if engine == "compiled" or _saves(shape, shape.calls):
            shape.compiled_at, shape.compiled = shape.calls, shape.compiled + 1
            shape.next_check = FIRST_CHECK
            states = random_state(), found.drawn
            shape.graph = first_run(found, shape.tensors(leaves), states, compiler)
    except CaptureError as error:
        return str(error)
    return ""


def _make_again(
    shape: Shape,
    function: Callable[..., Any],
    leaves: list[Any],
    modules: list[Any],
    compiler: Compiler,
) -> None:
    """Give a shape the graph that it had, by calls that leave no trace."""
    kept, before = shape.counts(), gradients_of(_parameters(modules))
    buffers = [buffer for module in modules for buffer in module.buffers()]
    with rehearsal(buffers), suppress(CaptureError):
        shape.call(function, leaves)  # makes the parameters
    with rehearsal(buffers):
        _make_graph(shape, function, leaves, "compiled", compiler)
    for parameter in _parameters(modules):
        parameter.grad = before.get(id(parameter))
    shape.restore(kept)


def _parameters(modules: Iterable[Any]) -> list[Tensor]:
    in_modules = [parameter for module in modules for parameter in module.parameters()]
    return [*in_modules, *pyro.get_param_store()._params.values()]
