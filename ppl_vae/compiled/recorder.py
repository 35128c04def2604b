"""Which of Python's state a program reads, recorded while it is captured."""

import gc
import io
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Self

import numpy as np
import pyro

from .guards import MISSING
from .sources import Names, imports, is_program, mentioned, of_library
from .state import State

CALLS = {print: "prints", open: "opens a file", input: "asks for input"}
# Clocks, and what leaves a trace outside; the second by the file that its code is in.
MODULES = {"time", "datetime", "posix", "secrets", "_warnings"}
FILES = {logging.__file__, warnings.__file__}
UNTRACEABLE = {"globals", "eval", "exec", "environ", "getenv"}
GRADIENTS = {"grad", "zero_grad"}


class Recorder:
    """Record what the code of a program reads, and what keeps it from being a graph.

    A profile hook sees each frame of code that is not torch's, Pyro's or the standard library's.
    The globals, closure cells and attributes that the code names are recorded with what they hold,
    and what they hold is looked into in turn: objects by the names in the code, collections,
    modules and objects of torch and Pyro as a whole.

    Arguments:
        refuse: Takes what keeps the program from being a graph, in a few words, and perhaps the
            frame that does.

    Attributes:
        state: What was recorded.
        existed: The identities of all objects that were there before.
        sets_gradients: Whether the program's own code may change ``.grad``.
    """

    def __init__(self, refuse: Callable[..., None]) -> None:
        self.state, self._refuse = State(refuse), refuse
        self.existed: set[int] = set()
        self.sets_gradients = False
        self._looked_for: set[CodeType] = set()

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
        previous, collects = sys.getprofile(), gc.isenabled()
        gc.disable()  # what others do when garbage is collected is none of the program's doing
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(previous)
            if collects:
                gc.enable()

    def changed(self) -> str:
        """What the program has changed since it was read, if anything."""
        if random.getstate() != self._random[0]:
            return "it draws Python's random numbers"
        if not _equal_states(np.random.get_state(), self._random[1]):
            return "it draws NumPy's random numbers"
        for name, change in self.state.guards.broken():
            return f"it changes {name}, which {change}"
        return ""

    def undo(self) -> None:
        """Give Python's state what it was."""
        random.setstate(self._random[0])
        np.random.set_state(self._random[1])
        self.state.guards.undo()

    def _event(self, frame: FrameType, event: str, arg: Any) -> None:
        if event not in ("call", "return", "c_call"):
            return
        if event == "call" and frame.f_code.co_filename in FILES:
            caller = frame.f_back
            if caller is not None and is_program(caller) and not imports(caller):
                called = f"{frame.f_code.co_name} of {frame.f_globals['__name__']}"
                self._refuse(f"it calls {called}", caller)
            return
        if not is_program(frame) or imports(frame):
            return
        try:
            if event == "call":
                self._enter(frame)
            elif event == "return":
                self._leave(frame, arg)
            else:
                self._call(arg)
        except Exception as error:  # of an object that cannot be looked into
            self._refuse(f"what it reads cannot be recorded: {type(error).__name__}: {error}")

    def _call(self, function: Any) -> None:
        """See a function that is written in C."""
        owner = getattr(function, "__self__", None)
        module = getattr(function, "__module__", None) or getattr(owner, "__module__", None)
        if function in CALLS:
            self._refuse(f"it {CALLS[function]}")
        elif module in MODULES:
            self._refuse(f"it calls {function.__name__} of {module}")
        elif isinstance(owner, io.IOBase):
            self._refuse("it writes to a file")

    def _enter(self, frame: FrameType) -> None:
        code, names = frame.f_code, mentioned(frame.f_code)
        self.sets_gradients |= not GRADIENTS.isdisjoint(names.attributes)
        for name in UNTRACEABLE & (names.globals | names.attributes):
            if name not in ("eval", "exec") or name in names.globals:  # net.eval() is another
                self._refuse(f"it reads {name}")
        for name in names.globals:
            value = frame.f_globals.get(name, MISSING)
            if value is not MISSING and not isinstance(value, ModuleType):
                self.state.record("entries", (frame.f_globals, name, value), name)
            self.state.open(value, names, name)
        for name, value in frame.f_locals.items():
            self._local(value, names, name)
        if code.co_freevars and code not in self._looked_for | self.state.functions.keys():
            self._looked_for.add(code)
            for function in gc.get_referrers(code):
                if isinstance(function, FunctionType) and id(function) in self.existed:
                    self.state.function(function, names)
        for function in self.state.functions.get(code, ()):
            self.state.function(function, names)

    def _leave(self, frame: FrameType, returned: Any) -> None:
        names, caller = mentioned(frame.f_code), frame.f_back
        for name, value in frame.f_locals.items():
            self._local(value, names, name)
        if caller is not None and is_program(caller):
            called = f"what {frame.f_code.co_name} returns"
            self._local(returned, mentioned(caller.f_code), called)

    def _local(self, value: Any, names: Names, called: str) -> None:
        if id(value) in self.existed:
            self.state.open(value, names, called)
        elif not of_library(type(value)):  # as a dataclass that is an argument, or made from one
            self.state.open(type(value), names, f"{type(value).__name__} of {called}")

    def _settings(self) -> None:
        for alias, (module, deep_name, _) in pyro.settings._REGISTRY.items():
            if alias.startswith("validate"):
                continue
            owner: Any = sys.modules[module]
            *path, name = deep_name.split(".")
            for part in path:
                owner = getattr(owner, part)
            self.state.record(
                "entries", (vars(owner), name, vars(owner)[name]), f"the setting {alias}"
            )


def _equal_states(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
