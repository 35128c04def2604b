"""Draws from a guide scored in blocks, so that memory does not grow with draws and data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ..choices import Engine
from ..compiled.engine import DENSITY, Compiled, worth_compiling
from ..data.batch import Batch
from ..errors import check_int
from ..progress import Progress
from ..storage.memory import refuse_beyond_memory
from .protocol import Program
from .sites import trace_draws
from .terms import Terms, concatenate, refuse_infinite, score_traces

if TYPE_CHECKING:
    from .posterior import Posterior

Key = TypeVar("Key")

# Elements of the largest tensor in flight, draws x data x widest layer: 32 MB in float32.
BLOCK_ELEMENTS = 2**23
DRAW_BYTES = 32  # of one draw of one data point: log p(x|z), log p(z), log q(z|x) and their sum


def scored_blocks(
    posterior: Posterior, draws: int, analytic: bool, progress: Progress
) -> Iterator[tuple[int, Terms]]:
    """All draws of some data points at a time, with the index of the first.

    Arguments:
        posterior: What is drawn from, in its evaluation mode.
        draws: Number of draws S for each data point.
        analytic: Whether the KL of each latent site is computed in closed form too.
        progress: Told of each draw of each data point.
    """
    draws, size = check_int("draws", draws), len(posterior)
    refuse_beyond_memory(draws * DRAW_BYTES, f"draws={draws} for each data point", "take fewer")
    x = posterior.batch.x
    rows = rows_at_once(posterior.program, x)
    step = max(1, rows // draws)
    at_once = min(rows, draws * step)
    scored = _scoring(posterior.program, size * draws // at_once, at_once * x[0].numel(), analytic)
    for start in range(0, size, step):
        part = posterior[start : start + step]
        batch = part.placed
        if part.program is not posterior.program:  # a guide of these data points alone
            scored = _scoring(part.program, 0, 1, analytic)
        parts = []
        for first in range(0, draws, rows):
            count = min(rows, draws - first)
            parts.append(Terms(*scored(batch.x, batch.covariates, count)).cpu())
            progress.advance(count * batch.size)
        yield start, concatenate(parts, dim=0)


def reduce_blocks(
    function: Callable[[Terms], dict[Key, Tensor]],
    blocks: Iterator[tuple[int, Terms]],
    rows: Tensor,
) -> dict[Key, Tensor]:
    """Reduce the terms of each block, and put the results together; see ``Posterior.reduce``.

    Raises:
        InputError: If a log density is not finite, or there is no memory for the results.
    """
    found: dict[Key, Tensor] = {}
    size = len(rows)
    for first, terms in blocks:
        refuse_infinite(terms, rows[first:])
        for name, values in function(terms).items():
            # Into one tensor: thousands of small ones that stay would lie between the large ones
            # that come and go, and the heap would grow with the data.
            if name not in found:
                taken = size * values[0].numel() * values.itemsize
                refuse_beyond_memory(taken, f"the draws for {size} data points", "take fewer")
                found[name] = values.new_empty(size, *values.shape[1:])
            found[name][first : first + len(values)] = values
    return found


def _scoring(program: Program, blocks: int, numbers: int, analytic: bool) -> Compiled:
    """What scores a block of some size, compiled if there are many of them."""

    def scored(x: Tensor, covariates: dict[str, Tensor], count: int) -> Any:
        batch = Batch(x=x, **covariates)
        return score_traces(*trace_draws(program, batch, count), batch, count, analytic).tables()

    engine: Engine = "compiled" if worth_compiling(blocks, numbers, DENSITY) else "eager"
    return Compiled(scored, engine, [program], type(program).__name__)


def rows_at_once(program: Program, x: Tensor) -> int:
    """How many draws x data may be in flight, by the width of the widest layer."""
    layers = [parameter.shape[0] for parameter in program.parameters() if parameter.dim()]
    return max(1, BLOCK_ELEMENTS // max([1, x[0].numel(), *layers]))


def log_mean(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the mean weight of each data point, and its standard error.

    Arguments:
        log_weight: Of shape (S, N).

    Returns:
        Two tensors of shape (N,), in double precision. The error is the delta method's, the
        spread of the weights relative to their mean; NaN for a single draw.
    """
    log_weight = log_weight.double()
    count = len(log_weight)
    mean = log_weight.logsumexp(0) - math.log(count)
    if count == 1:
        return mean, torch.full_like(mean, math.nan)
    return mean, ((log_weight - mean).exp().var(0) / count).sqrt()
