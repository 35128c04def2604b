"""A function that runs a Pyro program, as one graph of tensor operations."""

import sys
import traceback
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.util import warn_if_nan
from torch import Tensor, fx
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import first_line

# How Python reads a number off a tensor, for use in control flow.
READS = {
    getattr(Tensor, name)
    for name in ("__bool__", "__int__", "__float__", "__index__", "tolist", "numpy", "__array__")
}
# Their schemas do not say that they change the running mean and variance.
BATCH_NORMS = {torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default}
MAKERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new}
PYRO = Path(pyro.__file__).parent
OURS = Path(__file__).parents[1]
MODELS = OURS / "models"  # which is where an installation has them
LIBRARIES = (PYRO, Path(torch.__file__).parent, OURS)
# What validates only, and what it is told: that nothing is wrong. Whoever runs the graph sees the
# loss, and the values of distributions that were made before validation was turned off passed once.
VALIDATIONS = {warn_if_nan.__code__: False, Distribution._validate_sample.__code__: True}


class CaptureError(RuntimeError):
    """What keeps a function from being one graph, in one line."""


@dataclass(frozen=True)
class Capture:
    """A function as a graph.

    Attributes:
        graph: Takes the tensors of the function's arguments, then ``closed``; returns the tensors
            among its results.
        closed: What the function reads beside its arguments, such as parameters and buffers.
        results: What it returned while it was captured.
        before: What it has changed in place of all these inputs: their former values, by position.
    """

    graph: fx.GraphModule
    closed: tuple[Tensor, ...]
    results: Any
    before: dict[int, Tensor]


def capture(function: Callable[..., Any], *inputs: Tensor) -> Capture:
    """Run a function once, and record what it does to tensors.

    Gradients that it takes are recorded with it, and so is what it changes in place. Pyro's
    validation is off, and a number that ``.item()`` reads stays a tensor: Pyro's estimators sum
    such numbers up for the loss that they return.

    Arguments:
        function: Returns any tree of tensors and other things; the latter are taken as constant.
        inputs: Its arguments.

    Raises:
        CaptureError: If it chooses what to do by the value of a tensor, or raises an error. What it
            has changed in place is then undone.

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
    results: Any = None
    operations = _Operations()

    def flat(*arguments: Tensor) -> list[Tensor]:
        nonlocal results
        with operations, _Reads():
            results = function(*arguments)
        return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]

    try:
        with (
            pyro.validation_enabled(False),
            torch.autograd.set_multithreading_enabled(False),
            # What torch.compile says of itself while it traces.
            mock.patch.object(torch.compiler, "_is_compiling_flag", True),
        ):
            graph = make_fx(flat)(*inputs)
    except Exception as error:  # whatever make_fx, or the function, raises
        operations.undo()
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(f"{first_line(error)} ({_culprit(error)})") from error
    closed = _lift(graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return Capture(graph, closed, results, operations.changed((*inputs, *closed)))


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


class _Reads(TorchFunctionMode):
    """Keep numbers in the graph, and refuse to let Python decide by them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.item:
            return args[0].detach().clone()  # as it is now
        if func is Tensor.register_hook and args[1].__module__ == warn_if_nan.__module__:
            return None
        if func is torch.nn.functional.one_hot and _classes(*args, **kwargs) > 0:
            return _one_hot(*args, **kwargs)
        if func in MAKERS and any(
            isinstance(x, Tensor) for x in _inside((*args, *kwargs.values()))
        ):
            raise _by_value(sys._getframe(1))
        if func not in READS:
            return func(*args, **kwargs)
        caller = sys._getframe(1)
        if caller.f_code in VALIDATIONS:
            return VALIDATIONS[caller.f_code]
        raise _by_value(caller)


class _Operations(TorchDispatchMode):
    """See all operations: keep what they change in place, and refuse what would be frozen."""

    def __init__(self) -> None:
        super().__init__()
        self._before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.data_dependent_output in func.tags or _sizes_by_value(func, args):
            raise _by_value(sys._getframe(1))
        with disable_proxy_modes_tracing():
            for tensor in pytree.tree_leaves(_changes(func, args, kwargs)):
                if isinstance(tensor, Tensor):
                    self._before.append((tensor, tensor.detach().clone()))
        return func(*args, **kwargs)

    def undo(self, places: Container[int] | None = None) -> None:
        """Give what was changed its former values; all of it, or what lies at some places."""
        with torch.no_grad():
            for tensor, values in reversed(self._before):
                if places is None or _memory(tensor) in places:
                    tensor.copy_(values)

    def changed(self, tensors: Iterable[Tensor]) -> dict[int, Tensor]:
        """Former values of those that were changed, or a part of which was, by position."""
        places = {_memory(tensor) for tensor, _ in self._before}
        found = {i: t for i, t in enumerate(tensors) if _memory(t) in places}
        with rehearsal(found.values()):
            self.undo({_memory(tensor) for tensor in found.values()})
            return {i: tensor.detach().clone() for i, tensor in found.items()}


def _changes(func: Any, args: tuple, kwargs: dict[str, Any]) -> list[Any]:
    """The arguments that an operation changes in place."""
    if func in BATCH_NORMS:
        return list(args[3:5])
    if not func._schema.is_mutable:
        return []
    named = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False))
    named |= kwargs
    writes = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    return [named.get(name) for name in writes]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _sizes_by_value(func: Any, args: tuple) -> bool:
    """Whether the size of the result depends on values."""
    if func is torch.ops.aten.index.Tensor:
        masks = (torch.bool, torch.uint8)
        return any(isinstance(index, Tensor) and index.dtype in masks for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _by_value(frame: FrameType) -> CaptureError:
    where = _place(traceback.walk_stack(frame))
    return CaptureError(f"control flow depends on the value of a tensor ({where})")


def _inside(args: tuple) -> list[Any]:
    """What is in lists, of which tensors are made by value."""
    return [
        leaf for arg in args if isinstance(arg, list | tuple) for leaf in pytree.tree_leaves(arg)
    ]


def _classes(classes: Tensor, num_classes: int = -1) -> int:
    return num_classes


def _one_hot(classes: Tensor, num_classes: int) -> Tensor:
    """torch's own looks at the values, to validate them."""
    every = torch.arange(num_classes, device=classes.device)
    return (classes.unsqueeze(-1) == every).long()


def _place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Where the program's own code was, of frames from the inside out; else where in Pyro."""
    innermost = ""
    for frame, line in frames:
        file = Path(frame.f_code.co_filename)
        if file == Path(__file__):
            if frame.f_code.co_name == "flat":
                break
            continue
        folder = next((f for f in LIBRARIES if file.is_relative_to(f)), None)
        if folder is None or file.is_relative_to(MODELS):
            return f"{file.name}, line {line}"
        if not innermost or (innermost.startswith("torch") and file.is_relative_to(PYRO)):
            innermost = f"{file.relative_to(folder.parent)}, {frame.f_code.co_name}"
    return innermost


def _culprit(error: BaseException) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))
    inside = next(n for n, (f, _) in enumerate(frames) if f.f_code.co_name == "flat")
    return _place(reversed(frames[inside + 1 :]))


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
