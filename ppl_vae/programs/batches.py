"""What a program takes, and data that have it."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..data.batch import OBSERVED, Batch
from ..data.classes import LABELS
from ..data.dataset import DataSet, Split
from ..data.missing import MASK
from ..errors import InputError, check_type
from .protocol import Program, require_program


def covariates_of(program: Program) -> tuple[set[str], set[str] | None]:
    """The names of the covariates that a program needs, and of those that it takes.

    Model and guide are called with the same arguments, so it needs what either needs, and takes
    what both take; ``None`` for whatever there is.

    Example:
        >>> from ppl_vae.models import VAE
        >>> needed, taken = covariates_of(VAE((5,)))
        >>> needed, sorted(taken)
        (set(), ['exposure', 'mask'])
    """
    needed: set[str] = set()
    taken: set[str] | None = None
    for function in (program.model, program.guide):
        parameters = list(inspect.signature(function).parameters.values())[1:]  # after x
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        needed |= {p.name for p in named if p.default is p.empty}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            names = {p.name for p in named}
            taken = names if taken is None else taken & names
    return needed, taken


def takes_labels(program: Program) -> bool:
    """Whether model and guide have an argument ``y``, which class labels serve as."""
    named = (inspect.signature(f).parameters for f in (program.model, program.guide))
    return LABELS in covariates_of(program)[0] or all(LABELS in arguments for arguments in named)


def match_data(program: Program, data: DataSet) -> DataSet:
    """The data set with exactly the covariates that a program takes.

    Class labels serve as the covariate ``y`` of a program that takes one.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: The data set.

    Raises:
        InputError: Naming what the program takes and the data lack, or have and it does not take.
    """
    require_program(program)
    check_type("data", data, DataSet)
    has_labels = all(s.labels is not None for s in (data.train, data.validation, data.test))
    if has_labels and takes_labels(program) and LABELS not in data.train.covariates:
        train, validation, test = map(_with_labels, (data.train, data.validation, data.test))
        data = replace(data, train=train, validation=validation, test=test)
    check_covariates(program, data.train.covariates, data.source)
    return data


def _with_labels(split: Split) -> Split:
    assert split.labels is not None
    return replace(split, covariates={LABELS: split.labels, **split.covariates})


def check_covariates(program: Program, covariates: Mapping[str, Any], source: str) -> None:
    """Refuse covariates that are not those of a program.

    Raises:
        InputError: Naming the covariate.
    """
    needed, taken = covariates_of(program)
    name = type(program).__name__
    if missing := needed - covariates.keys():
        raise InputError(
            source,
            f"lacks {min(missing)!r}, which {name} takes beside {OBSERVED!r}",
            "add it to the data, one row a data point",
        )
    if taken is not None and MASK not in taken and MASK in covariates:
        raise InputError(
            source,
            f"has values that are missing (its {MASK!r} says which), and {name} does not take them",
            f"impute or remove them, or add {MASK} to the arguments of {name}.model and "
            f"{name}.guide",
        )
    if taken is not None and (stray := covariates.keys() - taken):
        raise InputError(
            source,
            f"holds {min(stray)!r}, which {name} does not take",
            f"leave it out, or add it to the arguments of {name}.model and {name}.guide",
        )


def check_batch(program: Program, data: Any) -> Batch:
    """Data as a batch that a program takes, whatever the values.

    Raises:
        InputError: Saying what they are instead.
    """
    require_program(program)
    if not isinstance(data, Mapping):
        data = {OBSERVED: data}
    if OBSERVED not in data:
        raise InputError("data", f"have no {OBSERVED!r}, only {', '.join(map(str, data))}")
    batch = Batch.of(data)
    _check_tensor(OBSERVED, batch.x)
    for name, tensor in batch.covariates.items():
        _check_tensor(name, tensor)
        if len(tensor) != batch.size:
            raise InputError(
                f"covariate {name!r}", f"has {len(tensor)} rows, but there are {batch.size} data"
            )
    check_covariates(program, batch.covariates, "the batch")
    return batch


def _check_tensor(name: str, tensor: Any) -> None:
    culprit = "data" if name == OBSERVED else f"covariate {name!r}"
    if not isinstance(tensor, Tensor):
        given = type(tensor).__name__
        raise InputError(culprit, f"must be a tensor, such as DataSet.batch gives, not {given}")
    if tensor.layout != torch.strided or tensor.is_meta:
        raise InputError(culprit, "are sparse, or without values", "give a dense tensor")
    if tensor.is_complex():
        raise InputError(culprit, f"are of type {tensor.dtype}, but must be real numbers")
    least = 2 if name == OBSERVED else 1
    if tensor.dim() < least or not tensor.numel():
        raise InputError(
            culprit,
            f"of shape {tuple(tensor.shape)} are empty, or not a batch",
            "give one row a data point, such as (N, *data_shape)",
        )
