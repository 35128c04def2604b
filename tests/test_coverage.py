"""Question 1: k-hat, against laws whose tail is known."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.coverage import ask_coverage
from ppl_vae.storage.arviz_io import draws_needed, is_heavy, pareto_k

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


def test_weights_that_lose_no_draws_have_no_tail():
    # A rare weight, 2 % above the rest, that two draws have: too few for ArviZ to fit.
    weights = np.zeros((1, 1000))
    weights[0, :2] = 0.02
    k, ess = pareto_k(weights)
    assert k.tolist() == [0]
    assert ess[0] == pytest.approx((weights + 0).size, rel=1e-5)
    # The same, but worth half of the sum: one draw in a thousand stands for half the posterior.
    weights[0, 0] = math.log(1000)
    k, ess = pareto_k(weights)
    assert k.tolist() == [math.inf]
    assert ess[0] == pytest.approx(4, rel=0.01)


def test_a_k_hat_counts_only_where_draws_are_lost():
    # A heavy tail (k = 0.9), and the same by which weights differ by a thousandth.
    raw = np.random.default_rng(0).pareto(1 / 0.9, size=(5, 1000))
    light = np.log1p(1e-4 * raw)
    heavy = np.log(raw)
    for weights, expected in ((light, False), (heavy, True)):
        k, ess = pareto_k(weights)
        assert (k > 2 / 3).any()
        assert is_heavy(k, ess, 1000).any() == expected
    k, ess = pareto_k(light)
    assert (ess > 990).all()


def test_the_draws_that_a_k_hat_asks_for_bring_it_below_its_threshold():
    k = np.linspace(0.3, 0.69, 20)
    assert np.allclose(1 - 1 / np.log10(draws_needed(k)), k)
    assert draws_needed(np.array([0.999, 1.0, np.inf, -np.inf]))[1:].tolist() == [math.inf] * 2 + [
        10.0
    ]


class OfClasses(programs._Variant):
    """Three classes, one of them rare, and their exact posterior but for logits that are off."""

    def __init__(self, off):
        super().__init__()
        self.off = off * torch.tensor([1.0, 0.0, -1.0])

    def model(self, x):
        pyro.module(f"classes-{id(self)}", self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
            centres = 1.5 * torch.eye(3, 5)
            pyro.sample("x", dist.Normal(centres[k.long()], 0.7).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"classes-{id(self)}", self)
        with pyro.plate("data", len(x)):
            prior = torch.tensor([0.5, 0.3, 0.2]).log()
            p = dist.Normal(1.5 * torch.eye(3, 5), 0.7).log_prob(x[..., None, :]).sum(-1)
            pyro.sample("k", dist.Categorical(logits=prior + p + self.off))


@pytest.mark.parametrize("off", [0.0, 0.002, 0.02, 0.2])
def test_a_guide_of_classes_whose_logits_are_hardly_off_passes(off):
    program = OfClasses(off)
    x = ppl_vae.prior_predictive(program, (5,), 200, seed=1).x
    answer = ask(program, x, 1000)
    assert answer.verdict.grade == "pass"
    assert (answer.groups["diagnostics"]["ess"] > 900).all()


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
    x = draw(program, 60)  # of 57 and fewer, 3 standard errors of a share of 0 reach above 0.05
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
    assert "asks for" in answer.verdict.meaning or "no number of draws" in answer.verdict.meaning
    found = answer.groups["diagnostics"]
    heavy = (found["k_hat"] > 2 / 3) & (found["ess"] < 900)
    assert answer.verdict.value == pytest.approx(float(heavy.mean()))
    assert np.allclose(found["draws_needed"], draws_needed(found["k_hat"].values))


def test_a_pass_of_few_data_is_left_open_and_the_data_that_would_do_are_named():
    program = ppca()
    answer = ask(program, draw(program, 40))
    assert (answer.verdict.grade, answer.verdict.value) == ("cannot say", 0)
    wanted = int(answer.verdict.remedy.split()[3])
    assert ask(program, draw(program, wanted)).verdict.grade == "pass"


@pytest.mark.parametrize("units", [1, 2, 10])
@pytest.mark.parametrize("shift", [0.1, 0.35])
def test_a_mean_that_is_a_little_off_has_light_weights(units, shift):
    program = spoil(ppca((2.0,) * units, dim=12), shift=shift)
    assert ask(program, draw(program, 300), 1000).verdict.grade == "pass"


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
