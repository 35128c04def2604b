"""Ranks and their bands: exact probabilities against enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from ppl_vae.diagnostics.uniformity import (
    _by_chance,
    _leaves_band,
    band,
    distance,
    ecdf,
    p_value,
    share_error,
    squared_distance,
)


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


def total_variation(shift, scale):
    """Of N(shift, scale²) and N(0, 1), by quadrature."""
    z = np.linspace(-12, 12, 200_001)
    return np.abs(norm.pdf(z) - norm.pdf(z, shift, scale)).sum() * (z[1] - z[0]) / 2


@pytest.mark.parametrize("size", [300, 2000])
@pytest.mark.parametrize(
    ("shift", "scale"), [(0.25, 1), (0.5, 1), (0, 0.5), (0, 0.7), (0, 1.5), (0.3, 1.3)]
)
def test_the_distance_of_ranks_is_the_total_variation_of_guide_and_posterior(size, shift, scale):
    # Kolmogorov's would be half of it for a wrong scale.
    rng, runs, highest = np.random.default_rng(0), 100, 100
    truth = rng.normal(size=(runs, size))
    ranks = rng.binomial(highest, norm.cdf((truth - shift) / scale))
    found = np.array([distance(r, highest) for r in ranks])
    exact = total_variation(shift, scale)
    # The bias and the standard error that it states, the latter within the error of a deviation.
    error = found.std() / runs**0.5
    assert abs(found.mean() - exact) < 0.5 * share_error(size) + 4 * error
    assert found.std() < share_error(size) * (1 + 4 * (0.5 / runs) ** 0.5)


@pytest.mark.parametrize(("size", "cells"), [(100, 101), (1000, 101), (1000, 10), (2000, 1500)])
def test_what_chance_adds_to_a_squared_distance_is_known(size, cells):
    rng, runs = np.random.default_rng(1), 4000
    shares = rng.multinomial(size, np.full(cells, 1 / cells), runs).cumsum(1) / size
    apart = shares - np.arange(1, cells + 1) / cells
    squared = np.ptp(np.append(apart, np.zeros((runs, 1)), axis=1), axis=1) ** 2
    # The normal limit of a cell's count is off by 2 % with one value a cell.
    error = 4 * squared.std() / runs**0.5 + 0.02 * squared.mean()
    assert _by_chance(size, cells) == pytest.approx(squared.mean(), abs=error)


def test_samples_of_one_law_are_at_no_distance_and_others_at_their_total_variation():
    rng, runs = np.random.default_rng(2), 300
    for shift, scale in ((0.0, 1.0), (0.4, 1.0), (0.0, 0.6)):
        found = np.array(
            [
                squared_distance(rng.normal(size=800), rng.normal(shift, scale, size=1200))
                for _ in range(runs)
            ]
        )
        exact, noise = total_variation(shift, scale), 4 * found.std() / runs**0.5
        bias = 0.5 * share_error(480)  # 1 / (1 / 800 + 1 / 1200); none where there is no distance
        assert exact**2 - noise < found.mean() < ((exact + bias) if exact else 0) ** 2 + noise


def test_a_sample_counts_for_what_it_is_worth():
    rng, runs, copies = np.random.default_rng(3), 300, 4
    found = []
    for _ in range(runs):
        first, second = np.repeat(rng.normal(size=300), copies), rng.normal(size=1000)
        found.append(squared_distance(first, second, (300, 1000)))
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / runs**0.5)


def test_values_that_are_all_equal_are_at_no_distance():
    assert squared_distance(np.zeros(50), np.zeros(70)) == 0
    assert math.isclose(squared_distance(np.zeros(1000), np.ones(1000)), 1, abs_tol=0.01)
