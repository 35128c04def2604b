"""A function that runs a Pyro program, as one graph of tensor operations."""

import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pyro
import torch
from pyro import poutine
from torch import Tensor, fx
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ..errors import first_line
from .guards import Guards, kind_of
from .recorder import Recorder
from .sources import NONE
from .tracing import Operations, Reads, Run, memory, place


class CaptureError(RuntimeError):
    """What keeps a function from being one graph, in one line.

    Attributes:
        results: A tuple of what the function returned, if its run is as good as any other; empty if
            nothing is left of it, and it is to be run again.
    """

    results: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Capture:
    """A function as a graph.

    Attributes:
        graph: Takes the tensors of the function's arguments, then ``closed``; returns the tensors
            among its results, then the gradients of ``leaves``.
        closed: What the function reads beside its arguments, such as parameters and buffers.
        results: What it returned while it was captured.
        leaves: What it gave gradients to, as ``backward()`` does.
        gradients: Those gradients.
        sets_gradients: Whether its own code may set gradients, and not only add to them.
        before: What it has changed in place of all these inputs: their former values, by position.
        guards: What the graph takes for granted of Python's state.
    """

    graph: fx.GraphModule
    closed: tuple[Tensor, ...]
    results: Any
    leaves: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    sets_gradients: bool
    before: dict[int, Tensor]
    guards: Guards


def capture(function: Callable[..., Any], *inputs: Tensor) -> Capture:
    """Run a function once, and record what it does to tensors, and what it reads in Python.

    Gradients that it takes are recorded with it, and so is what it changes in place. Pyro's
    validation is off, and a number that ``.item()`` reads stays a tensor: Pyro's estimators sum
    such numbers up for the loss that they return.

    Arguments:
        function: Returns any tree of tensors and other things; the latter are taken as constant.
        inputs: Its arguments.

    Raises:
        CaptureError: If what it does is no graph: it chooses by the value of a tensor, draws other
            random numbers than torch's, changes Python's state, prints, or raises an error. Either
            its run is then as good as any other, and the error has its results; or all that it
            changed is undone.

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
        self.results: tuple[Any, ...] = ()
        self.added: list[tuple[Tensor, Tensor]] = []
        self.parameters: dict[str, Tensor] = {}

    def of(self, inputs: tuple[Tensor, ...]) -> Capture:
        cause: Exception | None = None
        with self.recorder:
            self.operations = Operations(self.run, self.recorder.existed)
            try:
                self.recorder.state.open(self.function, NONE, "the function")
                with (
                    pyro.validation_enabled(False),
                    torch.autograd.set_multithreading_enabled(False),
                    # What torch.compile says of itself while it traces.
                    mock.patch.object(torch.compiler, "_is_compiling_flag", True),
                    # One for all nodes: make_fx would make one for each, which takes longer.
                    tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))),
                ):
                    # Aliases, for a tensor that is an argument may also be read as a global.
                    graph = make_fx(self._flat)(*(tensor.view_as(tensor) for tensor in inputs))
                if not self.run.refusal:
                    return self._finish(graph, inputs)
            except Exception as error:  # whatever make_fx, or the function, raises
                cause = error
                if not self.run.refusal:
                    where = _culprit(error)
                    self.run.refusal = first_line(error) + (f" ({where})" if where else "")
            raise self._refusal() from cause

    def _flat(self, *arguments: Tensor) -> list[Tensor]:
        with self.operations, Reads(self.run):
            with self.recorder.watching(), poutine.trace(param_only=True) as found:
                results = self.function(*arguments)
            self.added = self.operations.added()
        sites: Any = found.trace.nodes.items()
        self.parameters = {name: site["value"].unconstrained() for name, site in sites}
        self.results = (results,)
        if self.run.refusal:
            return []
        tensors = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]
        return tensors + [gradient for _, gradient in self.added]

    def _finish(self, graph: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Capture:
        """What was captured, if nothing speaks against it."""
        guards = self.recorder.state.guards
        closed = _lift(graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        refused = self._unguarded(closed) or self.recorder.changed()
        before = self.operations.former((*inputs, *closed))
        refused = refused or _shared(before, (*inputs, *closed))
        if refused:
            raise CaptureError(refused)
        for tensor in closed:
            guards.add("tensors", (tensor, kind_of(tensor)), _called(tensor, self.parameters))
        leaves, gradients = zip(*self.added, strict=True) if self.added else ((), ())
        (results,) = self.results
        sets_gradients = self.recorder.sets_gradients
        if sets_gradients and not self.operations.began_without_gradients():
            raise CaptureError("its own code sets gradients, and there were some before")
        self.operations.join_gradients()
        return Capture(graph, closed, results, leaves, gradients, sets_gradients, before, guards)

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

    def _refusal(self) -> CaptureError:
        """The error, once the run is either as good as any other, or undone."""
        error = CaptureError(self.run.refusal)
        changed = self.recorder.changed() if self.run.numbers else ""
        if self.results and not changed:
            self.operations.join_gradients()
            numbers = {id(number) for number in self.run.numbers}
            error.results = tuple(
                pytree.tree_map_only(Tensor, lambda t: t.item() if id(t) in numbers else t, tree)
                for tree in self.results
            )
        else:
            self.operations.undo()
            self.operations.join_gradients(keep=False)
            self.recorder.undo()
        return error


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


def random_state() -> list[Tensor]:
    """The state of torch's default generators, the processor's first."""
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *on_gpus]


def set_random_state(state: list[Tensor]) -> None:
    """Go back to what :func:`random_state` returned."""
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state_all(state[1:])


def _called(tensor: Tensor, parameters: dict[str, Tensor]) -> str:
    for name, parameter in parameters.items():
        if parameter is tensor:
            return f"the parameter {name}"
    return f"a tensor of shape {tuple(tensor.shape)}"


def _shared(before: dict[int, Tensor], inputs: tuple[Tensor, ...]) -> str:
    """Whether memory that the program changes is that of two of its inputs."""
    places = [memory(tensor) for tensor in inputs if tensor.numel()]
    if any(places.count(memory(inputs[position])) > 1 for position in before):
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
