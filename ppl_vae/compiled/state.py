"""What there is to read of Python's state, from the objects that a program's code mentions."""

import contextlib
import functools
import io
import logging
import random
import types
import weakref
from collections import deque, namedtuple
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pyro
import torch
from pyro.params.param_store import ParamStoreDict
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .attributes import by_name
from .guards import MISSING, SCALARS, Guards, contents, short
from .sources import (
    NONE,
    Names,
    derives_from_library,
    in_c,
    is_engine,
    of_library,
    of_program,
    trusted,
)

_FIELD: Any = type(vars(namedtuple("Pair", "x"))["x"])  # of named tuples
ATOMS = (
    *SCALARS, Enum, range, slice, PurePath, np.generic, np.dtype, torch.dtype, torch.device,
    torch.layout, torch.memory_format, torch.Size, type(...), types.CodeType, types.GenericAlias,
    types.UnionType, types.BuiltinFunctionType, types.MethodDescriptorType, types.MethodWrapperType,
    types.WrapperDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType, _FIELD, pyro.nn.module._Context,
)  # fmt: skip
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
OUTPUTS = (io.IOBase, logging.Logger)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
OF_PYRO_MODULES = ("_pyro_samples", "_pyro_params")
OF_SVI = {"model", "guide", "loss", "loss_and_grads"}
MOST_ITEMS = 10_000


