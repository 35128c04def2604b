"""The Jeffreys certificate, against closed forms."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.certificate import DRAWS, ask_certificate, most_variation, tail_index

from . import programs
from .conftest import load_benchmark
from .yardsticks import ppca, spoil

BENCH = load_benchmark("certificate")


def ask(program, simulations=1000, dim=6, seed=0):
    answer = ask_certificate(Posterior(program, torch.zeros(2, dim)), simulations, seed)
    return answer.verdict, answer.groups["certificate"]


@pytest.mark.parametrize("units", BENCH.UNITS)
def test_the_divergence_is_within_three_errors_of_its_closed_form(units):
    # Of 28 estimates from one set of simulations, outside with a probability of 0.0027 each.
    for fault in BENCH.FAULTS:
        program = BENCH.spoil(BENCH.linear_gaussian(units), fault)
        exact = BENCH.exact_jeffreys(program)
        verdict, found = ask(program, dim=units + 4)
        rounding = 1e-9 * (1 + exact)
        assert abs(verdict.value - exact) <= 3 * verdict.error + rounding, fault
        low, high = (float(found["discriminative"]) + s * float(found["discriminative_error"])
                     for s in (-4, 4))  # fmt: skip
        assert high >= -rounding
        assert low <= min(exact, math.log(DRAWS + 1)) + rounding
        if fault == "none":
            assert verdict.grade == "pass"
            assert abs(verdict.value) < rounding


def test_the_closed_form_is_that_of_torch():
    program = BENCH.spoil(BENCH.linear_gaussian(3), "scale halved")
    with torch.no_grad():
        program.encoder.weight.mul_(0.8)
        torch.manual_seed(0)
        x = program.model(size=20000)
        p = program.posterior(x)
        q = dist.MultivariateNormal(program.encoder(x), scale_tril=program.guide_tril)
        both = torch.distributions.kl_divergence(q, p) + torch.distributions.kl_divergence(p, q)
    error = both.std() / len(x) ** 0.5
    assert abs(both.mean() - BENCH.exact_jeffreys(program)) < 4 * error


def test_the_error_is_that_of_the_estimate():
    program = spoil(ppca(), scale=1.5, shift=0.3)
    exact = 2 * ((1.5**2 + 1.5**-2) / 2 - 1 + 0.3**2 * (1 + 1.5**-2) / 2)
    verdicts = [ask(program, 200, seed=seed)[0] for seed in range(40)]
    z = np.array([(v.value - exact) / v.error for v in verdicts])
    assert abs(z.mean()) < 4 / 40**0.5
    assert abs(z.std() - 1) < 4 / 80**0.5


@pytest.mark.parametrize("shift", [0.1, 0.5, 2.0])
def test_no_total_variation_is_above_the_bound(shift):
    exact = 2 * norm.cdf(shift / 2) - 1  # of two normals that far apart, whose J is shift²
    assert exact <= most_variation(shift**2) <= shift / 2
    verdict, found = ask(spoil(ppca((2.0,)), shift=shift))
    assert exact <= float(found["total_variation"])
    assert f"within {float(found['total_variation']):.2g} total variation" in verdict.meaning


def test_the_bound_is_reached_by_two_coins():
    v = 0.6
    jeffreys = v * math.log(((1 + v) / (1 - v)) ** 2)
    assert most_variation(jeffreys) == pytest.approx(v)


def test_the_best_classifier_is_the_one_of_the_closed_form():
    # p and q a coin: with S draws the class probabilities depend on how many are as the truth.
    class Coin(programs._Variant):
        def model(self, x=None, size=1):
            pyro.module(f"coin-{id(self)}", self)
            with pyro.plate("data", size if x is None else len(x)):
                z = pyro.sample("z", dist.Bernoulli(torch.tensor(0.5)))
                mean = 0 * z[..., None].expand(*z.shape, 5)
                return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

        def guide(self, x):
            pyro.module(f"coin-{id(self)}", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Bernoulli(0.2 + 0 * self.encoder(x)[..., 0]))

    verdict, found = ask(Coin(), 4000, dim=5)
    p, q = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    exact = ((p - q) * np.log(p / q)).sum()
    assert abs(verdict.value - exact) < 4 * verdict.error
    ones = np.arange(DRAWS + 1)
    chance = [math.comb(DRAWS, k) * 0.2**k * 0.8 ** (DRAWS - k) for k in ones]
    weight = p / q
    expected = sum(
        p[truth] * (chance * np.log(weight[truth] / (
            weight[truth] + ones * weight[1] + (DRAWS - ones) * weight[0]))).sum()
        for truth in (0, 1)
    ) + math.log(DRAWS + 1)  # fmt: skip
    error = float(found["discriminative_error"])
    assert abs(float(found["discriminative"]) - expected) < 4 * error


class Exact(programs.Discrete):
    def guide(self, x):
        pyro.module(f"discrete-{id(self)}", self)
        with pyro.plate("data", len(x)):
            squared = (x.unsqueeze(-2) - self.decoder.weight).square().sum(-1)
            pyro.sample("k", dist.Categorical(logits=-squared / 2 + 0 * self.encoder(x)))


def test_a_discrete_exact_guide_passes():
    torch.manual_seed(0)
    verdict, _ = ask(Exact(), dim=5)
    assert verdict.grade == "pass"
    assert abs(verdict.value) < 1e-4


@pytest.mark.parametrize("name", ["TwoLayers", "Discrete", "Rescaled"])
def test_several_kinds_of_sites_are_weighed(name):
    torch.manual_seed(0)
    verdict, found = ask(getattr(programs, name)(), 200, dim=5)
    assert verdict.value > 0
    assert found["contribution"].sizes == {"simulation": 200}
    for array in found.values():
        assert {"long_name", "units"} <= set(array.attrs)


def test_a_guide_without_mass_where_the_posterior_has_some_fails_with_the_reason():
    class Narrow(programs._Variant):
        def guide(self, x):
            pyro.module(f"narrow-{id(self)}", self)
            with pyro.plate("data", len(x)):
                unused = 0 * self.encoder(x)[..., :2]
                pyro.sample("z", dist.Uniform(unused - 1, unused + 1).to_event(1))

    class Positive(Narrow):
        def guide(self, x):
            pyro.module(f"positive-{id(self)}", self)
            with pyro.plate("data", len(x)):
                unused = 0 * self.encoder(x)[..., :2]
                pyro.sample("z", dist.LogNormal(unused, 1.0).to_event(1))

    for kind in (Narrow, Positive):
        torch.manual_seed(0)
        verdict, found = ask(kind(), dim=5)
        assert verdict.grade == "fail"
        assert math.isinf(verdict.value)
        assert "no probability" in verdict.meaning
        assert verdict.as_dict()["value"] is None
        # So many as the discriminative score, which stays finite, calls certain.
        certain = np.isinf(found["contribution"].values)
        assert 0.2 < certain.mean() < 1
        assert np.allclose(found["log_score"].values[certain], math.log(DRAWS + 1))


class Tails(programs._Variant):
    """z is Student's t, which its data hardly change; the guide is a normal: E_p log(p/q) has
    infinite variance for 4 degrees of freedom and none for 2."""

    freedom = 2.0

    def model(self, x=None, size=1):
        pyro.module(f"tails-{id(self)}", self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.StudentT(self.freedom, 0.0, 1.0))
            mean = torch.tanh(z)[..., None].expand(*z.shape, 5)
            return pyro.sample("x", dist.Normal(mean, 30.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"tails-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0 * self.encoder(x)[..., 0], 1.0))


def test_where_the_mean_is_infinite_a_lower_bound_is_reported_and_nothing_passes():
    for seed in range(5):
        verdict, found = ask(Tails(), dim=5, seed=seed)
        assert verdict.grade in ("caution", "fail", "cannot say")
        assert verdict.value < float(found["contribution"].mean())
        assert "lower bound" in verdict.meaning
        assert "within" not in verdict.meaning


def test_tails_are_told():
    rng = np.random.default_rng(0)
    assert tail_index(rng.normal(size=1000) ** 2) < 0.5
    assert tail_index(rng.standard_t(1, 1000)) > 0.7
    assert tail_index(np.zeros(100)) == tail_index(np.repeat([0.0, 1.0], 50)) == 0


def test_a_guide_whose_density_is_unknown_is_refused():
    torch.manual_seed(0)
    with pytest.raises(ppl_vae.InputError, match="cannot be inverted"):
        ask(programs.Planar(), dim=5)


def test_too_few_simulations_say_nothing():
    with pytest.raises(ppl_vae.InputError, match="at least 100"):
        ask(ppca(), 99)
