"""What there is to read of Python's state, from the objects that a program's code mentions."""

import functools
import io
import logging
import random
import types
from collections import deque, namedtuple
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .guards import MISSING, SCALARS, Guards, contents, short
from .sources import (
    NONE,
    Names,
    derives_from_library,
    is_engine,
    is_standard,
    of_library,
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
OF_PARAMETERS = {"unconstrained"}  # what Pyro keeps on them
MOST_ITEMS = 10_000


class State:
    """Look into values by the names that code mentions, and record what is there as guards.

    Arguments:
        refuse: Takes what keeps a program from being a graph, in a few words.

    Attributes:
        guards: What was recorded.
        functions: The functions that were found, by their code.
        seen: All values that were looked into.
        located: The identities of the tensors that were found.
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self.guards, self.refuse = Guards(), refuse
        self.functions: dict[CodeType, list[FunctionType]] = {}
        self.seen: dict[Any, Any] = {}
        self._recorded: set[Any] = set()
        self.located: set[int] = set()

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is known where the program found a tensor."""
        return id(tensor) in self.located

    def open(self, value: Any, names: Names, called: str) -> None:
        """Record what there is to read of a value, which lies where a message calls it."""
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            self.open(value.__self__, names, called)  # as of seen.append
        if isinstance(value, ATOMS) or value is MISSING or is_engine(type(value)):
            return
        key = id(value), names
        if isinstance(value, nn.Module):
            _open_module(self, value, called)
        if key in self.seen:
            return
        self.seen[key] = value
        if isinstance(value, Tensor):
            self.located.add(id(value))
            if value.__dict__:
                self._by_name(value, names, called)
        elif isinstance(value, ModuleType):
            if not trusted(getattr(value, "__file__", None) or "<frozen"):
                self._by_name(value, names, called)
        elif isinstance(value, type):
            if not of_library(value):
                self._by_name(value, names, called)
        elif isinstance(value, FunctionType):
            self.function(value, names)
        elif isinstance(value, MethodType):
            self.open(value.__func__, names, called)
            self.open(value.__self__, names, called)
        elif isinstance(value, staticmethod | classmethod):
            self.open(value.__func__, names, called)
        elif isinstance(value, property):
            self.open(value.fget, names, called)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                self.open(part, names, called)
        elif isinstance(value, tuple | frozenset):
            _open_items(self, value, names, called)
        elif isinstance(value, list | deque | set | dict | np.ndarray):
            _open_collection(self, value, names, called)
            if hasattr(value, "__dict__"):  # of a class derived from one of these
                self._by_name(value, names, called)
        elif isinstance(value, GENERATORS):
            self.refuse(f"it draws from {called}, a {type(value).__name__} of its own")
        elif isinstance(value, OUTPUTS):
            self.refuse(f"it writes to {called}, a {type(value).__name__}")
        elif isinstance(value, functools._lru_cache_wrapper):
            self.refuse(f"it calls {called}, which keeps its results")
        elif type(value) is object:  # a mark, such as of what is missing
            return
        elif derives_from_library(type(value)):
            _open_whole(self, value, names, called)
            if not of_library(type(value)):
                self._by_name(value, names, called)
        elif hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            self._by_name(value, names, called)
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

    def function(self, function: FunctionType, names: Names) -> None:
        """Record what a function closes over, and its defaults."""
        known = self.functions.setdefault(function.__code__, [])
        if function not in known:
            known.append(function)
        called = function.__code__.co_name
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
                self._by_name(function, names, called)

    def _by_name(self, owner: Any, names: Names, called: str) -> None:
        """Record the attributes of an object that code names."""
        entries = getattr(owner, "__dict__", None) if not isinstance(owner, type) else None
        mentioned = names.attributes
        # No frame of Python's own library is watched: its objects are read as a whole.
        if entries is not None and (names.every or is_standard(type(owner))):
            mentioned = mentioned | {name for name in entries if not name.startswith("__")}
        if isinstance(owner, Tensor) and entries is not None:
            mentioned = (mentioned - OF_PARAMETERS) & entries.keys()
        for name in mentioned:
            self._attribute(owner, entries, name, names, f"{called}.{name}")

    def _attribute(self, owner: Any, entries: Any, name: str, names: Names, called: str) -> None:
        if entries is not None and name in entries:
            value = entries[name]
            self.record("entries", (entries, name, value), called)
            self.open(value, names, called)
            return
        for kind in type(owner).__mro__ if not isinstance(owner, type) else owner.__mro__:
            if name not in vars(kind):
                continue
            value = vars(kind)[name]
            if type(value).__name__ == "member_descriptor":
                value = getattr(owner, name, MISSING)
                self.record("attributes", (owner, name, value), called)
            elif not of_library(kind):
                if hasattr(type(value), "__get__"):
                    self.record("entries", (vars(kind), name, value), called)
                else:
                    self.record("attributes", (kind, name, value), called)
                if entries is not None:
                    self.record("entries", (entries, name, MISSING), called)
            else:
                return
            self.open(value, names, called)
            return
        if entries is not None and not isinstance(owner, ModuleType | nn.Module | type):
            self.record("entries", (entries, name, MISSING), called)


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
            state.open(item, names, f"{called}[{short(key)}]")
    else:
        state.record("items", (value, list(value)), called)
        _open_items(state, list(value), names, called)


def _open_module(state: State, module: nn.Module, called: str) -> None:
    """Record all that decides about what a module does, apart from the code of its class."""
    if ("module", id(module)) in state.seen:
        return
    state.seen["module", id(module)] = module
    entries = module.__dict__
    for values in (module._parameters, module._buffers, module._modules):
        if values or values is module._modules:
            state.record("dicts", (values, dict(values)), called)
    for name in HOOKS:
        for hook in entries.get(name, {}).values():
            state.open(hook, NONE, called)
        if entries.get(name):
            state.record("dicts", (entries[name], dict(entries[name])), f"{called}.{name}")
        elif name in entries:
            state.record("empty", (entries[name],), f"{called}.{name}")
    for name in OF_PYRO_MODULES:
        state.open(entries.get(name, MISSING), NONE, f"{called}.{name}")
    whole = derives_from_library(type(module))
    for name, value in list(entries.items()):
        public = whole and not name.startswith("_")
        if name == "training" or (public and isinstance(value, (*SCALARS, tuple, Tensor))):
            state.record("entries", (entries, name, value), f"{called}.{name}")
        if public and isinstance(value, Tensor | FunctionType | MethodType):
            state.open(value, NONE, f"{called}.{name}")
    for values in (module._parameters, module._buffers):
        state.located.update(id(value) for value in values.values())
    for name, child in module._modules.items():
        if child is not None:
            _open_module(state, child, f"{called}.{name}")


def _open_whole(state: State, thing: Any, names: Names, called: str) -> None:
    """Record numbers, tensors and collections of an object of torch or Pyro."""
    entries = getattr(thing, "__dict__", None)
    opened: tuple[type, ...] = (Tensor, FunctionType, MethodType, tuple, list, nn.Module)
    if isinstance(thing, Messenger):  # such as the data of condition(); other dictionaries change
        opened = (*opened, dict)
    for name, value in list((entries or {}).items()):
        inner = f"{called}.{name}"
        if isinstance(value, (*SCALARS, Tensor)):
            state.record("entries", (entries, name, value), inner)
        if isinstance(value, opened) or (of_library(type(value)) and hasattr(value, "__dict__")):
            state.open(value, names, inner)
