"""Which rows of parameters a step has used: Pyro notes them on parameters, for its optimizers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyro
from torch import Tensor

NOTE = "_pyro_subsample"
Rows = dict[int, dict[int, Any]]


@contextmanager
def rows_apart() -> Iterator[Callable[[Sequence[Tensor]], Rows]]:
    """Give a function that returns which rows of some parameters were used inside.

    These are the indices of each dimension, by the position of the parameter. Only what is noted
    inside is among them; afterwards a parameter has that and what was there before.
    """
    before = [(p, _notes(p)) for p in pyro.get_param_store()._params.values() if _notes(p)]
    for parameter, _ in before:
        setattr(parameter, NOTE, {})
    try:
        yield lambda parameters: {
            position: dict(_notes(parameter))
            for position, parameter in enumerate(parameters)
            if _notes(parameter)
        }
    finally:
        for parameter, notes in before:
            setattr(parameter, NOTE, {**notes, **_notes(parameter)})


def note_rows(parameters: Sequence[Tensor], rows: Rows) -> None:
    """Note on parameters which rows a step has used.

    Example:
        >>> import torch
        >>> weight = torch.zeros(3, 2)
        >>> note_rows([weight], {0: {-2: torch.tensor([1])}})
        >>> weight._pyro_subsample
        {-2: tensor([1])}
    """
    for position, found in rows.items():
        parameter: Any = parameters[position]
        setattr(parameter, NOTE, {**_notes(parameter), **found})


def _notes(parameter: Any) -> dict[int, Any]:
    notes: dict[int, Any] = getattr(parameter, NOTE, {})
    return notes
