"""Programs of an experiment: built, and fitted, the same way in all of them."""

from typing import Any

from ..data.dataset import DataSet
from ..programs.protocol import Program
from ..runtime import derived_seed, isolated
from ..training.fit import fit
from ..training.settings import Settings


def build(kind: type[Any], data: DataSet, seed: int, *arguments: Any, **named: Any) -> Any:
    """Call a model's class with the shape of a datum, its initial weights drawn from ``seed``."""
    with isolated(derived_seed(seed, "weights")):
        return kind(data.shape, *arguments, **named)


def fit_new(
    kind: type[Any], data: DataSet, epochs: int, seed: int, *arguments: Any, **named: Any
) -> Program:
    """:func:`build`, and a fit of so many epochs."""
    program: Program = build(kind, data, seed, *arguments, **named)
    fit(program, data, Settings(epochs=epochs, seed=seed), progress=False)
    return program
