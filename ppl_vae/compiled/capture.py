"""A function that runs a Pyro program, as one graph of tensor operations."""

import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.utils import _pytree as pytree

from ..errors import first_line
from .guards import Guards, kind_of
from .recorder import Recorder
from .sources import NONE
from .tracing import Operations, Reads, Run, memory, place

# It returns nothing, but raises an error; older versions of torch would leave it out.
fx.node.has_side_effect(torch.ops.aten._linalg_check_errors.default)


class CaptureError(RuntimeError):
    """What keeps a function from being one graph, in one line."""


@dataclass(frozen=True)
class Capture:
    """A function as a graph.

    Attributes:
        graph: Takes the tensors of the function's arguments, then ``closed``; returns the tensors
            among its results, then the gradients of ``leaves``, then what is in ``path``.
        closed: What the function reads beside its arguments, such as parameters and buffers.
        results: What it returned while it was captured.
        leaves: What it gave gradients to, as ``backward()`` does.
        gradients: Those gradients.
        sets_gradients: Whether its own code may set gradients, and not only add to them.
        asks_for_types: Whether its own code may tell a tensor from a number.
        before: What it changes in place of all these inputs: their former values, by position.
        path: The whole numbers that Python has decided by, each with the line that read it.
        drawn: The state of torch's random numbers, once it was through.
        guards: What the graph takes for granted of Python's state.
        located: Which inputs are tensors that this state holds, too, and which of them.
    """

    graph: fx.GraphModule
    closed: tuple[Tensor, ...]
    results: Any
    leaves: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    sets_gradients: bool
    asks_for_types: bool
    before: dict[int, Tensor]
    path: list[tuple[int | float, str]]
    drawn: list[Tensor]
    guards: Guards
    located: list[tuple[int, int]]


def capture(function: Callable[..., Any], *inputs: Tensor) -> Capture:
    """Run a function once, and record what it does to tensors, and what it reads in Python.

    Gradients that it takes are recorded with it, and so is what it changes in place. Pyro's
    validation is off, and a number that ``.item()`` reads stays a tensor: Pyro's estimators sum
    such numbers up for the loss that they return. The run is a rehearsal, which leaves no trace.

    Arguments:
        function: Returns any tree of tensors and other things; the latter are taken as constant.
        inputs: Its arguments.

    Raises:
        CaptureError: If what it does is no graph: it chooses by a number that may be rounded, draws
            other random numbers than torch's, changes Python's state, prints, or raises an error.

    Example:
        >>> weight = torch.ones(3)
        >>> found = capture(lambda x: {"sum": (x * weight).sum()}, torch.arange(3.0))
        >>> weight.mul_(2)  # which the graph sees
        tensor([2., 2., 2.])
        >>> found.graph(torch.arange(3.0), *found.closed)
        [tensor(6.)]
        >>> capture(lambda x: x if x.sum() > 0 else -x, torch.ones(3))
        Traceback (most recent call last):
        ppl_vae.compiled.capture.CaptureError: control flow depends on the value of a ...
    """
    return _Capturing(function).of(inputs)


