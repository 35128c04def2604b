"""Functions that run Pyro programs: compiled where that is worth it, run as they are elsewhere."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, get_args

import pyro
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor
from torch.utils import _pytree as pytree

from ..choices import Engine
from ..errors import InputError
from ..progress import OnProgress
from .agreement import agree
from .capture import CaptureError, capture, random_state, rehearsal, set_random_state
from .kernels import compile_graph
from .leaf_gradients import add_gradients, gradients_apart, gradients_of
from .shapes import FIRST_CHECK, FURTHEST_CHECK, Graph, GraphError, Shape, Shapes, first_run

# Measured on two cores: what compiling takes, what a call saves, and for each number in it.
SECONDS_TO_COMPILE, SECONDS_SAVED = 15.0, 3e-3
STEP, DENSITY_AND_SLOPE, DENSITY = 3e-8, 6e-9, 3e-9
# Compiling takes longer for graphs of more operations than a VAE's.
OPERATIONS = 300
MOST_GRAPHS = 8
FIRST_MISSES = 16  # calls in a row without a graph that fits, before there is another
ROUNDING = 16.0  # units in the last place, between two runs of the same operations


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
        self.on_progress: OnProgress = lambda share, note: None
        self.on_result: Callable[[Any], None] = lambda results: None
        self.recordable: Callable[[], Any] = lambda: None
        self.shapes = Shapes(modules)
        self._told: set[str] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.engine == "eager":
            return self._followed(self.function(*args, **kwargs))
        if am_i_wrapped():  # handlers around a call want to see the sites, which a graph lacks
            if self.engine == "compiled" and self.graphs == 0:
                self._warn("Pyro's handlers around it see its sites, which a graph does not have")
            return self._followed(self.function(*args, **kwargs))
        leaves, spec = pytree.tree_flatten((args, kwargs))
        try:
            shape = self._shape(leaves, spec)
        except CaptureError as error:
            self._warn(str(error), cause=str(error).partition(",")[0])
            return self._followed(self.function(*args, **kwargs))
        shape.calls += 1
        graph = shape.graph
        if graph is not None and self._fits(shape, graph, leaves):
            if shape.is_checked():
                return self._followed(self._check(shape, graph, leaves))
            try:
                follow = self.on_result, self.recordable, self._warn
                return graph.replay(shape.tensors(leaves), *follow)
            except GraphError as error:
                self._refuse(shape, str(error))
        if not shape.refused and self._worth(shape):
            return self._followed(self._compile(shape, leaves))
        return self._followed(shape.call(self.function, leaves))

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
            self._make_again(shape, leaves)
        elif self.engine == "compiled" and self.shapes.differ():
            self._warn("its arguments have had another shape, or other values, at each call so far")
        return shape

    def _make_again(self, shape: Shape, leaves: list[Any]) -> None:
        """Give a shape the graph that it had, by calls that leave no trace."""
        kept = shape.counts()
        buffers = [buffer for module in self.shapes.modules for buffer in module.buffers()]
        before = gradients_of(self._parameters())
        with rehearsal(buffers):
            shape.call(self.function, leaves)  # makes the parameters
        with rehearsal(buffers):
            self._compile(shape, leaves)
        for parameter in self._parameters():
            parameter.grad = before.get(id(parameter))
        shape.restore(kept)

    def _parameters(self) -> list[Tensor]:
        in_modules = [p for module in self.shapes.modules for p in module.parameters()]
        return [*in_modules, *pyro.get_param_store()._params.values()]

    def _fits(self, shape: Shape, graph: Graph, leaves: list[Any]) -> bool:
        if graph.fits(shape.tensors(leaves)):
            shape.misses = 0
            return True
        if graph.guards.moved():  # as after pyro.clear_param_store(), or net.double()
            shape.graph, shape.calls, shape.misses = None, 1, 0
            return False
        shape.misses += 1
        for name, change in graph.guards.broken():
            self._warn(
                f"{name} {change}, since it was compiled: hand over what changes as an argument, "
                "or as a tensor that is changed in place",
                cause=name,
            )
            break
        return False

    def _worth(self, shape: Shape) -> bool:
        if shape.graph is not None:
            missed = shape.misses >= FIRST_MISSES * 4**shape.compiled
            if self.engine == "auto":
                missed = missed and worth_compiling(shape.misses, shape.numbers)
            return missed and shape.compiled < MOST_GRAPHS
        if shape.compiled >= MOST_GRAPHS:
            self._refuse(shape, f"{MOST_GRAPHS} graphs were made, and each time something changed")
            return False
        if self.engine == "compiled" and self.graphs == 0:
            return shape.calls > 1
        worth = shape.calls > 1 and worth_compiling(shape.calls / shape.weight, shape.numbers)
        if worth and self.graphs >= MOST_GRAPHS:
            self._refuse(shape, f"there are {MOST_GRAPHS} graphs already, for other arguments")
        return worth and not shape.refused

    def _compile(self, shape: Shape, leaves: list[Any]) -> Any:
        """Capture this call, whose results are the function's own, and compile what it did."""
        inputs, before = shape.tensors(leaves), random_state()
        self.on_progress(0.0, "compiling, once")
        try:
            found = capture(shape.of_tensors(self.function, leaves), *inputs)
        except CaptureError as error:
            self._refuse(shape, str(error))
            if error.results:
                return error.results[0]
            set_random_state(before)
            return shape.call(self.function, leaves)
        else:
            self._run_first(shape, found, inputs, before)
            return found.results
        finally:
            self.on_progress(0.0, "")

    def _run_first(self, shape: Shape, found: Any, inputs: list[Any], before: Any) -> None:
        shape.weight = max(1.0, len(found.graph.graph.nodes) / OPERATIONS)
        if self.engine == "auto" and not worth_compiling(shape.calls / shape.weight, shape.numbers):
            return
        shape.compiled_at, shape.compiled = shape.calls, shape.compiled + 1
        shape.next_check = FIRST_CHECK
        try:
            shape.graph = first_run(found, inputs, before, compile_graph)
        except CaptureError as error:
            self._refuse(shape, str(error))

    def _check(self, shape: Shape, graph: Graph, leaves: list[Any]) -> Any:
        """Run the graph and, with the same draws, the function, whose results are returned."""
        shape.next_check += min(shape.next_check, FURTHEST_CHECK)
        given = shape.tensors(leaves)
        with rehearsal(graph.changed(given)):
            again = graph(given)
        with rehearsal(graph.changed(given)):
            plain = graph(given, plain=True)
        with gradients_apart(graph.targets) as gradients:
            results = shape.call(self.function, leaves)
            expected = results, gradients()
        if not agree(again, expected) and not agree(plain, expected, ROUNDING):
            self._refuse(
                shape,
                "its results are not those of its graph: what it reads beside its arguments must "
                "be a tensor, changed in place, or an argument",
            )
        add_gradients(graph.targets, expected[1])
        return results

    def _refuse(self, shape: Shape, reason: str) -> None:
        shape.refused, shape.graph = True, None
        self._warn(reason)

    def _warn(self, reason: str, cause: str = "") -> None:
        if (cause or reason) not in self._told:
            self._told.add(cause or reason)
            warnings.warn(f"{self.name} runs eagerly: {reason}", EagerWarning, stacklevel=4)
