"""Hand a program's parameters to Pyro under a name that no other instance has."""

import itertools
from weakref import WeakKeyDictionary

import pyro
from torch import nn

_serial = itertools.count()
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def register(program: nn.Module) -> None:
    """Call :func:`pyro.module` on ``program``, under a name of its own.

    Pyro keeps parameters in one global store, by name. Were the name fixed, a second instance
    would find the first one's parameters there, receive gradients, and never move. The name is
    tied to the object, so a deep copy gets another one too.

    Arguments:
        program: The module whose parameters the surrounding model or guide uses.
    """
    if program not in _names:
        _names[program] = f"{type(program).__name__}-{next(_serial)}"
    pyro.module(_names[program], program)
