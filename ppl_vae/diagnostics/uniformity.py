"""Are ranks uniform? Simultaneous bands for their ECDF, exact (Säilynoja et al. 2022)."""

from functools import lru_cache

import numpy as np
from scipy.special import gammaln
from scipy.stats import binom

BISECTIONS = 60
NEGLIGIBLE = 1e-9  # a pointwise probability
ROUNDING = 1e-9  # between equal probabilities of the two tails


def ecdf(ranks: np.ndarray, highest: int) -> np.ndarray:
    """The ECDF of ranks at 0, 1, ..., highest - 1; under uniformity i is reached by a share of
    (i + 1) / (highest + 1).

    Arguments:
        ranks: Whole numbers in 0 ... highest, of shape (M,).
        highest: The highest rank there can be, the number of draws that were ranked against.

    Example:
        >>> ecdf(np.array([0, 1, 2, 3]), 3)
        array([0.25, 0.5 , 0.75])
    """
    counts = np.bincount(ranks, minlength=highest + 1)
    return counts.cumsum()[:-1] / len(ranks)


def uniform(highest: int) -> np.ndarray:
    """What :func:`ecdf` is on average, of uniform ranks."""
    return np.arange(1, highest + 1) / (highest + 1)


def deviation(ranks: np.ndarray, highest: int) -> float:
    """The largest distance between the ECDF of ranks and that of uniform ones.

    Example:
        >>> round(deviation(np.array([0, 0, 0, 0]), 3), 2)
        0.75
    """
    return float(np.abs(ecdf(ranks, highest) - uniform(highest)).max())


def p_value(ranks: np.ndarray, highest: int) -> float:
    r"""How probable it is that uniform ranks leave the narrowest band that holds the ECDF of these.

    Bands have the same pointwise coverage at every rank; their simultaneous coverage is that of a
    Markov chain, the counts of a multinomial as they add up, and computed exactly (Säilynoja et al.
    2022, section 2.2).

    Arguments:
        ranks: Whole numbers in 0 ... highest, of shape (M,).
        highest: The highest rank there can be.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> p_value(rng.integers(0, 51, 500), 50) > 0.01
        True
        >>> p_value(rng.integers(5, 51, 500), 50) < 1e-9
        True
    """
    size = len(ranks)
    expected = uniform(highest)
    counts = np.rint(ecdf(ranks, highest) * size)
    tail = np.minimum(binom.cdf(counts, size, expected), binom.sf(counts - 1, size, expected)).min()
    return _leaves_band(size, highest, float(tail) * (1 + ROUNDING))


@lru_cache(maxsize=64)
def band(size: int, highest: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The band that the ECDF of uniform ranks leaves with a probability of at most ``level``.

    Arguments:
        size: The number of ranks, M.
        highest: The highest rank there can be.
        level: The probability.

    Returns:
        The lowest and the highest ECDF inside, at ranks 0 ... highest - 1.

    Example:
        >>> low, high = band(500, 20, 0.05)
        >>> bool((low < uniform(20)).all() and (high > uniform(20)).all())
        True
    """
    narrow, wide = np.log(0.5), np.log(level) - np.log(2.0 * highest)  # of the pointwise tails
    for _ in range(BISECTIONS):
        middle = (narrow + wide) / 2
        if _leaves_band(size, highest, float(np.exp(middle))) > level:
            narrow = middle
        else:
            wide = middle
        if narrow - wide < 1e-3:
            break
    low, high = _edges(size, highest, float(np.exp(wide)))
    return low / size, high / size


def _edges(size: int, highest: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest counts whose tail probabilities, pointwise, are above ``tail``."""
    expected = uniform(highest)
    low = binom.ppf(tail, size, expected)
    low += binom.cdf(low, size, expected) <= tail
    high = binom.isf(tail, size, expected)
    high -= binom.sf(high - 1, size, expected) <= tail
    return low, high


@lru_cache(maxsize=4096)
def _leaves_band(size: int, highest: int, tail: float) -> float:
    """The probability that some count has a pointwise tail probability of at most ``tail``."""
    if tail < NEGLIGIBLE:
        return 2.0 * highest * tail  # by the union bound, and there the bands would be wide
    low, high = (edge.astype(int) for edge in _edges(size, highest, tail))
    if (low > high).any():
        return 1.0
    log_factorial = gammaln(np.arange(size + 1) + 1.0)
    inside, before = np.ones(1), np.zeros(1, dtype=int)
    for step in range(highest):
        chance = 1 / (highest + 1 - step)  # that one of those left falls on this rank
        now = np.arange(low[step], high[step] + 1)
        more, left = now[None] - before[:, None], size - before[:, None]
        possible = (more >= 0) & (more <= left)
        added = np.where(possible, more, 0)
        log_chance = (
            log_factorial[left]
            - log_factorial[added]
            - log_factorial[left - added]
            + added * np.log(chance)
            + (left - added) * np.log1p(-chance)
        )
        inside = inside @ np.where(possible, np.exp(log_chance), 0.0)
        before = now
    return float(np.clip(1 - inside.sum(), 0.0, 1.0))