class State:
    """Look into values by the names that code mentions, and record what is there as guards.

    Arguments:
        refuse: Takes what keeps a program from being a graph, in a few words.

    Attributes:
        guards: What was recorded.
        functions: The functions that were found, by their code.
        seen: All values that were looked into.
        located: The tensors that were found, by identity.
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self.guards, self.refuse = Guards(), refuse
        self.functions: dict[CodeType, list[FunctionType]] = {}
        self.seen: dict[Any, Any] = {}
        self._recorded: set[Any] = set()
        self._absent: dict[int, set[str]] = {}
        self._of_classes: dict[type, Any] = {}
        self.located = self.guards.located

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is known where the program found a tensor."""
        return id(tensor) in self.located

    def open(self, value: Any, names: Names, called: str) -> None:
        """Record what there is to read of a value, which lies where a message calls it."""
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self.open(value.__self__, names, called)  # as of seen.append
        if value is MISSING or is_engine(type(value)) or _is_atom(value):
            return
        key = id(value), names
        if key in self.seen:
            return
        self.seen[key] = value
        if isinstance(value, nn.Module):
            _open_module(self, value, names, called)
        if isinstance(value, Tensor):
            self.located[id(value)] = value
            self.hooks(value, called)
            if value.__dict__ or names.every:
                by_name(self, value, names, called)
        elif isinstance(value, ModuleType):
            is_trusted = trusted(getattr(value, "__file__", None) or "<frozen")
            (_record_functions if is_trusted else by_name)(self, value, names, called)
        elif isinstance(value, type):
            if not of_library(value):
                by_name(self, value, names, called)
        elif isinstance(value, FunctionType):
            self.function(value, names)
        elif isinstance(value, MethodType):
            self.open(value.__func__, names, called)
            self.open(value.__self__, names, called)
        elif isinstance(value, staticmethod | classmethod):
            self.open(value.__func__, names, called)
        elif isinstance(value, property | weakref.ref):
            self.open(value.fget if isinstance(value, property) else value(), names, called)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.open(part, names, called)
        elif isinstance(value, tuple | frozenset):
            _open_items(self, value, names, called)
        elif isinstance(value, list | deque | set | dict | np.ndarray):
            _open_collection(self, value, names, called)
            if hasattr(value, "__dict__"):  # of a class derived from one of these
                by_name(self, value, names, called)
        elif isinstance(value, GENERATORS):
            self.refuse(f"it draws from {called}, a {type(value).__name__} of its own")
        elif isinstance(value, OUTPUTS):
            self.refuse(f"it writes to {called}, a {type(value).__name__}")
        elif isinstance(value, functools._lru_cache_wrapper):
            self.refuse(f"it calls {called}, which keeps its results")
        elif isinstance(value, contextlib._GeneratorContextManager):
            _open_manager(self, value, names, called)
        elif type(value) is object:  # a mark, such as of what is missing
            return
        elif derives_from_library(type(value)):
            _open_whole(self, value, names, called)
            if not of_library(type(value)) or isinstance(value, nn.Module):
                by_name(self, value, names, called)
        elif in_c(type(value)):
            self.refuse(f"it reads {called}, a {type(value).__name__}, whose state no graph sees")
        elif hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            by_name(self, value, names, called)
        else:
            self.refuse(f"it reads {called}, a {type(value).__name__}, whose state no graph sees")

    def record(self, kind: str, guard: tuple[Any, ...], called: str) -> bool:
        """Record one guard, unless there is one of the same place."""
        key = kind, id(guard[0]), guard[1] if kind in ("entries", "attributes") else None
        if key in self._recorded:
            return False
        self._recorded.add(key)
        self.guards.add(kind, guard, called)
        return True

    def absent(self, entries: Any, name: str, called: str) -> None:
        """Record that a dictionary lacks a name, which lies where a message calls it."""
        lacks = self._absent.get(id(entries))
        if lacks is None:
            lacks = self._absent[id(entries)] = set()
            self.guards.add("absent", (entries, lacks), called)
        lacks.add(name)

    def hooks(self, tensor: Tensor, called: str) -> None:
        """Open the hooks on a tensor, which run when its gradient comes."""
        for hooks in (tensor._backward_hooks, tensor._post_accumulate_grad_hooks):
            for hook in (hooks or {}).values():
                self.open(hook, NONE, f"a hook on {called}")

    def function(self, function: FunctionType, names: Names) -> None:
        """Record what a function closes over, its code and its defaults."""
        known = self.functions.setdefault(function.__code__, [])
        if function not in known:
            known.append(function)
        called = function.__code__.co_name
        if not trusted(function.__code__.co_filename):
            parts = function.__code__, function.__defaults__, function.__kwdefaults__
            self.record("functions", (function, *parts), called)
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if name == "__class__":
                continue
            value = contents(cell)
            self.record("cells", (cell, value), f"{name} in {called}")
            self.open(value, names, name)
        for default in (function.__defaults__, function.__kwdefaults__):
            self.open(default, names, f"the defaults of {called}")
        if function.__dict__:
            self.open(function.__dict__.get("__wrapped__"), names, called)
            if not trusted(function.__code__.co_filename):
                by_name(self, function, names, called)

    def of(self, kind: type) -> Any:
        """The attributes of a class, as the same object each time."""
        return self._of_classes.setdefault(kind, vars(kind))


def _is_atom(value: Any) -> bool:
    """Whether there is nothing inside of a value that could change."""
    if isinstance(value, (*SCALARS, Enum)) and of_program(type(value)):
        return not vars(value) if hasattr(value, "__dict__") else True
    return isinstance(value, ATOMS)


def _record_functions(state: State, module: ModuleType, names: Names, called: str) -> None:
    """Record what code names of a module of torch, Pyro or Python, and look into modules only."""
    entries = vars(module)
    for name in names.attributes & entries.keys():
        state.record("entries", (entries, name, entries[name]), f"{called}.{name}")
        if isinstance(entries[name], ModuleType):
            state.open(entries[name], names, f"{called}.{name}")


def _open_manager(state: State, value: Any, names: Names, called: str) -> None:
    # Another is made at each use. One that has been used does not hold these any more.
    entries = vars(value)
    for name in {"func", "args", "kwds"} & entries.keys():
        state.record("entries", (entries, name, entries[name]), f"{called}.{name}")
        state.open(entries[name], names, f"{called}.{name}")


