"""Calibration around the observed data: exact in theory, and so in the tests."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.posterior_sbc import (
    LIKELIHOOD,
    _weigh,
    ask_posterior_sbc,
    weighted_places,
)

from . import programs, tables
from .test_calibration import Collapsed
from .test_certificate import Exact
from .yardsticks import OffGuide, draw, first_unit, ppca, spoil, with_covariates

ALARM = ("caution", "fail")


def ask(program, x, seed=0):
    answer = ask_posterior_sbc(Posterior(program, x), seed)
    return answer.verdict, answer.groups["posterior_sbc"]


def test_an_exact_guide_passes_and_its_places_are_uniform():
    p = []
    for seed in range(5):
        verdict, found = ask(ppca(), draw(ppca(), 1000, seed), seed)
        assert verdict.grade == "pass"
        p += [kstest(found["place"].values[:, i], "uniform").pvalue for i in range(3)]
    assert kstest(p, "uniform").pvalue > 0.001


def test_weights_are_those_of_the_exact_posterior_of_both():
    # p(z | x, x') / p(z | x) is p(x' | z) up to a constant, which the guide at x' has to give.
    program, x = ppca((2.0, 1.0, 0.7)), draw(ppca((2.0, 1.0, 0.7)), 30)
    z = {"z": Posterior(program, x).draw(20, 1)["z"]}
    made = ppl_vae.prior_predictive(program, (6,), 30, 2).x
    values, weights = _weigh(Posterior(program, made), z, 0, ppl_vae_progress())
    log_likelihood = torch.as_tensor(values[..., -1])
    assert np.allclose(weights, log_likelihood.softmax(0).numpy(), atol=1e-8)


def ppl_vae_progress():
    from ppl_vae.progress import Progress

    return Progress()


def test_places_are_uniform_whatever_the_weights_and_ties():
    # Which of S + 1 is the true one has the probabilities of the weights.
    rng = np.random.default_rng(0)
    size, draws = 20000, 4
    values = rng.integers(0, 3, (draws + 1, size, 1)).astype(float)
    weights = rng.dirichlet(np.full(draws + 1, 0.5), size).T
    true = (weights.cumsum(0) < rng.random(size)).sum(0)
    columns = np.arange(size)
    order = (np.arange(draws + 1)[:, None] + true) % (draws + 1)
    places = weighted_places(values[order, columns], weights[order, columns], rng)
    assert kstest(places[:, 0], "uniform").pvalue > 0.001


def far(exact, above, size=1000):
    """Data of the model whose first unit lies far from its mean."""
    x = draw(exact, 20 * size)
    return x[exact.posterior(x).mean[:, 0] * (1 if above else -1) > 1.2][:size].detach()


def test_a_fault_counts_where_the_data_are():
    exact = ppca()
    program = OffGuide(exact, lambda loc, scale: (loc + first_unit(scale * (loc > 1.0)), scale))
    verdict, _ = ask(program, far(exact, above=True))
    assert verdict.grade in ALARM
    assert "z[0]" in verdict.statistic
    assert "biased high" in verdict.meaning
    assert ask(program, far(exact, above=False))[0].grade == "pass"


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.0), (2.0, 0.0), (1.0, 0.5)])
def test_faults_everywhere_are_found(scale, shift):
    x = draw(ppca(), 1000)
    assert ask(spoil(ppca(), scale, shift), x)[0].grade in ALARM


def test_a_guide_that_ignores_its_data_is_found_by_the_likelihood():
    torch.manual_seed(0)
    program = Collapsed()
    verdict, found = ask(program, ppl_vae.prior_predictive(program, (5,), 500).x)
    assert verdict.grade == "fail"
    assert LIKELIHOOD in verdict.statistic
    assert found["p_value"].values[:2].min() > 0.001


def test_discrete_latents_and_covariates():
    torch.manual_seed(0)
    program = Exact()
    x = ppl_vae.prior_predictive(program, (5,), 1000).x
    assert ask(program, x)[0].grade == "pass"
    for kind in (tables.Incomplete, tables.Conditional, tables.Labelled):
        program, batch = with_covariates(kind, 100)
        _, found = ask(program, batch)
        assert found["place"].values.min() >= 0
        assert found["place"].values.max() <= 1 + 1e-9


def test_where_one_draw_has_the_weight_nothing_passes():
    program = ppca((3.0,) * 40, dim=42)
    verdict, found = ask(program, draw(program, 500))
    assert float(found["weight"].mean()) > 0.5
    assert verdict.grade == "cannot say"
    assert "says little" in verdict.meaning


def test_too_few_data_or_no_density_say_nothing():
    with pytest.raises(ppl_vae.InputError, match="say little"):
        ask(ppca(), draw(ppca(), 19))
    torch.manual_seed(0)
    with pytest.raises(ppl_vae.InputError, match="cannot be inverted"):
        ask(programs.Planar(), torch.zeros(30, 5))


def test_few_data_make_as_many_places():
    verdict, found = ask(ppca(), draw(ppca(), 40))
    assert verdict.grade == "pass"
    assert math.isclose(verdict.error, 0.5 / 1000**0.5)
    assert (np.bincount(found["source"].values) == 25).all()