class _Capturing:
    """What :func:`capture` does, in steps."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.run = function, Run()
        self.recorder = Recorder(self.run.refuse)
        self.results: Any = None
        self.added: list[tuple[Tensor, Tensor]] = []
        self.parameters: dict[str, Tensor] = {}

    def of(self, inputs: tuple[Tensor, ...]) -> Capture:
        cause: BaseException | None = None
        with self.recorder, rehearsal(), _store_kept():
            self.operations = Operations(self.run, self.recorder.existed)
            try:
                graph = self._trace(inputs)
                drawn = random_state()
                closed = self._close(graph, inputs)
            except KeyboardInterrupt:  # which is no doing of the program's
                raise
            except BaseException as error:  # whatever make_fx, or the function, raises
                cause = error
                if not self.run.refusal:
                    where = _culprit(error)
                    self.run.refusal = first_line(error) + (f" ({where})" if where else "")
            finally:
                self.operations.undo()
                self.recorder.undo()
        if self.run.refusal:
            raise CaptureError(self.run.refusal) from cause
        leaves, gradients = zip(*self.added, strict=True) if self.added else ((), ())
        return Capture(
            graph=graph,
            closed=closed,
            results=self.results,
            leaves=leaves,
            gradients=gradients,
            sets_gradients=self.recorder.sets_gradients,
            asks_for_types=self.recorder.asks_for_types,
            before=self._former((*inputs, *closed)),
            path=[(value, where) for _, value, where in self.operations.decisions],
            drawn=drawn,
            guards=self.recorder.state.guards,
            located=located_among(inputs, self.recorder.state.guards),
        )

    def _trace(self, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
        with (
            pyro.validation_enabled(False),
            torch.autograd.set_multithreading_enabled(False),
            warnings.catch_warnings(),  # a run that counts tells them, too
            # One for all nodes: make_fx would make one for each, which takes longer.
            tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))),
        ):
            warnings.simplefilter("ignore")
            self.recorder.state.open(self.function, NONE, "the function")
            # Aliases, for a tensor that is an argument may also be read as a global.
            return make_fx(self._flat)(*(tensor.view_as(tensor) for tensor in inputs))

    def _flat(self, *arguments: Tensor) -> list[Tensor]:
        self.operations.arguments = set(map(id, arguments))
        with self.operations, Reads(self.run):
            with self.recorder.watching(), poutine.trace(param_only=True) as found:
                results = self.function(*arguments)
            self.added = self.operations.added()
        sites: Any = found.trace.nodes.items()
        self.parameters = {name: site["value"].unconstrained() for name, site in sites}
        with disable_proxy_modes_tracing():  # as they are now, for what is changed is undone
            copied = lambda tensor: tensor.detach().clone()  # noqa: E731
            self.results = pytree.tree_map_only(Tensor, copied, results)
        tensors = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]
        decided = [decision.tensor for decision in self.operations.decisions]
        return [*tensors, *(gradient for _, gradient in self.added), *decided]

    def _close(self, graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What the graph reads beside its inputs, once all is said against it that there is."""
        closed = _lift(graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        self.changed = self.operations.changed((*inputs, *closed))
        self.run.refusal = (
            self.run.refusal
            or self._unguarded(closed)
            or self.recorder.changed()
            or _shared(self.changed, (*inputs, *closed))
        )
        for tensor in closed:
            kind = tensor, kind_of(tensor)
            self.recorder.state.guards.add("tensors", kind, _called(tensor, self.parameters))
        if self.recorder.sets_gradients and not self.operations.began_without_gradients:
            self.run.refusal = self.run.refusal or (
                "its own code sets gradients, and there were some before"
            )
        if self.run.floats and self.recorder.asks_for_types:
            self.run.refusal = self.run.refusal or (
                "its own code asks for types, and what .item() gives is a tensor to its graph"
            )
        return closed

    def _former(self, tensors: tuple[Tensor, ...]) -> dict[int, Tensor]:
        return {position: tensors[position].detach().clone() for position in self.changed}

    def _unguarded(self, closed: tuple[Tensor, ...]) -> str:
        """What the graph reads of which nobody knows where the program found it."""
        store = pyro.get_param_store()._params
        known = set()
        for name, parameter in self.parameters.items():
            if id(parameter) not in self.recorder.existed:
                return f"it makes the parameter {name} anew"
            if store.get(name) is parameter:
                self.recorder.state.guards.add(
                    "parameters", (name, parameter), f"the parameter {name}"
                )
                known.add(id(parameter))
            elif not self.recorder.state.holds(parameter):
                return f"it replaces the parameter {name}"
        for tensor in closed:
            if tensor.requires_grad and not tensor.is_leaf:
                return "it reads a tensor whose gradient goes on outside of it"
            if id(tensor) not in self.recorder.existed:
                return "a tensor that it computes is a constant to its graph, as in TraceGraph_ELBO"
            if id(tensor) not in known and not self.recorder.state.holds(tensor):
                shape = tuple(tensor.shape)
                return f"it reads a tensor of shape {shape} that no name in its code leads to"
        return ""


@contextmanager
def rehearsal(tensors: Iterable[Tensor] = ()) -> Iterator[None]:
    """Undo what happens inside: to random state, and to the values of some tensors."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
        with torch.no_grad():
            for tensor, values in kept:
                tensor.copy_(values)


@contextmanager
def _store_kept() -> Iterator[None]:
    """Undo what happens to Pyro's store, values apart."""
    store = pyro.get_param_store()
    entries: list[dict[Any, Any]] = [store._params, store._constraints, store._param_to_name]
    kept = [dict(mapping) for mapping in entries]
    try:
        yield
    finally:
        for mapping, before in zip(entries, kept, strict=True):
            if mapping.keys() != before.keys() or any(mapping[k] is not before[k] for k in before):
                mapping.clear()
                mapping.update(before)


def random_state() -> list[Tensor]:
    """The state of torch's default generators, the processor's first."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_gpus]


def set_random_state(state: list[Tensor]) -> None:
    """Go back to what :func:`random_state` returned."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


def located_among(inputs: Iterable[Tensor], guards: Guards) -> list[tuple[int, int]]:
    """Which inputs are tensors that Python's state holds, too: their positions and identities."""
    return [pair for pair in enumerate(map(id, inputs)) if pair[1] in guards.located]


def _called(tensor: Tensor, parameters: dict[str, Tensor]) -> str:
    for name, parameter in parameters.items():
        if parameter is tensor:
            return f"the parameter {name}"
    return f"a tensor of shape {tuple(tensor.shape)}"


def _shared(changed: list[int], inputs: tuple[Tensor, ...]) -> str:
    """Whether memory that the program changes is that of two of its inputs."""
    places = [memory(tensor) for tensor in inputs if tensor.numel()]
    if any(places.count(memory(inputs[position])) > 1 for position in changed):
        return "it changes a tensor that shares its memory with another"
    return ""


def _culprit(error: BaseException) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))
    inside = (n for n, (frame, _) in enumerate(frames) if frame.f_code.co_name == "_flat")
    return place(reversed(frames[next(inside, len(frames)) + 1 :]))


def _lift(graph: fx.GraphModule) -> tuple[Tensor, ...]:
    """Turn what a graph holds, literals apart, into inputs: it is read anew at each run."""
    places: dict[str, fx.Node] = {}
    closed: list[Tensor] = []
    inputs = list(graph.graph.find_nodes(op="placeholder"))
    for node in list(graph.graph.find_nodes(op="get_attr")):
        if all(user.target is torch.ops.aten.lift_fresh_copy.default for user in node.users):
            continue  # a number in the program's text
        if node.target not in places:
            # Before the first node, if there is no input yet.
            at = (
                graph.graph.inserting_after(inputs[-1])
                if inputs
                else graph.graph.inserting_before()
            )
            with at:
                inputs.append(graph.graph.placeholder(node.target))
            places[node.target] = inputs[-1]
            closed.append(getattr(graph, node.target))
        node.replace_all_uses_with(places[node.target])
        graph.graph.erase_node(node)
    return tuple(closed)
