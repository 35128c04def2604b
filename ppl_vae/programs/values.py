"""The values of data, compared with what a program can take."""

from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..data.batch import OBSERVED, Batch
from ..data.classes import LABELS, UNKNOWN
from ..data.missing import observed
from ..errors import InputError, first_line
from .protocol import innermost

COUNTS = (
    "give other numbers than bytes, if they are counts: uint8 is read as levels of grey, and "
    "divided by 255"
)


def check_support(
    site: str,
    likelihood: Any,
    drawn: Tensor,
    like: Tensor,
    pieces: Iterable[Batch],
    rows: Tensor | None,
) -> None:
    """Refuse values that the likelihood of an observed site does not support.

    Arguments:
        site: The name of the site.
        likelihood: Its distribution.
        drawn: A value of the likelihood's own, which stands in where one is missing.
        like: A tensor of the device and the type that the program takes.
        pieces: All data points in turn.
        rows: What messages call each data point; by default its index.

    Raises:
        InputError: Naming the data point.
    """
    start = 0
    for piece in pieces:
        block = piece[site].to(like.device, like.dtype)
        if site == OBSERVED:
            seen = observed(piece.x, piece).to(like.device)
            block = torch.where(seen, block, drawn.to(block))
        infinite = block.flatten(1).isinf().any(1) if block.dim() > 1 else block.isinf()
        if infinite.any():
            datum = _name(start + int(infinite.nonzero()[0]), rows)
            raise InputError(datum, f"is infinite, or beyond {block.dtype}", "remove or rescale it")
        inside = likelihood.support.check(block)
        if not inside.all():
            culprit = int((~inside).nonzero()[0, 0])
            _refuse(site, likelihood, block, culprit, _name(start + culprit, rows))
        start += piece.size


def _refuse(site: str, likelihood: Any, block: Tensor, culprit: int, datum: str) -> NoReturn:
    try:
        innermost(likelihood).log_prob(block[culprit])  # whatever is masked for another datum
    except ValueError as error:
        remedy = COUNTS if _may_be_divided(block) else ""
        raise InputError(f"{datum}:", first_line(error), remedy) from None
    raise InputError(
        datum,
        f"lies outside {likelihood.support}, the support of the likelihood of {site}",
        COUNTS if _may_be_divided(block) else "rescale the data, or choose another likelihood",
    )


def check_labels(name: str, pieces: Iterable[Batch], rows: Tensor | None) -> None:
    """Refuse labels that are not known, for a program that takes them as given.

    Arguments:
        name: The program's.
        pieces: All data points in turn.
        rows: What messages call each data point; by default its index.

    Raises:
        InputError: Naming the data point.
    """
    start = 0
    for piece in pieces:
        labels = piece.get(LABELS)
        if labels is None or labels.dtype != torch.int64 or labels.dim() != 1:
            return
        if (unknown := labels == UNKNOWN).any():
            raise InputError(
                _name(start + int(unknown.nonzero()[0]), rows),
                f"has no label ({LABELS} is {UNKNOWN}), which {name} takes as given",
                "leave out such data, or choose a program for data that are labelled in part",
            )
        start += piece.size


def _may_be_divided(values: Tensor) -> bool:
    """Whether these look like bytes that were divided by 255."""
    levels = values.double() * 255
    of_grey = torch.isclose(levels, levels.round(), rtol=0.0, atol=1e-3).all()
    between = bool(((values > 0) & (values < 1)).any())
    return bool(of_grey) and between and bool(values.min() >= 0 and values.max() <= 1)


def _name(index: int, rows: Tensor | None) -> str:
    return f"datum {index if rows is None else int(rows[index])}"
