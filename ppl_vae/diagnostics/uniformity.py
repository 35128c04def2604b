"""Are ranks uniform? Exact simultaneous bands for their ECDF, and how far from uniform they are."""

import math
from functools import lru_cache

import numpy as np
from scipy.stats import binom, poisson

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


def distance(ranks: np.ndarray, highest: int) -> float:
    r"""How far ranks are from uniform: the largest difference between the share of ranks in an
    interval and the interval's length, less what chance adds.

    This is Kuiper's :math:`V = D^+ + D^-` (Kuiper 1960). Where the density of ranks crosses 1 once,
    as for a shifted mean, or twice, as for a wrong scale, it is the total variation between ranks
    and the uniform; otherwise it is less. (Kolmogorov's D is half of it for a wrong scale.)
    Uniform ranks have V > 0 too: what is returned is the root of
    :math:`V^2 - E_{\text{uniform}}[V^2]`, or 0 if that is negative. Its standard error is that of
    a share, at most :math:`1 / (2 \sqrt M)` (:func:`share_error`); its bias is less than half of
    that.

    Arguments:
        ranks: Whole numbers in 0 ... highest, of shape (M,).
        highest: The highest rank there can be.

    Example:
        >>> half = np.arange(4000) % 51  # uniform in the lower half of 0 ... 101
        >>> round(distance(half, 101), 2), distance(np.arange(4000) % 102, 101)
        (0.5, 0.0)
    """
    apart = np.append(ecdf(ranks, highest) - uniform(highest), 0.0)
    return math.sqrt(max(0.0, float(np.ptp(apart)) ** 2 - _by_chance(len(ranks), highest + 1)))


def squared_distance(
    first: np.ndarray, second: np.ndarray, sizes: tuple[float, float] | None = None
) -> float:
    """The squared distance between the laws of two samples: :func:`distance`, of their ECDFs.

    What chance adds is subtracted, and the rest can be negative, so that an average over many
    pairs of samples of the same law is 0.

    Arguments:
        first: A sample, of shape (M,).
        second: Another one, of shape (N,).
        sizes: How many independent values each is worth; by default, as many as it has.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.normal(size=4000), rng.normal(0.5, size=4000)
        >>> round(squared_distance(a, b) ** 0.5, 1)  # 2 Phi(1/4) - 1 = 0.197
        0.2
    """
    values = np.unique(np.concatenate([first, second]))
    share, other = (
        np.searchsorted(np.sort(sample), values, side="right") / len(sample)
        for sample in (first, second)
    )
    m, n = sizes or (len(first), len(second))
    return float(np.ptp(np.append(share - other, 0.0))) ** 2 - _by_chance(
        1 / (1 / m + 1 / n), len(values)
    )


def share_error(size: float) -> float:
    """The largest standard error that a share of so many values can have.

    Example:
        >>> share_error(2500)
        0.01
    """
    return 0.5 / math.sqrt(size)


def _by_chance(size: float, cells: int) -> float:
    r"""E[V^2] of Kuiper's V, for ``size`` uniform values that fall into so many equal cells.

    The mean is that of the range of a random walk with exchangeable steps,
    :math:`\sum_k E|S_k| / k` (Spitzer 1956, eq. 1.2, for maximum and minimum), at the normal
    limit :math:`E|S_k| = \sqrt{2 k (n - k) / (\pi M)} / n` of its n cells. The variance is that of
    the range of a Brownian bridge, :math:`\pi^2 / 6 - \pi / 2`, over M.
    """
    k = np.arange(1, cells)
    mean_squared = 2 / math.pi * float((np.sqrt((cells - k) / k) / cells).sum()) ** 2
    return (mean_squared + (math.pi**2 / 6 - math.pi / 2 if cells > 1 else 0.0)) / size


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
    # Counts of a multinomial are those of independent Poissons, given their sum: so that one step
    # adds a Poisson, and the band cuts off what leaves it.
    more = poisson.pmf(np.arange(size + 1), size / (highest + 1))
    inside, first = np.ones(1), 0
    for lowest, most in zip(low, high, strict=True):
        inside = np.convolve(inside, more[: most - first + 1])[lowest - first : most - first + 1]
        first = lowest
    last = size - np.arange(low[-1], high[-1] + 1)
    within = float(inside @ more[last]) / poisson.pmf(size, size)
    return float(np.clip(1 - within, 0.0, 1.0))
