"""Whose code a frame runs, whose class an object has, and what a code object mentions."""

import dis
import sys
import sysconfig
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

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

DYNAMIC = {"getattr", "setattr", "hasattr", "delattr", "vars"}


class Names(NamedTuple):
    """What a code object mentions."""

    globals: frozenset[str]
    attributes: frozenset[str]
    every: bool  # whether it may read any attribute


NONE = Names(frozenset(), frozenset(), every=False)


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
        if file.startswith("<doctest") or frame.f_globals.get("__name__") == "__main__":
            return True
        file = frame.f_globals.get("__file__") or "<frozen"
    return not trusted(file)


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
    return file is not None and trusted(file) and file.startswith(STANDARD)


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
