"""The attributes that code may read of an object, or of its classes."""

from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .guards import MISSING
from .sources import Names, derives_from_standard, of_library, of_program
from .subsamples import NOTE

if TYPE_CHECKING:
    from .state import State

OF_PARAMETERS = {"unconstrained", NOTE}  # what Pyro keeps on them


def by_name(state: "State", owner: Any, names: Names, called: str) -> None:
    """Record the attributes of an object that code names."""
    entries = getattr(owner, "__dict__", None) if not isinstance(owner, type) else None
    mentioned, kind = names.attributes, type(owner)
    # No frame of Python's own library is watched: its objects are read as a whole.
    if names.every or derives_from_standard(kind):
        mentioned = mentioned | _attributes(owner, entries)
    if isinstance(owner, Tensor):
        mentioned = mentioned - OF_PARAMETERS
        if not names.every:
            mentioned = mentioned & (entries or {}).keys()
    elif isinstance(owner, nn.Module):
        mentioned = mentioned | {"forward"}
    if of_program(kind) or isinstance(owner, nn.Module):
        state.record("classes", (owner, kind), called)
    for name in mentioned:
        _attribute(state, owner, entries, name, names, f"{called}.")
    for base in (*(owner.__mro__ if isinstance(owner, type) else ()), *kind.__mro__):
        if of_program(base):
            _operators(state, base, names)


def _operators(state: "State", kind: type, names: Names) -> None:
    """Record what Python calls of a class though no code names it, such as ``__call__``."""
    if (kind, names) in state.seen:
        return
    state.seen[kind, names] = kind
    for name, value in state.of(kind).items():
        if name.startswith("__") and isinstance(value, FunctionType):
            state.record("entries", (state.of(kind), name, value), f"{kind.__name__}.{name}")
            state.open(value, names, f"{kind.__name__}.{name}")


def _attribute(
    state: "State", owner: Any, entries: Any, name: str, names: Names, called: str
) -> None:
    if entries is not None:
        if name in entries:
            state.record("entries", (entries, name, entries[name]), called + name)
            state.open(entries[name], names, called + name)
            return
        state.absent(entries, name, called)
    # All classes that have the name, or might: any may come first, or be asked by super().
    for kind in (*(owner.__mro__ if isinstance(owner, type) else ()), *type(owner).__mro__):
        value = vars(kind).get(name, MISSING)
        if value is MISSING:
            if of_program(kind):
                state.absent(state.of(kind), name, f"{kind.__name__}.")
        elif type(value).__name__ == "member_descriptor":
            value = getattr(owner, name, MISSING)
            state.record("attributes", (owner, name, value), called + name)
            state.open(value, names, called + name)
            return
        elif not of_library(kind) or name == "forward":
            if hasattr(type(value), "__get__"):
                state.record("entries", (state.of(kind), name, value), called + name)
            else:
                state.record("attributes", (kind, name, value), called + name)
            state.open(value, names, called + name)
        else:
            return


def _attributes(owner: Any, entries: Any) -> set[str]:
    """The names of all attributes that an object itself has."""
    names = set(entries or ())
    for kind in type(owner).__mro__:
        slots = vars(kind).get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    return {name for name in names if not (isinstance(name, str) and name.startswith("__"))}
