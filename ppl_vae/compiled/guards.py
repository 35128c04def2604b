"""What a graph takes for granted of Python's state, compared at each call."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import CellType, CodeType, FunctionType
from typing import Any

import numpy as np
import pyro
from torch import Tensor

MISSING = type("Missing", (), {"__repr__": lambda self: "missing"})()
SCALARS = (bool, int, float, complex, str, bytes, type(None))


def same(one: Any, other: Any) -> bool:
    """Whether two values mean the same to a program: one object, or equal scalars of one type.

    Example:
        >>> same(0.1, 1 / 10), same(1, 1.0), same(0.0, -0.0), same(0.0, 0.1), same([1], [1])
        (True, False, False, False, False)
    """
    if one is other:
        return True
    if type(one) is not type(other) or not isinstance(one, (*SCALARS, Enum)):
        return False
    if isinstance(one, float) and one == other == 0:
        return math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@dataclass
class Guards:
    """Conditions on Python's state. Each holds what was found while a program was captured.

    Attributes:
        entries: Values in dictionaries: instances, modules, globals.
        absent: Such dictionaries, and the names that they lack.
        classes: Objects, and what classes they are of.
        functions: Functions, with their code and defaults.
        attributes: Values that lie elsewhere: in slots and classes.
        cells: What closures hold.
        dicts: Dictionaries, with all that they hold.
        items: Lists, deques and sets, with their items.
        empty: Collections that hold nothing.
        arrays: NumPy arrays, with their contents.
        tensors: What graphs read beside their arguments, with all that decides about a graph.
        parameters: What Pyro's store holds, by name.
        located: Tensors that the state holds, by identity, of which some may be arguments, too.
        names: What entries and all the others are called in messages, by (kind, position).
    """

    entries: list[tuple[Any, Any, Any]] = field(default_factory=list)
    absent: list[tuple[Any, set[str]]] = field(default_factory=list)
    classes: list[tuple[Any, type]] = field(default_factory=list)
    functions: list[tuple[FunctionType, CodeType, Any, Any]] = field(default_factory=list)
    attributes: list[tuple[Any, str, Any]] = field(default_factory=list)
    cells: list[tuple[CellType, Any]] = field(default_factory=list)
    dicts: list[tuple[Any, dict[Any, Any]]] = field(default_factory=list)
    items: list[tuple[Any, list[Any]]] = field(default_factory=list)
    empty: list[Any] = field(default_factory=list)
    arrays: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    tensors: list[tuple[Tensor, tuple[Any, ...]]] = field(default_factory=list)
    parameters: list[tuple[str, Tensor]] = field(default_factory=list)
    located: dict[int, Tensor] = field(default_factory=dict)
    names: dict[tuple[str, int], str] = field(default_factory=dict)

    def add(self, kind: str, guard: tuple[Any, ...], name: str) -> None:
        """Add a condition of some kind, by the name of the attribute that lists them."""
        guards = getattr(self, kind)
        self.names[kind, len(guards)] = name
        guards.append(guard[0] if kind == "empty" else guard)

    def hold(self) -> bool:
        """Whether all is as it was. Made for speed: :meth:`broken` says what is not."""
        for entries, key, value in self.entries:
            found = entries.get(key, MISSING)
            if found is not value and not same(found, value):
                return False
        for tensor, kind in self.tensors:
            if kind_of(tensor) != kind:
                return False
        for entries, names in self.absent:
            if not entries.keys().isdisjoint(names):
                return False
        for entries, copy in self.dicts:
            if len(entries) != len(copy) or not _holds(entries, copy):
                return False
        store = pyro.get_param_store()._params
        for name, parameter in self.parameters:
            if store.get(name) is not parameter:
                return False
        if any(self.empty):
            return False
        return not any(True for _ in self._rest())

    def moved(self) -> bool:
        """Whether the program has other parameters now, or they are of another kind."""
        kept = pyro.get_param_store()._params
        return any(kept.get(name) is not parameter for name, parameter in self.parameters) or any(
            kind_of(tensor) != kind for tensor, kind in self.tensors
        )

    def broken(self) -> Iterator[tuple[str, str]]:
        """Which conditions do not hold: what is called how, and what happened to it."""
        for position, (entries, key, value) in enumerate(self.entries):
            found = entries.get(key, MISSING)
            if not same(found, value):
                yield self.names["entries", position], _change(value, found)
        store = pyro.get_param_store()._params
        for position, (name, parameter) in enumerate(self.parameters):
            if store.get(name) is not parameter:
                yield self.names["parameters", position], "was replaced in Pyro's store"
        for position, (tensor, kind) in enumerate(self.tensors):
            if kind_of(tensor) != kind:
                yield self.names["tensors", position], _difference(kind, kind_of(tensor))
        for position, (entries, lacks) in enumerate(self.absent):
            for key in sorted(entries.keys() & lacks):
                yield f"{self.names['absent', position]}{key}", "is there now"
        for position, (entries, copy) in enumerate(self.dicts):
            for where, change in _differences(entries, copy):
                yield self.names["dicts", position] + where, change
        for position, found in enumerate(self.empty):
            if found:
                yield self.names["empty", position], "is empty no more"
        for where, position, change in self._rest():
            yield self.names[where, position], change

    def _rest(self) -> Iterator[tuple[str, int, str]]:
        for position, (thing, kind) in enumerate(self.classes):
            if type(thing) is not kind:
                yield "classes", position, f"is of class {type(thing).__name__} now"
        for position, (function, code, defaults, named) in enumerate(self.functions):
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__ is not named
            ):
                yield "functions", position, "has other code or defaults now"
        for position, (owner, name, value) in enumerate(self.attributes):
            found = getattr(owner, name, MISSING)
            if not same(found, value):
                yield "attributes", position, _change(value, found)
        for position, (cell, value) in enumerate(self.cells):
            found = contents(cell)
            if not same(found, value):
                yield "cells", position, _change(value, found)
        for position, (collection, values) in enumerate(self.items):
            now = list(collection)
            if len(now) != len(values) or not all(map(same, now, values)):
                yield "items", position, "has other items now"
        for position, (array, numbers) in enumerate(self.arrays):
            if array.shape != numbers.shape or array.tobytes() != numbers.tobytes():
                yield "arrays", position, "has other values now"

    def undo(self) -> None:
        """Give Python's state, but no tensor's values, what it was."""
        for entries, key, value in self.entries:
            if not same(entries.get(key, MISSING), value) and isinstance(entries, dict):
                if value is MISSING:
                    del entries[key]
                else:
                    entries[key] = value
        for entries, lacks in self.absent:
            for key in entries.keys() & lacks if isinstance(entries, dict) else ():
                del entries[key]
        for owner, name, value in self.attributes:
            if not same(getattr(owner, name, MISSING), value):
                delattr(owner, name) if value is MISSING else setattr(owner, name, value)
        for cell, value in self.cells:
            if not same(contents(cell), value):
                cell.cell_contents = value
        for entries, copy in self.dicts:
            if len(entries) != len(copy) or not _holds(entries, copy):
                entries.clear()
                entries.update(copy)
        for collection, values in self.items:
            if len(collection) != len(values) or not all(map(same, collection, values)):
                collection.clear()
                (collection.update if isinstance(collection, set) else collection.extend)(values)
        for array, numbers in self.arrays:
            array[...] = numbers


def _holds(entries: Any, copy: dict[Any, Any]) -> bool:
    """Whether a dictionary, of the same length, has the same items in the same order."""
    for (key, value), (name, found) in zip(copy.items(), entries.items(), strict=False):
        if found is not value and not same(found, value):
            return False
        if name is not key and not same(name, key) and not (type(key) is tuple and name == key):
            return False
    return True


def _differences(entries: Any, copy: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """Where a dictionary is not what it was, and what happened there."""
    if len(entries) == len(copy) and _holds(entries, copy):
        return
    pairs = {
        key: (copy.get(key, MISSING), entries.get(key, MISSING)) for key in {**copy, **entries}
    }
    changed = {key: pair for key, pair in pairs.items() if not same(*pair)}
    for key, pair in changed.items():
        yield f"[{short(key)}]", _change(*pair)
    if not changed:
        yield "", "has another order now"


def contents(cell: CellType) -> Any:
    """What a cell holds, which may be nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def kind_of(tensor: Tensor) -> tuple[Any, ...]:
    """All of a tensor, its values and place apart, that decides what a program does with it."""
    hooks, after = tensor._backward_hooks, tensor._post_accumulate_grad_hooks
    return (
        tensor.dtype,
        tensor.shape,
        tensor.stride(),
        tensor.requires_grad,
        tensor.device,
        tuple(hooks.values()) if hooks else (),
        tuple(after.values()) if after else (),
    )


KINDS = ("type", "shape", "stride", "requires_grad", "device", "hooks", "hooks")


def _difference(before: Sequence[Any], now: Sequence[Any]) -> str:
    name, old, new = next(
        (name, a, b) for name, a, b in zip(KINDS, before, now, strict=True) if a != b
    )
    if name == "hooks":
        return "has other hooks now"
    return f"had {name} {short(old)}, and now {short(new)}"


def _change(before: Any, now: Any) -> str:
    if isinstance(before, SCALARS) and isinstance(now, SCALARS):
        return f"was {short(before)}, and now is {short(now)}"
    if before is MISSING or now is MISSING:
        return "is there now" if before is MISSING else "is gone"
    return "is another object now"


def short(value: Any) -> str:
    """A value on one line of a message."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    text = repr(tuple(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."
