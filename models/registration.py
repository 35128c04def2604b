"""Register a program's parameters with Pyro under a name of its own."""

import itertools
from weakref import WeakKeyDictionary

import pyro
from torch import nn

_serial = itertools.count()
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def register(program: nn.Module) -> None:
    """Call :func:`pyro.module` on ``program``, under a name that no other instance has.

    Pyro keeps parameters in one global store, by name. With a fixed name, a second instance would
    find the first one's parameters there, and its own would never be updated. The name belongs to
    the object, so a deep copy has another.

    Arguments:
        program: The module whose parameters the calling model or guide uses.
    """
    if program not in _names:
        _names[program] = f"{type(program).__name__}-{next(_serial)}"
    pyro.module(_names[program], program)
