"""Whose code a frame runs, whose class an object has, and what a code object mentions."""

import dis
import sys
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np
import pyro
import torch
from pyro.nn import PyroModule
from torch import nn

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

# Whoever names these may read, or set, attributes that are named nowhere.
DYNAMIC = {"getattr", "setattr", "hasattr", "delattr", "vars", "attrgetter"}
DYNAMIC_METHODS = {"__dict__", "__setattr__", "__delattr__", "__getattribute__", "attrgetter"}
# Classes that add no state to those derived from them, and code that hands on what it is given.
WITHOUT_STATE = {"abc", "typing", "typing_extensions", "contextlib", "enum", "builtins"}
PASSING = tuple(
    f"{STANDARD}{name}"
    for name in ("contextlib.py", "functools.py", "abc.py", "typing.py", "enum.py", "weakref.py")
)


class Names(NamedTuple):
    """What a code object mentions."""

    globals: frozenset[str]
    attributes: frozenset[str]
    every: bool  # whether it may read any attribute
    imports: frozenset[tuple[int, str]] = frozenset()  # modules, each with how far up to begin


NONE = Names(frozenset(), frozenset(), every=False)
EVERY = Names(frozenset(), frozenset(), every=True)


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
    if file.startswith(("<frozen", "<eval_with_key>")):  # Python's own, and torch's graphs
        return False
    if file.startswith("<"):  # made from text, by a library, in a session or by the program
        name = frame.f_globals.get("__name__", "")
        if file.startswith("<doctest") or name == "__main__":
            return True
        if name.startswith("namedtuple_"):
            return False
        file = frame.f_globals.get("__file__") or file
    return not trusted(file)


def from_program(frame: FrameType, through: Callable[[str], bool]) -> FrameType | None:
    """The frame of the program's code that has led to a frame, through files of some kind only.

    What the engine does when it sees an operation is none of the program's doing.
    """
    found: FrameType | None = frame
    while found is not None and not is_program(found):
        file = found.f_code.co_filename
        if file.startswith(OURS) or not through(file):
            return None
        found = found.f_back
    return found


def in_standard(file: str) -> bool:
    """Whether a file is one of Python's own library."""
    return file.startswith((STANDARD, "<frozen")) and trusted(file)


def imports(frame: FrameType | None) -> bool:
    """Whether a frame runs because a module is imported, for the first time."""
    while frame is not None and frame.f_code.co_name != "_flat":
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def is_engine(kind: type) -> bool:
    """Whether a class is the engine's own."""
    return kind.__module__.startswith(f"{__package__}.") and not kind.__module__.endswith("svi")


def of_library(kind: type) -> bool:
    """Whether a class is one of torch's, NumPy's or Pyro's."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and trusted(file) and not file.startswith(STANDARD)


def derives_from_library(kind: type) -> bool:
    """Whether library code may read what an object of a class holds."""
    return any(of_library(base) for base in kind.__mro__ if base not in (nn.Module, PyroModule))


def is_standard(kind: type) -> bool:
    """Whether a class is one of Python's own library, and none of a program's."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and in_standard(file)


def of_program(kind: type) -> bool:
    """Whether a class is the program's own, or of a library that is not trusted."""
    if kind.__module__ in sys.builtin_module_names or of_library(kind) or is_standard(kind):
        return False
    return not is_engine(kind)


def derives_from_standard(kind: type) -> bool:
    """Whether code of Python's own library, which nobody watches, may read an object's state."""
    return any(is_standard(base) and base.__module__ not in WITHOUT_STATE for base in kind.__mro__)


def in_c(kind: type) -> bool:
    """Whether objects of a class keep state where only C code sees it."""
    for base in kind.__mro__:
        if base.__module__ == "builtins":
            continue
        file = getattr(sys.modules.get(base.__module__), "__file__", None) or ""
        if base.__module__ in sys.builtin_module_names or file.endswith(".so"):
            return True
    return False


@cache
def mentioned(code: CodeType) -> Names:
    """The names of globals and attributes in a code object, and in those inside of it."""
    found: dict[str, set[Any]] = {kind: set() for kind in ("globals", "attributes", "imports")}
    texts: set[str] = set()
    codes, matches = [code], False
    while codes:
        current = codes.pop()
        codes += [constant for constant in current.co_consts if isinstance(constant, CodeType)]
        texts.update(c for c in current.co_consts if isinstance(c, str) and c.isidentifier())
        above: Any = 0
        for step in dis.get_instructions(current):
            if step.opname.endswith(("_GLOBAL", "_NAME")) and step.opname != "IMPORT_NAME":
                found["globals"].add(step.argval)
            elif step.opname.endswith(("_ATTR", "_METHOD", "IMPORT_FROM")):
                found["attributes"].add(step.argval)
            elif step.opname == "IMPORT_NAME":
                found["imports"].add((above, step.argval))
            elif step.opname == "LOAD_CONST" and isinstance(step.argval, int):
                above = step.argval  # the last number before an import: of packages to go up
            matches |= step.opname == "MATCH_CLASS"
    dynamic = found["globals"] & DYNAMIC or found["attributes"] & DYNAMIC_METHODS
    if dynamic:
        found["attributes"] |= texts
    found["attributes"] = {name for name in found["attributes"] if not name.startswith("__")}
    return Names(
        frozenset(found["globals"]),
        frozenset(found["attributes"]),
        bool(dynamic) or matches,
        frozenset(found["imports"]),
    )