def _open_items(state: State, values: Iterable[Any], names: Names, called: str) -> None:
    for position, value in enumerate(values):
        state.open(value, names, f"{called}[{position}]")


def _open_collection(state: State, value: Any, names: Names, called: str) -> None:
    size = value.size if isinstance(value, np.ndarray) else len(value)
    if size > MOST_ITEMS:
        state.refuse(f"it reads {called}, which has {size} items: hand it over as a tensor")
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            state.refuse(f"it reads {called}, an array of objects")
        state.record("arrays", (value, value.copy()), called)
    elif isinstance(value, dict):
        state.record("dicts", (value, dict(value)), called)
        for key, item in list(value.items()):
            state.open(key, names, f"a key of {called}")
            state.open(item, names, f"{called}[{short(key)}]")
    else:
        state.record("items", (value, list(value)), called)
        _open_items(state, list(value), names, called)


def _open_module(state: State, module: nn.Module, names: Names, called: str) -> None:
    """Record all that decides about what a module does, apart from the code of its class."""
    if ("module", id(module)) not in state.seen:
        state.seen["module", id(module)] = module
        if isinstance(module, torch.jit.ScriptModule):
            kind = type(module).__name__
            state.refuse(f"it reads {called}, a {kind}, whose state no graph sees")
            return
        _open_parts(state, module, called)
    for name, child in module._modules.items():
        state.open(child, names, f"{called}.{name}")


def _open_parts(state: State, module: nn.Module, called: str) -> None:
    entries = module.__dict__
    for values in (module._parameters, module._buffers, module._modules):
        _record_dict(state, values, called)
        state.located.update((id(t), t) for t in values.values() if isinstance(t, Tensor))
    for name, parameter in module._parameters.items():
        if parameter is not None:
            state.hooks(parameter, f"{called}.{name}")
    for name in HOOKS:
        for hook in entries.get(name, {}).values():
            state.open(hook, NONE, called)
        if name in entries:
            _record_dict(state, entries[name], f"{called}.{name}")
    for name in OF_PYRO_MODULES:
        state.open(entries.get(name, MISSING), NONE, f"{called}.{name}")
    whole = derives_from_library(type(module))
    for name, value in list(entries.items()):
        public = whole and not name.startswith("_")
        if name == "training" or (public and isinstance(value, (*SCALARS, tuple, Tensor))):
            state.record("entries", (entries, name, value), f"{called}.{name}")
        if public and isinstance(value, Tensor | FunctionType | MethodType):
            state.open(value, NONE, f"{called}.{name}")


def _record_dict(state: State, entries: Any, called: str) -> None:
    if entries:
        state.record("dicts", (entries, dict(entries)), called)
    else:
        state.record("empty", (entries,), called)


def _open_whole(state: State, thing: Any, names: Names, called: str) -> None:
    """Record numbers, tensors and collections of an object of torch, NumPy or Pyro."""
    entries = getattr(thing, "__dict__", None)
    opened: tuple[type, ...] = (
        Tensor, FunctionType, MethodType, functools.partial, tuple, list, np.ndarray, nn.Module,
    )  # fmt: skip
    if isinstance(thing, Messenger | Trace):  # such as condition()'s data; others' change
        opened = (*opened, dict, set)
    if isinstance(thing, ParamStoreDict):
        _record_dict(state, thing._params, called)
    for name, value in list((entries or {}).items()):
        if isinstance(thing, pyro.infer.SVI) and name not in OF_SVI:
            continue  # the user's, who may keep losses there
        inner = f"{called}.{name}"
        if isinstance(thing, nn.Module) and name.startswith("_"):
            continue  # its parts, which are recorded, and what modules remember for a while
        if isinstance(value, (*SCALARS, Tensor)):
            state.record("entries", (entries, name, value), inner)
        if isinstance(value, opened) or (of_library(type(value)) and hasattr(value, "__dict__")):
            state.open(value, names, inner)
