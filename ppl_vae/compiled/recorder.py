"""Which of Python's state a program reads, recorded while it is captured."""

import builtins
import contextlib
import gc
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Self

import numpy as np
import pyro

from .effects import FILES, Output, effect_of
from .guards import MISSING
from .sources import (
    EVERY,
    PASSING,
    Names,
    from_program,
    imports,
    in_standard,
    is_program,
    mentioned,
    of_library,
    of_program,
    trusted,
)
from .state import State

UNTRACEABLE = {
    "globals", "eval", "exec", "environ", "getenv", "__import__", "f_back", "_getframe",
    "currentframe", "_current_frames",
}  # fmt: skip
IMPORTS = importlib.import_module.__code__
BUILTINS = {"eval", "exec"}  # net.eval() is another
GRADIENTS = {"grad", "zero_grad"}
MOST_ARGUMENTS = 100
TYPES = {"isinstance", "issubclass", "type", "is_tensor"}


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
        asks_for_types: Whether it asks for the type of anything.
    """

    def __init__(self, refuse: Callable[..., None]) -> None:
        self.state, self._refuse = State(refuse), refuse
        self.existed: set[int] = set()
        self.sets_gradients = self.asks_for_types = False
        self._looked_for: set[CodeType] = set()

    def __enter__(self) -> Self:
        self._kept = gc.get_objects()  # so that no new object gets the place of an old one
        self.existed = {id(thing) for thing in self._kept}
        self._random = random.getstate(), np.random.get_state()
        _record_settings(self.state)
        return self

    def __exit__(self, *error: object) -> None:
        del self._kept
        self.existed.clear()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Record what is read inside."""
        previous, collects, output = sys.getprofile(), gc.isenabled(), sys.stdout
        gc.disable()  # what others do when garbage is collected is none of the program's doing
        told: Any = Output(output, lambda frame: self._refuse("it prints", frame))
        sys.stdout = told
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(previous)
            if sys.stdout is told:
                sys.stdout = output
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
        try:
            if not is_program(frame):
                self._elsewhere(frame, event, arg)
            elif imports(frame):
                return
            elif event == "call":
                self._enter(frame)
            elif event == "return":
                self._leave(frame, arg)
            elif effect := effect_of(arg, self.existed):
                self._refuse(effect)
        except Exception as error:  # of an object that cannot be looked into
            self._refuse(f"what it reads cannot be recorded: {type(error).__name__}: {error}")

    def _elsewhere(self, frame: FrameType, event: str, arg: Any) -> None:
        """See what libraries do for the program: to files, and to what it hands over."""
        if event == "c_call":
            effect = effect_of(arg, self.existed, of_library=True)
            caller = from_program(frame, trusted) if effect else None
            if caller is not None and not imports(frame):
                self._refuse(effect, caller)
        elif event == "call" and in_standard(frame.f_code.co_filename):
            if id(_entered(frame)) in self.existed:
                self._refuse("it enters a context manager that was made before", frame)
            if frame.f_code is IMPORTS and from_program(frame, in_standard) is not None:
                self._refuse("it calls import_module", frame)
            if frame.f_code.co_filename in PASSING or imports(frame):
                return
            handed = [part for value in frame.f_locals.values() for part in _parts(value)]
            handed = [x for x in handed if of_program(type(x)) and id(x) in self.existed]
            if handed and from_program(frame, in_standard) is not None:
                for thing in handed:
                    called = f"what {frame.f_code.co_name} of Python's library is given"
                    self.state.open(thing, EVERY, called)

    def _enter(self, frame: FrameType) -> None:
        code, names = frame.f_code, mentioned(frame.f_code)
        self.sets_gradients |= not GRADIENTS.isdisjoint(names.attributes)
        self.asks_for_types |= bool(TYPES & names.globals) or "is_tensor" in names.attributes
        for name in UNTRACEABLE & (names.globals | names.attributes):
            if name not in BUILTINS or name in names.globals:
                self._refuse(f"it reads {name}")
        if "modules" in names.attributes and "sys" in names.globals:
            self._refuse("it reads sys.modules")
        if "get_param_store" in names.globals | names.attributes:
            self.state.open(pyro.get_param_store(), names, "Pyro's store")
        _record_globals(self.state, frame, names)
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


def _entered(frame: FrameType) -> Any:
    """The generator that a frame enters as a context manager, which can be done but once."""
    entered = frame.f_locals.get("self") if frame.f_code.co_name == "__enter__" else None
    return entered if isinstance(entered, contextlib._GeneratorContextManager) else None


def _equal_states(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _parts(value: Any) -> list[Any]:
    """A value, and what arguments hold that are handed on by position or name."""
    if type(value) in (tuple, dict) and len(value) < MOST_ARGUMENTS:
        return [value, *(value.values() if isinstance(value, dict) else value)]
    return [value]


def _record_globals(state: State, frame: FrameType, names: Names) -> None:
    entries = frame.f_globals
    for name in names.globals:
        value = entries.get(name, MISSING)
        if value is MISSING:
            state.absent(entries, name, "")
            value = vars(builtins).get(name, MISSING)
        elif not isinstance(value, ModuleType):
            state.record("entries", (entries, name, value), name)
        state.open(value, names, name)
    for above, name in names.imports:
        if above:
            name = importlib.util.resolve_name("." * above + name, entries["__package__"])
        state.open(sys.modules.get(name, MISSING), names, name)


def _record_settings(state: State) -> None:
    """Record what decides about all programs."""
    for name, parameter in pyro.get_param_store()._params.items():
        state.hooks(parameter, f"the parameter {name}")
    for alias, (module, deep_name, _) in pyro.settings._REGISTRY.items():
        if alias.startswith("validate"):
            continue
        owner: Any = sys.modules[module]
        *path, name = deep_name.split(".")
        for part in path:
            owner = getattr(owner, part)
        state.record("entries", (vars(owner), name, vars(owner)[name]), f"the setting {alias}")
