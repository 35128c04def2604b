"""Exact draws of binary data from grey values."""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**20  # values at once: a whole number of 64-bit words, so that the draws are those of all


def draw_binary(
    stored: Tensor, levels: int | None, generator: torch.Generator, in_place: bool = False
) -> Tensor:
    """Draw each value from Bernoulli(stored / levels), or Bernoulli(stored) without levels.

    With levels the draw is exact, and on a processor takes a byte at random for nearly all of
    them. Of 256 v = t L + r, a uniform byte is below t with probability t / 256; where it is t,
    another draw of probability r / L decides, which makes v / L.

    Arguments:
        stored: Values of any shape: bytes, if there are levels.
        levels: The highest value L.
        generator: Where draws come from, on the device of the values.
        in_place: Whether bytes may be replaced by what is drawn.

    Example:
        >>> draw_binary(torch.tensor([0.0, 1.0]), None, torch.Generator().manual_seed(0))
        tensor([False,  True])
    """
    if stored.device.type != "cpu":  # where to count the ties is to wait for them
        kept: Any = {"generator": generator, "dtype": stored.dtype, "device": stored.device}
        if levels is None:
            return torch.rand(stored.shape, **kept) < stored
        return torch.randint(levels, stored.shape, **kept) < stored
    drawn = torch.empty(stored.shape, dtype=torch.bool)
    if in_place and levels is not None:
        drawn = stored.view(torch.bool)
    parts = zip(drawn.view(-1).split(BLOCK), stored.reshape(-1).split(BLOCK), strict=True)
    if levels is None:
        for into, part in parts:
            noise = torch.rand(part.shape, generator=generator, dtype=part.dtype)
            torch.lt(noise, part, out=into)
        return drawn
    threshold, remainder = _thresholds(levels)
    places, left = [], []
    for number, (into, part) in enumerate(parts):
        # With 255 levels t is v, but for the highest, where it is 255 too.
        limit = part if levels == 255 else threshold[part.long()]
        noise = _random_bytes(len(part), generator)
        ties = torch.from_numpy(np.flatnonzero((noise == limit).numpy()))
        places.append(ties + number * BLOCK)
        left.append(remainder[part[ties].long()])
        torch.lt(noise, limit, out=into)
    tied = torch.cat(places)
    drawn.view(-1)[tied] = torch.randint(levels, tied.shape, generator=generator) < torch.cat(left)
    return drawn


@cache
def _thresholds(levels: int) -> tuple[Tensor, Tensor]:
    """t and r of each value 0 ... L, in bytes and in whole numbers."""
    scaled = 256 * torch.arange(levels + 1)
    # At v = L, t is 256, which is no byte: 255 and a remainder of L come to the same.
    threshold = (scaled // levels).clamp(max=255)
    return threshold.byte(), scaled - threshold * levels


def _random_bytes(count: int, generator: torch.Generator) -> Tensor:
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)  # all of 64 bits
    return words.view(torch.uint8)[:count]
