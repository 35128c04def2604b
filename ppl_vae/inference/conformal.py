"""Intervals of missing cells, widened until they hold as many known ones as they say."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.missing import MASK
from ..errors import InputError
from ..progress import Progress
from ..runtime import derived_seed

OWN = 100  # hidden cells of a column, from which on it has a correction of its own
LEAST_HIDDEN = 0.05  # of the cells of a column that has none missing
CELLS, ROUNDS = 2000, 20  # hidden cells to ask for, in at most so many rounds

Interval = Callable[[Batch, int, Progress], tuple[Tensor, Tensor]]
"""From data, a seed and progress to the ends of the intervals of their missing cells."""


def corrections(
    interval: Interval,
    held_out: Batch,
    share: Tensor,
    coverage: float,
    seed: int,
    progress: Progress,
) -> Tensor:
    """How much wider intervals must be on either side; negative where they are too wide.

    Some observed cells of held-out data are hidden, and what is told of them is compared with what
    they are (conformalized quantile regression; Romano, Patterson & Candès 2019). How far a value
    lies beyond its interval is measured in standard deviations of its column; a column with fewer
    than 100 hidden cells takes the correction of all of them together.

    Arguments:
        interval: What is to be corrected.
        held_out: Data with a ``mask``.
        share: How many of the observed cells to hide, of shape ``data_shape``.
        coverage: How many of the hidden values intervals are to hold.
        seed: Seed of everything random.
        progress: Told of the share of the work that has been done.

    Returns:
        In the units of the data, of shape ``data_shape``.

    Raises:
        InputError: If too few cells can be hidden.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "hidden cells"))
    observed, x = held_out[MASK], held_out.x
    chance = share * observed
    rounds = min(ROUNDS, max(1, math.ceil(CELLS / max(1.0, float(chance.sum())))))
    progress, scale = progress.part(1.0, total=rounds), _column_scales(held_out)
    scores, hidden = [], []
    for index in range(rounds):
        chosen = torch.rand(chance.shape, generator=generator) < chance
        rows, part = chosen.flatten(1).any(1).nonzero()[:, 0], progress.part(1)
        if not len(rows):
            continue
        batch = Batch(held_out | {"x": x.masked_fill(chosen, 0), MASK: observed & ~chosen})
        lower, upper = interval(batch.rows(rows), derived_seed(seed, f"hidden {index}"), part)
        beyond = torch.maximum(lower - x[rows].double(), x[rows].double() - upper)
        scores.append((beyond / scale).flatten(1))
        hidden.append(chosen[rows].flatten(1))
    if not scores:
        scores, hidden = [torch.zeros(1, scale.numel())], [torch.zeros(1, scale.numel()).bool()]
    found = _quantiles(torch.cat(scores), torch.cat(hidden), coverage)
    return scale * found.reshape(scale.shape)


def _column_scales(batch: Batch) -> Tensor:
    """The standard deviation of what is observed of each cell of a data point; 1 where it is 0."""
    observed, x = batch[MASK].double(), batch.x.double()
    count = observed.sum(0).clamp(min=1)
    mean = (observed * x).sum(0) / count
    scale = ((observed * (x - mean).square()).sum(0) / count).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def _quantiles(scores: Tensor, hidden: Tensor, coverage: float) -> Tensor:
    """By how many scales intervals must grow, of shape (D,).

    Arguments:
        scores: How far each value lies beyond its interval, less than 0 inside, of shape (n, D).
        hidden: Which of them count, of shape (n, D).
        coverage: How many of them intervals are to hold.
    """
    pooled, least = scores[hidden], math.ceil(coverage / (1 - coverage))
    if len(pooled) < least:
        problem = f"have {len(pooled)} cells to hide, too few to calibrate intervals on"
        raise InputError("the held-out data", problem, f"give {least}, or leave them out")
    found = torch.full((scores.shape[1],), _quantile(pooled, coverage)).double()
    for column in (hidden.sum(0) >= max(OWN, least)).nonzero()[:, 0]:
        found[column] = _quantile(scores[hidden[:, column], column], coverage)
    return found


def _quantile(scores: Tensor, coverage: float) -> float:
    """The score of rank (n + 1) * coverage, rounded up (Romano et al. 2019, eq. 8)."""
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores.kthvalue(min(rank, len(scores))).values)
