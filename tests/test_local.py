"""Where is the guide off? Faults of known size in known places."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.calibration import ask_calibration
from ppl_vae.diagnostics.local import _least_squares, _neighbour_mean, ask_local, local_faults

from . import programs
from .test_calibration import Collapsed
from .yardsticks import OffGuide, draw, first_unit, ppca, spoil

ALARM = ("caution", "fail")


def ask(program, simulations=1000, dim=6, seed=0, x=None):
    answer = ask_local(
        Posterior(program, torch.zeros(2, dim) if x is None else x), simulations, seed
    )
    return answer.verdict, answer.groups["local"]


def by_turns(loc, scale):
    """Off by half a standard deviation, to the side where the data lie."""
    return loc + first_unit(0.5 * scale * loc.sign()), scale


def for_few(loc, scale):
    """Off by two standard deviations for the 5 % of the highest means."""
    return loc + first_unit(2 * scale * (loc > 1.645 * math.sqrt(0.8))), scale


def uneven(loc, scale):
    return loc, scale * (1 + first_unit(0.4 * loc.sign()))


@pytest.mark.parametrize("seed", range(3))
def test_an_exact_guide_passes(seed):
    verdict, found = ask(ppca(), seed=seed)
    assert verdict.grade == "pass"
    assert verdict.value < 3 * verdict.error
    assert found.attrs["p_value"] > 0.005


@pytest.mark.parametrize("change", [by_turns, for_few, uneven])
def test_faults_of_places_are_found(change):
    # Found in each of 6 seeds with 1,000 simulations.
    verdict, found = ask(OffGuide(ppca(), change))
    assert verdict.grade in ALARM
    assert found.attrs["p_local"] < 0.005
    assert "z[0]" in verdict.meaning
    assert "where the guide puts" in verdict.meaning
    assert "data" in verdict.meaning


def test_a_fault_that_averages_to_zero_is_missed_by_unit_ranks_and_found_here():
    program = OffGuide(ppca(), lambda loc, scale: (
        loc + first_unit(0.5 * scale * (loc[..., 1:] * 5).tanh()), scale))  # fmt: skip
    posterior = Posterior(program, torch.zeros(2, 6))
    ranks = ask_calibration(posterior, 1000, 0).groups["calibration"]["p_value"].values[:2]
    assert ranks.min() > 0.004
    assert ask(program)[0].grade in ALARM


def test_the_region_is_where_the_fault_is_and_its_data_are_named():
    exact = ppca()
    x = draw(exact, 400)
    verdict, found = ask(OffGuide(exact, for_few), x=x)
    mean = exact.posterior(x).mean[:, 0].detach().numpy()
    inside = found["datum_in_region"].values > 0
    faulty = mean > 1.645 * math.sqrt(0.8)
    assert inside.any()
    assert faulty[inside].mean() > 0.7
    assert str(int(np.flatnonzero(inside)[0])) in verdict.meaning
    assert "below its mean" in verdict.meaning
    assert float(found["centre"][0]) > 1.2


def test_the_effect_is_that_of_the_closed_form():
    # A linear error of a d-th standard deviation for each of z, which is N(0, 0.8) over data.
    slope = 0.4
    program = OffGuide(
        ppca(), lambda loc, scale: (loc + first_unit(slope * scale * loc / math.sqrt(0.8)), scale)
    )
    values = [ask(program, seed=seed) for seed in range(3)]
    # The second score has the mean f² / sqrt 2 where the first has f: its variance over data is
    # slope^4, and its average makes r too wide by slope² for all.
    wide = 1 + slope**2
    exact = slope**2 + slope**4 + (wide + 1 / wide) / 2 - 1
    for verdict, _ in values:
        assert abs(verdict.value - exact) < 4 * verdict.error
        assert verdict.error < 0.05


def test_what_is_off_everywhere_is_said_to_be_so():
    for program, words in (
        (spoil(ppca(), scale=0.5), "narrow"),
        (spoil(ppca(), scale=2.0), "wide"),
        (spoil(ppca(), shift=1.0), "below its mean"),
    ):
        verdict, found = ask(program)
        assert verdict.grade == "fail"
        assert found.attrs["p_local"] > 0.002
        assert "everywhere alike" in verdict.meaning
        assert words in verdict.meaning


def test_a_trifle_passes():
    assert ask(spoil(ppca(), scale=0.99))[0].grade == "pass"


def test_the_test_has_its_level():
    rng = np.random.default_rng(0)
    low = 0
    for _ in range(20):
        places = rng.normal(size=(150, 2))
        fit = local_faults(rng.integers(0, 101, (150, 2)), 100, places, rng)
        low += fit.p_value < 0.1
    assert low <= 7  # binomial(20, 0.1): more with a probability of 0.0004


def test_the_regressions_leave_each_point_out():
    rng = np.random.default_rng(0)
    places, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 3))
    smooth = _least_squares(places)
    near = np.clip(places, -4, 4)
    design = np.concatenate([np.ones((60, 1)), near, near**2 - 1], axis=1)
    for i in (0, 17):
        rest = np.arange(60) != i
        gram = design[rest].T @ design[rest] + design.shape[1] * np.eye(design.shape[1])
        expected = design[i] @ np.linalg.solve(gram, design[rest].T @ y[rest])
        assert np.allclose(smooth(y)[i], expected)
    neighbours = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]])
    assert np.allclose(
        _neighbour_mean(neighbours)(np.array([[1.0], [2.0], [6.0]])), [[4.0], [3.5], [1.5]]
    )


def test_scores_of_a_shifted_normal_give_the_shift():
    rng = np.random.default_rng(0)
    ranks = np.minimum((norm.cdf(rng.normal(size=(20000, 1)) + 0.5) * 101).astype(int), 100)
    fit = local_faults(ranks[:1000], 100, rng.normal(size=(1000, 1)), rng)
    assert abs(fit.effect[0] - 0.25) < 4 * fit.error[0]
    assert fit.p_common < 1e-9 < fit.p_local


@pytest.mark.parametrize("name", ["TwoLayers", "Discrete", "Flow", "Planar", "Sigmoids"])
def test_every_kind_of_guide_is_compared(name):
    torch.manual_seed(0)
    verdict, found = ask(getattr(programs, name)(), 200, dim=5)
    assert verdict.value is not None
    assert found["shift"].sizes == found["mean"].sizes
    for array in found.values():
        assert {"long_name", "units"} <= set(array.attrs)


def test_a_guide_that_ignores_its_data_has_no_places():
    with pytest.raises(ppl_vae.InputError, match="same for all data"):
        ask(Collapsed(), dim=5)


def test_too_few_simulations_say_nothing():
    with pytest.raises(ppl_vae.InputError, match="at least 100"):
        ask(ppca(), 99)
    assert ask(ppca(), 100)[0].grade == "cannot say"
