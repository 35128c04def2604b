"""Functions that run Pyro programs: compiled where that is worth it, run as they are elsewhere."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, get_args

from pyro.poutine.runtime import am_i_wrapped
from torch.utils import _pytree as pytree

from ..choices import Engine
from ..errors import InputError
from ..progress import OnProgress
from .agreement import agree
from .capture import CaptureError, capture, random_state, rehearsal, set_random_state
from .kernels import compile_graph
from .shapes import Graph, Shape, Shapes, first_run

# Measured on two cores: what compiling takes, what a call saves, and for each number in it.
SECONDS_TO_COMPILE, SECONDS_SAVED = 15.0, 3e-3
STEP, DENSITY_AND_SLOPE, DENSITY = 3e-8, 6e-9, 3e-9
MOST_GRAPHS = 8


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

    Once it is worth it, a call of a shape is captured as a graph, which later calls run. It is
    compared with the function at once, and at its calls 16, 32, 64, ..., since what Python keeps,
    such as a weight in an attribute, is in no graph. What cannot be captured, or does not agree,
    runs as it is, with one :class:`EagerWarning` that names the cause.

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
        self.shapes, self._warned = Shapes(modules), False

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
                follow = self.on_result, self.recordable, self._warn
                return shape.graph.replay(shape.tensors(leaves), *follow)
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
        return self.shapes.graphs()

    def _shape(self, leaves: list[Any], spec: Any) -> Shape | None:
        try:
            shape, had_graph = self.shapes.find(leaves, spec)
        except CaptureError as error:
            self._warn(str(error))
            return None
        if had_graph:
            self._make_again(shape, leaves)
        return shape

    def _make_again(self, shape: Shape, leaves: list[Any]) -> None:
        """Give a shape the graph that it had, by calls that leave no trace."""
        compiled_at = shape.compiled_at
        buffers = [buffer for module in self.shapes.modules for buffer in module.buffers()]
        with rehearsal(buffers):
            shape.call(self.function, leaves)  # makes the parameters
        with rehearsal(buffers):
            self._compile(shape, leaves)
        shape.compiled_at = compiled_at

    def _worth(self, shape: Shape) -> bool:
        if self.engine == "compiled" and self.graphs == 0:
            return shape.calls > 1
        worth = shape.calls > 1 and worth_compiling(shape.calls, shape.numbers)
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
            set_random_state(before)
            return shape.call(self.function, leaves)
        else:
            shape.compiled_at = shape.calls
            try:
                shape.graph, again = first_run(found, inputs, before, compile_graph)
                self._compare(shape, again, found.results)
            except CaptureError as error:
                self._refuse(shape, str(error))
            return found.results
        finally:
            self.on_progress(0.0, "")

    def _check(self, shape: Shape, graph: Graph, leaves: list[Any]) -> Any:
        """Run the graph and, with the same draws, the function, whose results are returned."""
        shape.next_check *= 2
        with rehearsal(graph.changed(given := shape.tensors(leaves))):
            again = graph(given)
        results = shape.call(self.function, leaves)
        self._compare(shape, again, results)
        return results

    def _compare(self, shape: Shape, again: Any, results: Any) -> None:
        if not agree(again, results):
            shape.graph = None
            self._refuse(
                shape,
                "its results are not those of its graph: what it reads beside its arguments, such "
                "as a weight in an attribute, must be a tensor, changed in place, or an argument",
            )

    def _refuse(self, shape: Shape, reason: str) -> None:
        shape.refused = True
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{self.name} runs eagerly: {reason}", EagerWarning, stacklevel=4)
