"""How far are two samples apart? Distances with an error and a p-value, as findings.

A finding is an alarm if it is significant, which guards exact models, and material, which spares
models whose faults are too small to matter (:mod:`.materiality`).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import hypergeom

from .materiality import divergence, total_variation
from .verdicts import Grade, grade, share

LEVEL = 0.01  # of a false alarm by any of the findings, of a model that is exact


@dataclass(frozen=True)
class Finding:
    """One comparison.

    Attributes:
        name: What was compared.
        words: What was found, as part of a sentence.
        statistic: What was measured.
        value: Its value: an estimate that no choice of the worst case has biased.
        error: Its standard error.
        p_value: Of the comparison, where data and draws have the same law.
        caution, fail: Where caution and failure begin.
    """

    name: str
    words: str
    statistic: str
    value: float
    error: float
    p_value: float
    caution: float
    fail: float

    def grade(self, findings: int) -> Grade:
        """The grade, as one of so many findings.

        ``"caution"`` if it is significant at the level 0.01 after Bonferroni and its value above
        the first threshold, ``"fail"`` if also above the second by three standard errors;
        ``"pass"`` if it is below the first by three standard errors.
        """
        given = grade(self.value, self.error, self.caution, self.fail)
        if given == "pass":
            return given
        if self.p_value * findings < LEVEL and self.value > self.caution:
            return "fail" if given == "fail" else "caution"
        return "cannot say"


def kuiper_p_value(distance: np.ndarray, size: float) -> np.ndarray:
    r"""The p-value of Kuiper's distance between an ECDF and its law.

    .. math:: p = 2 \sum_j (4 j^2 \lambda^2 - 1) e^{-2 j^2 \lambda^2}, \quad
        \lambda = (\sqrt{n} + 0.155 + 0.24 / \sqrt{n}) V

    (Kuiper 1960; Stephens 1970).

    Arguments:
        distance: V, of any shape.
        size: The sample's size n; of two samples N M / (N + M).

    Example:
        >>> kuiper_p_value(np.array([0.05, 0.1716, 0.5]), 100).round(2)
        array([1.  , 0.05, 0.  ])
    """
    scaled = (size**0.5 + 0.155 + 0.24 / size**0.5) * np.asarray(distance, dtype=float)
    j = np.arange(1, 101)
    squares = np.square(np.multiply.outer(np.maximum(scaled, 0.3), j))
    p = 2 * ((4 * squares - 1) * np.exp(-2 * squares)).sum(-1)
    return np.where(scaled < 0.4, 1.0, p.clip(0, 1))


def _arcs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kuiper's distance of each column, and between which points it is reached."""
    steps = np.arange(1, len(ordered) + 1)[:, None] / len(ordered)
    above, below = steps - ordered, steps - 1 / len(ordered) - ordered
    first, last = above.argmax(0), below.argmin(0)
    columns = np.arange(ordered.shape[1])
    distance = above[first, columns] - below[last, columns]
    return distance, ordered[first, columns], ordered[last, columns]


def kuiper(places: np.ndarray) -> np.ndarray:
    """Kuiper's distance of each column from uniform on (0, 1).

    It is the largest difference of probability over all intervals and their complements, and so
    the total variation, or less.

    Arguments:
        places: Of shape (N, columns).

    Example:
        >>> kuiper(np.array([[0.25], [0.5], [0.75]])).round(2)
        array([0.5])
    """
    return _arcs(np.sort(places, axis=0))[0]


def unlike_uniform(
    places: np.ndarray, generator: np.random.Generator
) -> tuple[float, float, np.ndarray]:
    """How far the worst column is from uniform, without the bias of looking for the worst.

    One half of the data chooses the column and the interval of Kuiper's distance, the other half
    measures it there, and the other way round.

    Arguments:
        places: PIT values, each among draws of its own, of shape (N, columns).
        generator: Splits the data.

    Returns:
        The difference of probability, its standard error, and the p-value of each column.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> places = rng.random((1000, 3))
        >>> places[:, 1] **= 2
        >>> value, error, p = unlike_uniform(places, rng)
        >>> abs(value - 0.25) < 3 * error, bool(p[1] < 1e-6)
        (True, True)
    """
    order = generator.permutation(len(places))
    found = _cross_fitted(places[order[::2]], places[order[1::2]], len(places))
    return *found, kuiper_p_value(kuiper(places), len(places))


