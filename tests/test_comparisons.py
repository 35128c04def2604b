"""How far two samples are apart: against known laws, by independent computations."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ppl_vae.diagnostics.comparisons import (
    Finding,
    beyond,
    kuiper,
    kuiper_p_value,
    outliers,
    placed,
    share_at,
    unlike,
    unlike_uniform,
)
from ppl_vae.diagnostics.copies import nearness, two_nearest
from ppl_vae.diagnostics.correlations import correlations, fishers_z
from ppl_vae.diagnostics.materiality import total_variation


def test_kuipers_distance_is_the_largest_of_all_arcs():
    rng = np.random.default_rng(0)
    u = rng.random((30, 4))
    for column, found in zip(u.T, kuiper(u), strict=True):
        ends = np.concatenate([column, column - 1e-12, [0.0, 1.0]])
        off = np.array([(column <= end).mean() - end for end in ends])
        assert np.abs(off[:, None] - off[None]).max() == pytest.approx(found, abs=1e-9)


@pytest.mark.parametrize("size", [100, 1000])
def test_p_values_of_kuipers_distance_are_uniform(size):
    u = np.random.default_rng(size).random((size, 4000))
    p = kuiper_p_value(kuiper(u), size)
    for level in (0.5, 0.1, 0.01, 0.001):
        error = (level * (1 - level) / 4000) ** 0.5
        assert abs((p < level).mean() - level) < 4 * error


def test_two_samples_of_one_law_give_uniform_p_values_ties_or_none():
    rng = np.random.default_rng(0)
    for sample in (rng.normal, lambda size: rng.integers(0, 4, size).astype(float)):
        found = [unlike("", "", sample(size=150), sample(size=900), rng) for _ in range(1000)]
        p = np.array([f.p_value for f in found])
        assert (p < 0.05).mean() < 0.05 + 4 * (0.05 * 0.95 / 1000) ** 0.5
        value, error = (np.array([getattr(f, key) for f in found]) for key in ("value", "error"))
        # No bias of having looked for the largest; an error that leaves the choice out.
        assert abs(value.mean()) < 4 * value.std() / 1000**0.5
        assert value.std() < 1.4 * error.mean()


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_the_distance_of_two_normals_is_their_total_variation(shift):
    rng = np.random.default_rng(0)
    true = 2 * norm.cdf(shift / 2) - 1
    found = [
        unlike("", "", rng.normal(size=1000), rng.normal(shift, size=5000), rng) for _ in range(200)
    ]
    value, error = (np.array([getattr(f, key) for f in found]) for key in ("value", "error"))
    assert true - 0.02 < value.mean() < true + 4 * error.mean() / 200**0.5
    assert value.std() < 1.3 * error.mean()  # 1.2, and four errors of 200 values


def test_the_worst_of_many_columns_is_not_overstated():
    rng = np.random.default_rng(0)
    found = [unlike_uniform(rng.random((500, 50)), rng) for _ in range(300)]
    value = np.array([f[0] for f in found])
    assert abs(value.mean()) < 4 * value.std() / 300**0.5
    assert (np.array([f[2].min() * 50 for f in found]) < 0.01).mean() < 0.03


def test_places_among_draws():
    rng = np.random.default_rng(0)
    drawn = np.repeat([0.0, 1.0], 50)
    u = placed(np.repeat([0.0, 1.0], 500), drawn, rng)
    assert (u[:500] < 51 / 101).all()
    assert (u[500:] > 50 / 101).all()
    assert kuiper_p_value(kuiper(u[:, None]), 1000 * 100 / 1100)[0] > 0.01


def test_the_share_of_a_divergence_is_right():
    for chance in (1e-4, 1e-2, 0.3):
        p = share_at(1 / 32, chance)
        found = p * np.log(p / chance) + (1 - p) * np.log((1 - p) / (1 - chance))
        assert found == pytest.approx(1 / 32, abs=1e-9)
    assert share_at(1 / 32, 0.99) == 1.0


def test_the_p_value_of_values_beyond_others_is_exact():
    rng = np.random.default_rng(0)
    pooled = np.arange(12.0)
    counts = []
    for _ in range(20000):
        rng.shuffle(pooled)
        counts.append((pooled[:4] > pooled[4:].max()).sum())
    counts = np.array(counts)
    for k in (1, 2, 3):
        values = np.r_[np.arange(20.0, 20 + k), np.zeros(4 - k)]
        p = beyond(values, np.arange(8.0))[2]
        assert abs((counts >= k).mean() - p) < 4 * (p * (1 - p) / 20000) ** 0.5


def test_outliers_are_found_on_either_side_and_in_draws_too():
    rng = np.random.default_rng(0)
    data, drawn = rng.normal(size=1000), rng.normal(size=5000)
    assert outliers("q", "q", data, drawn).grade(20) == "pass"
    far = data.copy()
    far[:30] = -20.0
    found = outliers("q", "q", far, drawn)
    assert found.grade(20) in ("caution", "fail")
    assert found.value == pytest.approx(0.03, abs=0.005)  # some lie beyond by chance
    assert found.words.endswith("% of held-out data have a smaller q than any draw")
    wild = drawn.copy()
    wild[:150] = 20.0
    assert "of draws have a larger q" in outliers("q", "q", data, wild).words


def test_a_finding_is_an_alarm_if_it_is_significant_and_material():
    def graded(value, error, p):
        return Finding("", "", "", value, error, p, *total_variation()).grade(10)

    assert graded(0.15, 0.03, 1e-6) == "caution"
    assert graded(0.15, 0.03, 0.01) == "cannot say"
    assert graded(0.05, 0.03, 1e-6) == "cannot say"
    assert graded(0.02, 0.01, 1e-6) == "pass"
    assert graded(0.4, 0.03, 1e-6) == "fail"
    assert graded(float("nan"), 0.03, 1e-6) == "cannot say"


def test_distances_are_those_of_all_pairs_and_of_copies_zero():
    torch.manual_seed(0)
    x, others = torch.randn(300, 2, 3), torch.randn(70, 2, 3)
    x[:5], others[10:12] = others[:5], others[20]
    apart = (x.flatten(1)[:, None] - others.flatten(1).unique(dim=0)[None]).double()
    slow = apart.square().sum(-1).sqrt().sort(-1).values[:, :2]
    found = two_nearest(x + 0.0, others)
    centre = (x - others.mean(0)).flatten(1).norm(dim=1)
    assert np.allclose(found[:, :2], slow.numpy(), atol=1e-6)
    assert np.allclose(found[:, 2], centre.numpy(), atol=1e-5)
    assert (found[:5, 0] == 0).all()
    far = two_nearest(x.double() + 1e6, others.double() + 1e6)
    assert np.allclose(found, far, atol=1e-6)
    assert two_nearest(x, others[:1]).shape == (300, 3)
    assert np.allclose(nearness(two_nearest(x[5:], others[:1])), 1.0)


def test_the_error_of_fishers_z_holds_for_normals_and_for_heavy_tails():
    rng = np.random.default_rng(0)
    for sample in (rng.normal, lambda size: rng.standard_t(6, size=size)):
        z, variance = [], []
        for _ in range(1000):
            a = sample(size=(400, 2))
            a[:, 1] += a[:, 0]
            found = fishers_z(a)
            z.append(found[0][0, 1])
            variance.append(found[1][0, 1])
        assert np.var(z) == pytest.approx(np.mean(variance), rel=0.25)


def test_the_pair_of_columns_is_chosen_on_training_data():
    rng = np.random.default_rng(0)

    def data(size, pair):
        x = rng.normal(size=(size, 40))
        if pair:
            x[:, 7] += x[:, 31]
        return x

    for _ in range(3):
        found = correlations(data(400, True), data(300, True), data(2000, False), rng)
        assert "columns 7 and 31" in found.words
        assert found.grade(30) in ("caution", "fail")
    p = [
        correlations(data(200, False), data(150, False), data(500, False), rng).p_value
        for _ in range(100)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.14
    assert correlations(*(np.ones((100, 3)) for _ in range(3)), rng) is None
