"""Ranks and their bands: exact probabilities against enumeration and simulation."""

import itertools

import numpy as np
import pytest
from scipy.stats import binom

from ppl_vae.diagnostics.uniformity import _leaves_band, band, ecdf, p_value


def pointwise_tail(ranks, highest):
    """The smallest tail probability of the counts, one by one: the statistic, written anew."""
    size = len(ranks)
    tails = []
    for i in range(highest):
        count, share = sum(rank <= i for rank in ranks), (i + 1) / (highest + 1)
        tails += [binom.cdf(count, size, share), 1 - binom.cdf(count - 1, size, share)]
    return min(tails)


@pytest.mark.parametrize(("size", "highest"), [(5, 2), (4, 3), (6, 1)])
def test_p_values_are_those_of_enumeration(size, highest):
    outcomes = list(itertools.product(range(highest + 1), repeat=size))
    tails = np.array([pointwise_tail(ranks, highest) for ranks in outcomes])
    for ranks, tail in zip(outcomes[::7], tails[::7], strict=True):
        exact = np.mean(tails <= tail * (1 + 1e-9))
        assert p_value(np.array(ranks), highest) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize(("size", "highest"), [(200, 20), (1000, 100)])
def test_false_alarms_are_as_rare_as_stated(size, highest):
    rng, runs = np.random.default_rng(0), 400
    p = np.array([p_value(rng.integers(0, highest + 1, size), highest) for _ in range(runs)])
    for level in (0.01, 0.05, 0.2):
        alarms = int((p <= level).sum())
        assert alarms <= binom.ppf(0.9999, runs, level)  # conservative, for counts are discrete
        assert alarms >= binom.ppf(0.0001, runs, 0.7 * level)


def test_the_band_is_what_p_values_say():
    rng, size, highest, level = np.random.default_rng(1), 300, 30, 0.1
    low, high = band(size, highest, level)
    for spread in (1.0, 1.0, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0):
        ranks = np.clip(rng.normal(0.5, 0.29 / spread, size) * highest, 0, highest).astype(int)
        found = ecdf(ranks, highest)
        inside = bool(((found > low - 1e-9) & (found < high + 1e-9)).all())
        assert inside == (p_value(ranks, highest) > level)


def test_probabilities_go_on_where_bands_are_too_wide_to_compute():
    exact, bounded = (_leaves_band(100, 10, tail) for tail in (1.01e-9, 0.99e-9))
    assert 0 < exact <= 20 * 1.01e-9  # the union bound
    assert bounded == pytest.approx(20 * 0.99e-9)
    assert p_value(np.zeros(500, dtype=int), 50) < 1e-100


@pytest.mark.parametrize("shape", ["narrow", "wide", "shifted"])
def test_ranks_that_are_not_uniform_are_found(shape):
    rng = np.random.default_rng(2)
    u = {
        "narrow": rng.beta(2, 2, 500),
        "wide": rng.beta(0.5, 0.5, 500),
        "shifted": rng.beta(1.5, 1, 500),
    }[shape]
    assert p_value((u * 101).astype(int), 100) < 1e-6