def _cross_fitted(one: np.ndarray, other: np.ndarray, effective: float) -> tuple[float, float]:
    """The mean of what each half measures where the other chose, and its standard error.

    The error is that of the intervals chosen. That each half chooses for the other correlates what
    they measure: over all choices the error is up to a fifth larger, of a thousand data and more.
    """
    halves = np.sort(one, axis=0), np.sort(other, axis=0)
    values, variances = [], []
    for chosen, measured in (halves, halves[::-1]):
        distance, high, low = _arcs(chosen)
        at = int(distance.argmax())
        column = measured[:, at]
        width = high[at] - low[at]
        found = np.mean(column <= high[at]) - np.mean(column < low[at]) - width
        values.append(found)
        mass = np.array([abs(width), np.clip(abs(width + found), 0, 1)])
        variances.append((mass * (1 - mass)).max())
    variance = (np.mean(variances) + 1 / (len(one) + len(other) + 2)) / effective
    return float(np.mean(values)), float(variance**0.5)


def placed(held_out: np.ndarray, drawn: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Where each held-out value lies among the draws, in (0, 1), ties broken at random.

    Example:
        >>> placed(np.array([1.5, 9.0]), np.arange(4.0), np.random.default_rng(0)).round(1)
        array([0.5, 0.9])
    """
    ordered = np.sort(drawn)
    low = np.searchsorted(ordered, held_out, side="left")
    high = np.searchsorted(ordered, held_out, side="right")
    rank = generator.integers(low, high + 1)
    return (rank + generator.random(len(held_out))) / (len(drawn) + 1)


@lru_cache(maxsize=64)
def share_at(nats: float, chance: float) -> float:
    r"""The share p of an event of probability q at which KL(p || q) is so many nats.

    No test of samples sees more of their divergence than its events do, so that KL(p || q), of an
    event and its complement, is a lower bound on it.

    Arguments:
        nats: The divergence.
        chance: The probability q.

    Example:
        >>> round(share_at(1 / 32, 1 / 1000), 4)
        0.0166
    """

    def excess(p: float) -> float:
        rest = (1 - p) * np.log((1 - p) / (1 - chance)) if p < 1 else 0.0
        return float(p * np.log(p / chance) + rest - nats)

    return float(brentq(excess, chance, 1.0)) if excess(1.0) > 0 else 1.0


def beyond(values: np.ndarray, others: np.ndarray) -> tuple[float, float, float, float, float]:
    """How many values are larger than all others.

    One value in M + 1 is, on average, if both have the same law; and the k largest of all are
    values with a probability that counting gives exactly. Caution and failure begin at the shares
    where the divergence of this event is what materiality says.

    Arguments:
        values: Of shape (N,).
        others: Of shape (M,).

    Returns:
        The share, its standard error, the p-value, and the shares of caution and failure.

    Example:
        >>> found = beyond(np.array([1.0, 9.0, 9.0, 0.0]), np.arange(5.0))
        >>> [round(number, 2) for number in found]
        [0.5, 0.26, 0.17, 0.27, 0.38]
    """
    larger = values > others.max()
    count, size = int(larger.sum()), len(values)
    p = float(hypergeom.sf(count - 1, size + len(others), size, count)) if count else 1.0
    chance = 1 / (len(others) + 1)
    value, error = share(larger)
    caution, fail = (share_at(nats, chance) for nats in divergence())
    return value, float(np.hypot(error, chance)), p, caution, fail


def outliers(name: str, words: str, held_out: np.ndarray, drawn: np.ndarray) -> Finding:
    """The share of held-out data beyond all draws, or of draws beyond all held-out data."""
    sides = []
    for sign, side in ((1, "larger"), (-1, "smaller")):
        sides.append((f"held-out data have a {side} {words} than any draw", sign, False))
        sides.append((f"draws have a {side} {words} than any held-out data point", sign, True))
    found = [
        (
            beyond(sign * drawn, sign * held_out)
            if swapped
            else beyond(sign * held_out, sign * drawn)
        )
        for _, sign, swapped in sides
    ]
    at = max(range(len(found)), key=lambda i: found[i][0] / found[i][3])
    value, error, p, caution, fail = found[at]
    text = f"{value:.1%} of {sides[at][0]}"
    p = min(1.0, len(found) * p)
    return Finding(
        f"outliers: {name}", text, f"share of {sides[at][0]}", value, error, p, caution, fail
    )


def unlike(
    name: str,
    words: str,
    held_out: np.ndarray,
    drawn: np.ndarray,
    generator: np.random.Generator,
) -> Finding:
    """The distance between the laws of held-out data and of draws, of one quantity."""
    effective = 1 / (1 / len(held_out) + 1 / len(drawn))
    data, draws = generator.permutation(held_out), generator.permutation(drawn)
    # Halves of the draws too: what they share would be chosen and measured.
    one, other = (placed(data[i::2], draws[i::2], generator)[:, None] for i in range(2))
    value, error = _cross_fitted(one, other, effective)
    p = kuiper_p_value(kuiper(placed(data, draws, generator)[:, None]), effective)
    return Finding(
        name,
        words,
        f"total variation, at least, of held-out data and draws: {name}",
        value,
        error,
        float(p[0]),
        *total_variation(),
    )
