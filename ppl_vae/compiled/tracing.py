"""What a program does to tensors while it is captured, and what no graph can follow."""

import sys
import traceback
from collections.abc import Container, Iterable
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer.util import Dice
from pyro.util import warn_if_nan
from torch import Tensor
from torch.distributions import Distribution
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .leaf_gradients import has_no_gradient
from .sources import is_program

# How Python reads a number off a tensor, for use in control flow.
READS = {
    getattr(Tensor, name)
    for name in ("__bool__", "__int__", "__float__", "__index__", "tolist", "numpy", "__array__")
}
WHOLE = {Tensor.__bool__, Tensor.__int__, Tensor.__index__, Tensor.__float__}
# Their schemas do not say that they change the running mean and variance.
BATCH_NORMS = {torch.ops.aten.native_batch_norm.default, torch.ops.aten.cudnn_batch_norm.default}
HOOKS = {Tensor.register_hook, Tensor.register_post_accumulate_grad_hook}
MAKERS = {torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new}
# What reads tensors in C++ where no operation shows it: lengths and places to split.
LENGTHS = {"tensor_split", "ctc_loss", "_pack_padded_sequence", "_pad_packed_sequence"}
PACKED = {"lstm": 1, "gru": 2, "rnn_tanh": 2, "rnn_relu": 2}  # which argument tells of packing
PYRO = Path(pyro.__file__).parent
OURS = Path(__file__).parents[1]
MODELS = OURS / "models"  # which is where an installation has them
LIBRARIES = (PYRO, Path(torch.__file__).parent, OURS)
SUMS = Dice.compute_expectation.__code__  # over enumerated values
# Reads that decide about nothing, and what they are told. Those that validate: that nothing is
# wrong. Whoever runs the graph sees the loss, and the values of distributions that were made before
# validation was turned off passed once. Sums over enumerated values: that some have no probability.
ANSWERS = {warn_if_nan.__code__: False, Distribution._validate_sample.__code__: True, SUMS: False}


class Refused(BaseException):
    """Ends a run that is captured: no program catches it, as it would an Exception."""


class Decision(NamedTuple):
    """A whole number that Python has read off a tensor, and where."""

    tensor: Tensor
    value: int | float
    place: str


class Run:
    """A program's run while it is captured, and undone afterwards.

    What cannot be in a graph ends it, before it prints, say. Should somebody swallow that,
    operations are only carried out from then on.

    Attributes:
        refusal: What was the first to keep the program from being a graph, with its line.
        floats: Whether tensors take the place of numbers that the program's own code sees.
    """

    def __init__(self) -> None:
        self.refusal = ""
        self.floats = False

    def refuse(self, reason: str, frame: FrameType | None = None) -> None:
        """Say what keeps the program from being a graph, and end its run."""
        if not self.refusal:
            where = place(traceback.walk_stack(frame or sys._getframe(1)))
            self.refusal = f"{reason} ({where})" if where else reason
        raise Refused(self.refusal)

    def by_value(self, frame: FrameType) -> None:
        """Refuse what Python decides by the value of a tensor."""
        self.refuse("control flow depends on the value of a tensor", frame)


