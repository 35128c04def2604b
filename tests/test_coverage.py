"""Question 1: k-hat, against laws whose tail is known."""

import math

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.arviz_io import pareto_k
from ppl_vae.diagnostics.coverage import ask_coverage

from . import programs
from .yardsticks import draw, ppca, spoil


def ask(program, x, draws=500, names=None):
    return ask_coverage(Posterior(program, x, names), draws, 0)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.7, 1.0])
def test_k_hat_of_pareto_weights_is_their_shape(k):
    data, draws = 100, 10000
    weights = k * np.random.default_rng(0).exponential(size=(data, draws))
    found, _ = pareto_k(weights)
    tail = 3 * math.sqrt(draws)
    error = (1 + k) / math.sqrt(tail * data)
    prior = 10 / (tail + 10) * abs(k - 0.5)  # Vehtari et al. 2024, appendix: towards 0.5
    assert abs(found.mean() - k) < prior + 5 * error


def test_equal_weights_have_no_tail():
    k, ess = pareto_k(
        np.full((2, 300), -80.0) + 1e-6 * np.random.default_rng(0).normal(size=(2, 300))
    )
    assert k.tolist() == [0, 0]
    assert ess.tolist() == [300, 300]


def test_the_highest_weight_of_many_draws_is_a_bound_not_a_tail():
    weights = np.random.default_rng(0).choice([0.0, 1.0, 2.0], size=(3, 400))
    assert pareto_k(weights)[0].tolist() == [0, 0, 0]


def test_effective_draws_are_those_of_the_weights():
    # E[w]^2 / E[w^2] = exp(-s^2) for log w ~ N(0, s^2).
    weights = 0.5 * np.random.default_rng(0).normal(size=(200, 2000))
    ess = pareto_k(weights)[1]
    assert ess.mean() / 2000 == pytest.approx(math.exp(-0.25), abs=4 * ess.std() / 2000 / 200**0.5)


def test_weights_whose_tail_no_float_can_hold_have_a_high_k_and_no_warning():
    # Of some of these, the fitted tail overflows.
    k, ess = pareto_k(500 * np.random.default_rng(0).normal(size=(200, 400)))
    assert (k > 10).all()
    assert np.isfinite(ess).all()


def test_an_exact_guide_passes_and_its_evidence_is_exact():
    program = ppca()
    x = draw(program, 50)
    answer = ask(program, x)
    assert answer.verdict.grade == "pass"
    per_datum = answer.groups["diagnostics"]
    assert (per_datum["k_hat"] == 0).all()
    assert torch.allclose(torch.as_tensor(per_datum["iw_bound"].values), program.evidence(x))
    assert torch.allclose(torch.as_tensor(per_datum["elbo"].values), program.evidence(x))


def test_a_guide_that_is_too_narrow_fails_and_the_worst_data_are_named():
    program = spoil(ppca((2.0, 1.5, 1.0)), scale=0.4)
    names = torch.arange(1000, 1100)
    answer = ask(program, draw(program, 100), 1000, names)
    assert answer.verdict.grade == "fail"
    worst = 1000 + int(np.argmax(answer.groups["diagnostics"]["k_hat"].values))
    assert f"rows {worst} (" in answer.verdict.meaning
    assert answer.verdict.value == pytest.approx(
        float((answer.groups["diagnostics"]["k_hat"] > 2 / 3).mean())
    )


def test_k_hat_is_of_one_datum_not_of_the_batch():
    # Log weights have a standard deviation of sqrt(2) / 4 for each datum, of 7 summed over 400.
    program = spoil(ppca(), shift=0.25)
    k_hat = ask(program, draw(program, 400)).groups["diagnostics"]["k_hat"].values
    assert np.quantile(k_hat, 0.99) < 0.5
    summed = Posterior(program, draw(program, 400)).log_weight(500).sum(1)
    assert pareto_k(summed.numpy()[None])[0][0] > 0.7


@pytest.mark.parametrize(("data", "draws"), [(19, 500), (50, 399)])
def test_too_few_say_nothing(data, draws):
    program = ppca()
    with pytest.raises(ppl_vae.InputError, match="at least 20 data points and 400 draws"):
        ask(program, draw(program, data), draws)


def test_a_discrete_guide_has_k_hats_too():
    program = programs.Discrete()
    k_hat = ask(program, torch.randn(40, 5)).groups["diagnostics"]["k_hat"].values
    # Three classes have three weights, which are bounded; a tail is seen only where the highest
    # is that of a class so rare that it was hardly drawn.
    assert (k_hat <= 0).mean() > 0.9
