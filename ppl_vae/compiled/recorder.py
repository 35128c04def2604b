"""Which of Python's state a program reads, recorded while it is captured."""

import dis
import functools
import gc
import io
import logging
import random
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from .guards import MISSING, SCALARS, Guards, contents

HERE, PYRO = (Path(place).parent for place in (__file__, pyro.__file__))
# Pyro, torch, and what torch imports while it traces.
LIBRARIES = tuple(
    f"{site / name}/"
    for site in {Path(torch.__file__).parents[1], Path(np.__file__).parents[1], PYRO.parent}
    for name in ("torch", "pyro", "numpy", "opt_einsum", "triton", "sympy", "mpmath", "functorch")
)
CONTRIBUTED = f"{PYRO / 'contrib'}/"  # written as users write programs
STANDARD = f"{sysconfig.get_path('stdlib')}/"
OURS = f"{HERE}/"
REGISTRATION = str(HERE.parent / "models" / "registration.py")  # a name for each program, for good

ATOMS = (
    *SCALARS, Enum, range, slice, PurePath, np.generic, np.dtype, torch.dtype, torch.device,
    torch.layout, torch.memory_format, torch.Size, BuiltinFunctionType, type(len), type(...),
)  # fmt: skip
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
OUTPUTS = (io.IOBase, logging.Logger)
CALLS = {print: "prints", open: "opens a file", input: "asks for input"}
CLOCKS = {"time", "_datetime", "posix", "secrets"}
DYNAMIC = {"getattr", "setattr", "hasattr", "delattr", "vars", "globals", "eval", "exec", "locals"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
OF_PYRO_MODULES = ("_pyro_samples", "_pyro_params")
GRADIENTS = {"grad", "zero_grad"}
MOST_ITEMS = 10_000


class Names(NamedTuple):
    """What a code object mentions."""

    globals: frozenset[str]
    attributes: frozenset[str]
    every: bool  # whether it may read any attribute


class Recorder:
    """Record what the code of a program reads, and what keeps it from being a graph.

    A profile hook sees each frame of code that is not torch's, Pyro's or the standard library's.
    The globals, closure cells and attributes that the code names are recorded with what they hold,
    and what they hold is looked into in turn: objects by the names in the code, collections,
    modules and objects of torch and Pyro as a whole.

    Arguments:
        refuse: Takes what keeps the program from being a graph, in a few words.

    Attributes:
        guards: What was recorded.
        existed: The identities of all objects that were there before.
        sets_gradients: Whether the program's own code may change ``.grad``.
    """

    def __init__(self, refuse: Callable[[str], None]) -> None:
        self.guards, self._refuse = Guards(), refuse
        self._seen: dict[Any, Any] = {}
        self._located: set[int] = set()
        self._functions: dict[CodeType, list[FunctionType]] = {}
        self.existed: set[int] = set()
        self.sets_gradients = False
        self._recorded: set[Any] = set()

    def __enter__(self) -> Self:
        self._kept = gc.get_objects()  # so that no new object gets the place of an old one
        self.existed = {id(thing) for thing in self._kept}
        self._random = random.getstate(), np.random.get_state()
        self._settings()
        return self

    def __exit__(self, *error: object) -> None:
        del self._kept
        self.existed.clear()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Record what is read inside."""
        previous = sys.getprofile()
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(previous)

    def changed(self) -> str:
        """What the program has changed since it was read, if anything."""
        if random.getstate() != self._random[0]:
            return "it draws Python's random numbers"
        if not _equal_states(np.random.get_state(), self._random[1]):
            return "it draws NumPy's random numbers"
        for name, change in self.guards.broken():
            return f"it changes {name}, which {change}"
        return ""

    def undo(self) -> None:
        """Give Python's state what it was."""
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        self.guards.undo()

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is known where the program found a tensor."""
        return id(tensor) in self._located

    def open(self, value: Any, names: Names, called: str) -> None:
        """Record what there is to read of a value, which lies where a message calls it."""
        if isinstance(value, ATOMS) or value is MISSING or _is_ours(type(value)):
            return
        key = id(value), None if isinstance(value, Tensor | nn.Module) else names
        if isinstance(value, nn.Module):
            self._module(value, called)
        if key in self._seen and not isinstance(value, nn.Module):
            return
        self._seen[key] = value
        if isinstance(value, Tensor):
            self._located.add(id(value))
        elif isinstance(value, ModuleType):
            if not trusted(getattr(value, "__file__", None) or "<frozen"):
                self._by_name(value, names, called)
        elif isinstance(value, type):
            if not of_library(value):
                self._by_name(value, names, called)
        elif isinstance(value, FunctionType):
            self._function(value, names)
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
            self._items(value, names, called)
        elif isinstance(value, list | deque | set | dict | np.ndarray):
            self._collection(value, names, called)
        elif isinstance(value, GENERATORS):
            self._refuse(f"it draws from {called}, a {type(value).__name__} of its own")
        elif isinstance(value, OUTPUTS):
            self._refuse(f"it writes to {called}, a {type(value).__name__}")
        elif of_library(type(value)):
            self._whole(value, names, called)
        elif hasattr(value, "__dict__") or hasattr(type(value), "__slots__"):
            self._by_name(value, names, called)
        else:
            self._refuse(f"it reads {called}, a {type(value).__name__}, whose state no graph sees")

    def _record(self, kind: str, guard: tuple[Any, ...], called: str) -> bool:
        key = kind, id(guard[0]), guard[1] if kind in ("entries", "attributes") else None
        if key in self._recorded:
            return False
        self._recorded.add(key)
        self.guards.add(kind, guard, called)
        return True

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("call", "return", "c_call") or not is_program(frame):
            return
        if _imports(frame):
            return
        try:
            if event == "call":
                self._enter(frame)
            elif event == "return":
                self._leave(frame, arg)
            elif getattr(arg, "__module__", "") in CLOCKS:
                self._refuse(f"it calls {arg.__module__}.{arg.__name__}")
            elif arg in CALLS:
                self._refuse(f"it {CALLS[arg]}")
        except Exception as error:  # of an object that cannot be looked into
            self._refuse(f"what it reads cannot be recorded: {type(error).__name__}: {error}")

    def _enter(self, frame: FrameType) -> None:
        code, names = frame.f_code, mentioned(frame.f_code)
        self.sets_gradients |= not GRADIENTS.isdisjoint(names.attributes)
        for name in names.globals:
            value = frame.f_globals.get(name, MISSING)
            if value is not MISSING and not isinstance(value, ModuleType):
                self._record("entries", (frame.f_globals, name, value), name)
            self.open(value, names, name)
        for name, value in frame.f_locals.items():
            self._local(value, names, name)
        if code.co_freevars and code not in self._functions:
            for function in gc.get_referrers(code):
                if isinstance(function, FunctionType) and id(function) in self.existed:
                    self._function(function, names)
        for function in self._functions.get(code, ()):
            self._function(function, names)

    def _leave(self, frame: FrameType, returned: Any) -> None:
        names, caller = mentioned(frame.f_code), frame.f_back
        for name, value in frame.f_locals.items():
            self._local(value, names, name)
        if caller is not None and is_program(caller):
            called = f"what {frame.f_code.co_name} returns"
            self._local(returned, mentioned(caller.f_code), called)

    def _local(self, value: Any, names: Names, called: str) -> None:
        if id(value) in self.existed:
            self.open(value, names, called)

    def _function(self, function: FunctionType, names: Names) -> None:
        known = self._functions.setdefault(function.__code__, [])
        if function not in known:
            known.append(function)
        called = function.__code__.co_name
        for name, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            if name == "__class__":
                continue
            value = contents(cell)
            self._record("cells", (cell, value), f"{name} in {called}")
            self.open(value, names, name)
        for default in (function.__defaults__, function.__kwdefaults__):
            self.open(default, names, f"the defaults of {called}")
        if function.__dict__:
            self.open(function.__dict__.get("__wrapped__"), names, called)
            if not trusted(function.__code__.co_filename):
                self._by_name(function, names, called)

    def _items(self, values: Iterable[Any], names: Names, called: str) -> None:
        for position, value in enumerate(values):
            self.open(value, names, f"{called}[{position}]")

    def _collection(self, value: Any, names: Names, called: str) -> None:
        size = value.size if isinstance(value, np.ndarray) else len(value)
        if size > MOST_ITEMS:
            self._refuse(f"it reads {called}, which has {size} items: hand it over as a tensor")
        elif isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                self._refuse(f"it reads {called}, an array of objects")
            self._record("arrays", (value, value.copy()), called)
        elif isinstance(value, dict):
            if not self._record("dicts", (value, dict(value)), called):
                return
            for key, item in list(value.items()):
                self.open(item, names, f"{called}[{key!r}]")
        else:
            self._record("items", (value, list(value)), called)
            self._items(list(value), names, called)

    def _by_name(self, owner: Any, names: Names, called: str) -> None:
        """Record the attributes of an object that code names."""
        entries = getattr(owner, "__dict__", None)
        mentioned = names.attributes
        if names.every and entries is not None:
            mentioned = mentioned | {name for name in entries if not name.startswith("__")}
        for name in mentioned:
            self._attribute(owner, entries, name, names, f"{called}.{name}")

    def _attribute(self, owner: Any, entries: Any, name: str, names: Names, called: str) -> None:
        if entries is not None and name in entries:
            value = entries[name]
            self._record("entries", (entries, name, value), called)
            self.open(value, names, called)
            return
        for kind in type(owner).__mro__ if not isinstance(owner, type) else owner.__mro__:
            if name not in vars(kind):
                continue
            value = vars(kind)[name]
            if type(value).__name__ == "member_descriptor":
                value = getattr(owner, name, MISSING)
                self._record("attributes", (owner, name, value), called)
            elif not of_library(kind):
                self._record("entries", (vars(kind), name, value), called)
                if entries is not None:
                    self._record("entries", (entries, name, MISSING), called)
            else:
                return
            self.open(value, names, called)
            return
        if entries is not None and not isinstance(owner, ModuleType | nn.Module | type):
            self._record("entries", (entries, name, MISSING), called)

    def _module(self, module: nn.Module, called: str) -> None:
        """Record all that decides about what a module does, apart from the code of its class."""
        if ("module", id(module)) in self._seen:
            return
        self._seen["module", id(module)] = module
        entries = module.__dict__
        for values in (module._parameters, module._buffers, module._modules):
            if values or values is module._modules:
                self._record("dicts", (values, dict(values)), called)
        for name in HOOKS:
            for hook in entries.get(name, {}).values():
                self.open(hook, NONE, called)
            if entries.get(name):
                self._record("dicts", (entries[name], dict(entries[name])), f"{called}.{name}")
            elif name in entries:
                self._record("empty", (entries[name],), f"{called}.{name}")
        for name in OF_PYRO_MODULES:
            self.open(entries.get(name, MISSING), NONE, f"{called}.{name}")
        whole = of_library(type(module))
        for name, value in list(entries.items()):
            public = whole and not name.startswith("_")
            if name == "training" or (public and isinstance(value, (*SCALARS, tuple, Tensor))):
                self._record("entries", (entries, name, value), f"{called}.{name}")
            if public and isinstance(value, Tensor | FunctionType | MethodType):
                self.open(value, NONE, f"{called}.{name}")
        for values in (module._parameters, module._buffers):
            self._located.update(id(value) for value in values.values())
        for name, child in module._modules.items():
            if child is not None:
                self._module(child, f"{called}.{name}")

    def _whole(self, thing: Any, names: Names, called: str) -> None:
        """Record numbers, tensors and collections of an object of torch, Pyro or Python."""
        entries = getattr(thing, "__dict__", None)
        for name, value in list((entries or {}).items()):
            inner = f"{called}.{name}"
            if isinstance(value, (*SCALARS, Tensor)):
                self._record("entries", (entries, name, value), inner)
            if isinstance(value, Tensor | FunctionType | MethodType | tuple | list | nn.Module):
                self.open(value, names, inner)
            elif not isinstance(value, ATOMS) and of_library(type(value)):
                self.open(value, names, inner) if hasattr(value, "__dict__") else None

    def _settings(self) -> None:
        for alias, (module, deep_name, _) in pyro.settings._REGISTRY.items():
            if alias.startswith("validate"):
                continue
            owner: Any = sys.modules[module]
            *path, name = deep_name.split(".")
            for part in path:
                owner = getattr(owner, part)
            self._record("entries", (vars(owner), name, vars(owner)[name]), f"the setting {alias}")


NONE = Names(frozenset(), frozenset(), False)


@cache
def trusted(file: str) -> bool:
    """Whether code is torch's, NumPy's, Pyro's, Python's or the engine's: its state is known."""
    if file.startswith("<frozen") or file == REGISTRATION:
        return True
    if file.startswith(OURS):
        return not file.endswith("svi.py")
    if file.startswith(STANDARD):
        return "/site-packages/" not in file and "/dist-packages/" not in file
    return file.startswith(LIBRARIES) and not file.startswith(CONTRIBUTED)


def is_program(frame: FrameType) -> bool:
    """Whether a frame runs code of the program's own, or of a library that is not trusted."""
    file = frame.f_code.co_filename
    if file.startswith("<"):  # made from text, by a library or in a session
        if frame.f_globals.get("__name__") == "__main__":
            return True
        file = frame.f_globals.get("__file__") or "<frozen"
    return not trusted(file)


def _imports(frame: FrameType | None) -> bool:
    """Whether a frame runs because a module is imported, for the first time."""
    while frame is not None and frame.f_code.co_name != "_flat":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _is_ours(kind: type) -> bool:
    return kind.__module__.startswith(f"{__package__}.") and not kind.__module__.endswith("svi")


@cache
def of_library(kind: type) -> bool:
    """Whether a class is one of torch's, NumPy's or Pyro's, or built in."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    if file is None:
        return kind.__module__ == "builtins"
    return trusted(file) and not file.startswith(STANDARD)


@cache
def mentioned(code: CodeType) -> Names:
    """The names of globals and attributes in a code object, and in those inside of it."""
    found: dict[str, set[str]] = {"globals": set(), "attributes": set()}
    codes = [code]
    while codes:
        current = codes.pop()
        codes += [constant for constant in current.co_consts if isinstance(constant, CodeType)]
        for step in dis.get_instructions(current):
            if step.opname.endswith(("_GLOBAL", "_NAME")):
                found["globals"].add(step.argval)
            elif step.opname.endswith(("_ATTR", "_METHOD")):
                found["attributes"].add(step.argval)
    every = bool(found["globals"] & DYNAMIC) or "__dict__" in found["attributes"]
    found["attributes"] = {name for name in found["attributes"] if not name.startswith("__")}
    return Names(frozenset(found["globals"]), frozenset(found["attributes"]), every)


def _equal_states(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
