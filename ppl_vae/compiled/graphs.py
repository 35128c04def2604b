"""A compiled graph: run in the function's place, and compared with it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import first_line
from .agreement import agree, agree_in_double, agree_nearby, larger
from .capture import (
    Capture,
    CaptureError,
    located_among,
    random_state,
    rehearsal,
    set_random_state,
)
from .cuda_graph import CUDAGraphCallable
from .leaf_gradients import add_gradients, gradients_apart, has_no_gradient
from .tracing import memory

ROUNDING = 16.0  # units in the last place, between two runs of the same operations


class GraphError(RuntimeError):
    """A graph that does not run."""


class OtherPathError(GraphError):
    """A graph of another path than the one that the program takes now."""


class Graph:
    """A compiled graph that returns what the function does, and gives leaves their gradients."""

    def __init__(self, found: Capture, run: Callable[..., Any]) -> None:
        self.closed, self.run, self._changed = found.closed, run, list(found.before)
        self.plain, self.guards, self.targets = found.graph, found.guards, found.leaves
        self._sets_gradients, self._located = found.sets_gradients, found.located
        self._draws = any(
            torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
            for node in found.graph.graph.nodes
        )
        self.recording: CUDAGraphCallable | None = None
        self.recorded_for: Any = None
        self.leaves, self.spec = pytree.tree_flatten(found.results)
        self.path = found.path
        self.computed = [isinstance(leaf, Tensor) for leaf in self.leaves]
        self.copied = [True] * len(found.leaves)

    def fits(self, inputs: list[Tensor]) -> bool:
        """Whether all is as it was when it was captured, that it takes for granted."""
        return self.guards.hold() and not self.hindrance(inputs)

    def hindrance(self, inputs: list[Tensor]) -> str:
        """What speaks against a run now, apart from guards; nothing, if all is well."""
        if self._sets_gradients and not all(map(has_no_gradient, self.targets)):
            return "its own code sets gradients, and there are some already"
        if located_among(inputs, self.guards) != self._located:
            return "an argument is another tensor than before of those that the program holds, too"
        if self._changed and self._overlaps(inputs):
            return "it changes a tensor that shares its memory with another"
        return ""

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

        token = recordable() if self.on_gpu(inputs) and not self.path else None
        # What was recorded sets gradients, and adds to none.
        if token is None or not all(map(has_no_gradient, self.targets)):
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

    def __call__(
        self,
        inputs: list[Tensor],
        plain: bool = False,
        closed: Sequence[Tensor] | None = None,
    ) -> tuple[Any, list[Tensor]]:
        """The results, and what is to be added to the gradient of each leaf.

        Arguments:
            inputs: The tensors of a call.
            plain: Whether to carry out what was captured, one operation after the other.
            closed: What takes the place of what is read beside them.

        Raises:
            GraphError: If it does not run through. Then nothing is changed, and nothing drawn.
            OtherPathError: If Python would decide otherwise now. Neither then.
        """
        # Without the hooks that others may have set on all modules.
        run = torch.no_grad()(self.plain.forward) if plain else self.run
        recorded = self.on_gpu(inputs) and torch.cuda.is_current_stream_capturing()
        state = random_state() if self._draws and not recorded else []
        before = [] if recorded else [(t, t.detach().clone()) for t in self.changed(inputs)]
        try:
            outputs = list(run(*inputs, *(self.closed if closed is None else closed)))
            self._follow(outputs)
        except Exception as error:
            if state:
                set_random_state(state)
            with torch.no_grad():
                for tensor, values in before:
                    tensor.copy_(values)
            if isinstance(error, OtherPathError):
                raise
            raise GraphError(f"its graph does not run: {first_line(error)}") from error
        given = iter(outputs)
        leaves = [
            next(given) if computed else leaf
            for leaf, computed in zip(self.leaves, self.computed, strict=True)
        ]
        gradients = [g.clone() if own else g for g, own in zip(given, self.copied, strict=True)]
        return pytree.tree_unflatten(leaves, self.spec), gradients

    def _follow(self, outputs: list[Tensor]) -> None:
        """Take what Python decides by off the outputs, and compare it with what it was."""
        for value, where in reversed(self.path):
            now = outputs.pop().item()
            if now != value:
                raise OtherPathError(
                    f"control flow depends on the value of a tensor, which was {value} when it was "
                    f"compiled, and now is {now} ({where})"
                )

    def copy_shared(self, inputs: list[Tensor]) -> None:
        """Find out which gradients lie where nothing else does: they need no copy of their own."""
        outputs = self.run(*inputs, *self.closed)
        used = [memory(tensor) for tensor in (*outputs, *inputs, *self.closed)]
        end = len(outputs) - len(self.path)
        gradients = outputs[end - len(self.copied) : end]
        self.copied = [used.count(memory(g)) > 1 or not g.is_contiguous() for g in gradients]


def first_run(
    found: Capture,
    inputs: Sequence[Tensor],
    random_states: tuple[list[Tensor], list[Tensor]],
    compiler: Callable[..., Any],
) -> Graph:
    """Compile what was captured, and compare it with the function on the same inputs and draws.

    Arguments:
        found: What was captured.
        inputs: The arguments that it was captured with.
        random_states: Those before and after that.
        compiler: Takes a graph and its inputs.

    Raises:
        CaptureError: If it does not compile, does not run, or comes to other results.
    """
    given = [*inputs, *found.closed]

    def begin() -> None:
        set_random_state(random_states[0])
        with torch.no_grad():
            for position, values in found.before.items():
                given[position].copy_(values)

    with rehearsal(given[i] for i in found.before):
        try:
            graph = Graph(found, compiler(found.graph, given))
            graph.copy_shared(list(inputs))
            begin()
            again = graph(list(inputs))
            drawn = zip(random_state(), random_states[1], strict=True)
            if not all(map(torch.equal, *zip(*drawn, strict=True))):
                raise CaptureError("it sets the state of torch's random numbers")
            if agree(again, (found.results, list(found.gradients))):
                return graph
            same = agree_in_double(found.graph, given, again, compiler, begin)
        except CaptureError:
            raise
        except Exception as error:  # whatever a compiler may raise
            cause = getattr(error, "inner_exception", error)
            raise CaptureError(f"it does not compile here: {first_line(cause)}") from error
    if not same:
        raise CaptureError("its results are not those of its graph, once that is compiled")
    return graph


def run_beside(graph: Graph, inputs: list[Tensor], function: Callable[[], Any]) -> tuple[Any, bool]:
    """Run a graph and, with the same draws, the function.

    Returns:
        The function's results, and whether the graph comes to the same: once it is compiled, or
        else one operation after the other, or but for what rounding of its inputs changes.
    """
    state = random_state()
    changed = {id(tensor): larger(tensor) for tensor in graph.changed(inputs)}
    with rehearsal(graph.changed(inputs)):
        again = graph(inputs)
    with rehearsal(graph.changed(inputs)):
        plain = graph(inputs, plain=True)
    with gradients_apart(graph.targets) as gradients:
        results = function()
        expected = results, gradients()
    if agree(again, expected) or agree(plain, expected, ROUNDING):
        return results, True
    given = [changed.get(id(t), larger(t)) for t in (*inputs, *graph.closed)]
    try:
        with rehearsal():
            set_random_state(state)
            nearby = graph(given[: len(inputs)], plain=True, closed=given[len(inputs) :])
    except GraphError:  # there is no path nearby
        return results, False
    return results, agree_nearby(again, expected, plain, nearby)