class Reads(TorchFunctionMode):
    """Keep numbers in the graph, and let Python decide by none of them."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, run = kwargs or {}, self._run
        if run.refusal:
            return func(*args, **kwargs)
        if func is Tensor.item:
            run.floats |= is_program(sys._getframe(1))
            number = args[0].detach().clone()  # as it is now, and as precise as a float is
            wide = torch.promote_types(number.dtype, torch.get_default_dtype())
            return number.to(wide) if number.is_floating_point() else number
        if func in HOOKS and args[0].is_leaf and args[0].requires_grad:
            run.refuse("it registers a hook on a parameter", sys._getframe(1))
        if func is Tensor.register_hook and args[1].__module__ == warn_if_nan.__module__:
            return None
        if func is torch.nn.functional.one_hot and _classes(*args, **kwargs) > 0:
            return _one_hot(*args, **kwargs)
        caller = sys._getframe(1)
        if func is Tensor.masked_select and caller.f_code is SUMS:
            return torch.where(args[1], args[0], 0.0)  # of static shape, and of the same sum
        if func in READS and caller.f_code in ANSWERS:
            return ANSWERS[caller.f_code]
        if func in READS and (func not in WHOLE or _has_fractions(args[0])):
            run.by_value(caller)
        if func in MAKERS and any(
            isinstance(x, Tensor) for x in _inside((*args, *kwargs.values()))
        ):
            run.by_value(caller)
        if _reads_lengths(func, args, kwargs):
            run.refuse(f"{func.__name__} reads the values of a tensor", caller)
        return func(*args, **kwargs)


class Operations(TorchDispatchMode):
    """See all operations: what they change in place, the leaves they read, what would be frozen.

    Gradients that leaves hold are set aside when they are seen first, so that afterwards each holds
    what the program has added.

    Whole numbers that are computed of whole numbers only are exact, whoever computes them. Python
    may decide by them, as by the length of the longest sequence: the graph compares them.

    Attributes:
        arguments: The identities of those of the program.
        decisions: The whole numbers that Python has read.
        began_without_gradients: Whether no leaf had any, but zeros that Pyro's steps leave there.
    """

    def __init__(self, run: Run, existed: Container[int]) -> None:
        super().__init__()
        self._run, self._existed = run, existed
        self._before: list[tuple[Tensor, Tensor]] = []
        self._leaves: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._rounded: dict[int, Tensor] = {}  # whole numbers made of others, by where they lie
        self.arguments: set[int] = set()
        self.decisions: list[Decision] = []
        self.began_without_gradients = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        hook = sys.getprofile()
        sys.setprofile(None)  # below there is but torch's code, whose every call would be seen
        try:
            return self._carry_out(func, args, kwargs or {})
        finally:
            sys.setprofile(hook)

    def _carry_out(self, func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        for tensor in tensors:
            self._see(tensor)
        if kwargs.get("generator") is not None:
            self._run.refuse("it draws from a generator of its own", sys._getframe(2))
        if torch.Tag.inplace_view in func.tags and self._is_given(args[0]):
            self._run.refuse("it changes the shape of a tensor in place", sys._getframe(1))
        if func is torch.ops.aten._local_scalar_dense.default and self._is_exact(args[0]):
            return self._decide(args[0])
        if torch.Tag.data_dependent_output in func.tags or _sizes_by_value(func, args):
            self._run.by_value(sys._getframe(1))
        with disable_proxy_modes_tracing():
            for tensor in pytree.tree_leaves(_changes(func, args, kwargs)):
                if isinstance(tensor, Tensor):
                    # By way of an alias, for its shape may change, too.
                    self._before.append((tensor.detach(), tensor.detach().clone()))
            if self._run.refusal:
                return func(*args, **kwargs)
        results = func(*args, **kwargs)
        if not all(map(self._is_exact, tensors)):
            for result in pytree.tree_leaves(results):
                if isinstance(result, Tensor) and not _has_fractions(result):
                    self._rounded[memory(result)] = result
        return results

    def _is_exact(self, tensor: Tensor) -> bool:
        return not _has_fractions(tensor) and memory(tensor) not in self._rounded

    def _decide(self, tensor: Tensor) -> int | float:
        kept = torch.ops.aten.clone.default(tensor)  # as it is now
        with disable_proxy_modes_tracing():
            value: int | float = tensor.item()
        where = place(traceback.walk_stack(sys._getframe(1)))
        self.decisions.append(Decision(kept, value, where))
        return value

    def _see(self, tensor: Tensor) -> None:
        if tensor.layout is not torch.strided:
            self._run.refuse(f"it reads a tensor of layout {tensor.layout}")
        is_leaf = tensor.requires_grad and tensor.is_leaf and id(tensor) in self._existed
        if is_leaf and id(tensor) not in self._leaves:
            self.began_without_gradients &= has_no_gradient(tensor)
            self._leaves[id(tensor)] = tensor, tensor.grad
            tensor.grad = None

    def _is_given(self, tensor: Tensor) -> bool:
        return id(tensor) in self._existed or id(tensor) in self.arguments

    def added(self) -> list[tuple[Tensor, Tensor]]:
        """The leaves that were given gradients, each with what was added to it."""
        return [(leaf, leaf.grad) for leaf, _ in self._leaves.values() if leaf.grad is not None]

    def undo(self) -> None:
        """Put back the gradients that were set aside, and the values of what was changed."""
        for leaf, before in self._leaves.values():
            leaf.grad = before
        self._leaves.clear()
        with torch.no_grad():
            for tensor, values in reversed(self._before):
                tensor.copy_(values)

    def changed(self, tensors: Iterable[Tensor]) -> list[int]:
        """Positions of those that were changed, or a part of which was."""
        places = {memory(tensor) for tensor, _ in self._before}
        return [i for i, tensor in enumerate(tensors) if memory(tensor) in places]


def memory(tensor: Tensor) -> int:
    """Where the storage of a tensor begins, which tensors may share."""
    return tensor.untyped_storage().data_ptr()


def _has_fractions(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


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


def _sizes_by_value(func: Any, args: tuple) -> bool:
    """Whether the size of the result depends on values."""
    if func is torch.ops.aten.index.Tensor:
        masks = (torch.bool, torch.uint8)
        return any(isinstance(index, Tensor) and index.dtype in masks for index in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _reads_lengths(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a function reads lengths off a tensor, which would stay as they are."""
    name = getattr(func, "__name__", "")
    if name in PACKED:
        return len(args) > PACKED[name] and isinstance(args[PACKED[name]], Tensor)
    if name not in LENGTHS:
        return False
    lengths = args[2:] if name == "ctc_loss" else args[1:]
    return any(isinstance(x, Tensor) for x in (*lengths, *kwargs.values()))


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


def place(frames: Iterable[tuple[FrameType, int]]) -> str:
    """Where the program's own code was, of frames from the inside out; else where in Pyro."""
    innermost = ""
    for frame, line in frames:
        file = Path(frame.f_code.co_filename)
        if file.parent == Path(__file__).parent and file.name != "svi.py":
            if frame.f_code.co_name == "_flat":
                break
            continue
        folder = next((f for f in LIBRARIES if file.is_relative_to(f)), None)
        if folder is None or file.is_relative_to(MODELS):
            return f"{file.name}, line {line}"
        if not innermost or (innermost.startswith("torch") and file.is_relative_to(PYRO)):
            innermost = f"{file.relative_to(folder.parent)}, {frame.f_code.co_name}"
    return innermost
