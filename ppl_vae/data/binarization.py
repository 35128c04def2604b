"""Exact draws of binary data from grey values."""

from functools import cache

import numpy as np
import torch
from torch import Tensor


def draw_binary(stored: Tensor, levels: int | None, generator: torch.Generator) -> Tensor:
    """Draw each value from Bernoulli(stored / levels), or Bernoulli(stored) without levels.

    With levels the draw is exact, and on a processor takes a byte at random for nearly all of
    them. Of 256 v = t L + r, a uniform byte is below t with probability t / 256; where it is t,
    another draw of probability r / L decides, which makes v / L.

    Arguments:
        stored: Values of any shape: bytes, if there are levels.
        levels: The highest value L.
        generator: Where draws come from, on the device of the values.

    Example:
        >>> draw_binary(torch.tensor([0.0, 1.0]), None, torch.Generator().manual_seed(0))
        tensor([False,  True])
    """
    if levels is None:
        noise = torch.rand(
            stored.shape, generator=generator, dtype=stored.dtype, device=stored.device
        )
        return noise < stored
    if stored.device.type != "cpu":  # where to count the ties is to wait for them
        drawn = torch.randint(
            levels, stored.shape, generator=generator, dtype=torch.uint8, device=stored.device
        )
        return drawn < stored
    threshold, remainder = _thresholds(levels)
    # With 255 levels t is v, but for the highest, where it is 255 too.
    limit = stored if levels == 255 else threshold[stored.long()]
    noise = _random_bytes(stored.shape, generator)
    drawn = noise < limit
    ties = torch.from_numpy(np.flatnonzero((noise == limit).numpy()))
    again = torch.randint(levels, ties.shape, generator=generator)
    drawn.view(-1)[ties] = again < remainder[stored.flatten()[ties].long()]
    return drawn


@cache
def _thresholds(levels: int) -> tuple[Tensor, Tensor]:
    """t and r of each value 0 ... L, in bytes and in whole numbers."""
    scaled = 256 * torch.arange(levels + 1)
    # At v = L, t is 256, which is no byte: 255 and a remainder of L come to the same.
    threshold = (scaled // levels).clamp(max=255)
    return threshold.byte(), scaled - threshold * levels


def _random_bytes(shape: torch.Size, generator: torch.Generator) -> Tensor:
    count = shape.numel()
    words = torch.empty(-(-count // 8), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)  # all of 64 bits
    return words.view(torch.uint8)[:count].view(shape)
