"""Question 3: the two gaps, against closed forms."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.gaps import ask_gap_again, ask_gaps
from ppl_vae.models import VAE

from . import programs, tables
from .yardsticks import MeanField, by_quadrature, draw, ppca, spoil, with_covariates


def ask(program, x, draws=300):
    return ask_gaps(Posterior(program, x), draws, 0)


def gaps(program, x, draws=300):
    found = ask(program, x, draws).groups["gaps"]
    return {name: found[name].values for name in found}


def test_an_exact_guide_has_no_gap():
    program = ppca()
    x = draw(program, 20)
    answer = ask(program, x)
    assert answer.verdict.grade == "pass"
    found = answer.groups["gaps"]
    evidence = program.evidence(x).detach().numpy()
    assert np.allclose(found["iw_bound"], evidence, atol=1e-4)
    assert np.abs(found["approximation_gap"]).max() < 1e-4
    assert np.abs(found["amortization_gap"]).max() < 1e-4


@pytest.mark.parametrize(("scale", "shift"), [(0.5, 0.0), (2.0, 0.0), (1.0, 0.5), (0.7, -1.0)])
def test_what_a_network_costs_is_its_kl_from_the_posterior(scale, shift):
    program = spoil(ppca(), scale, shift)
    x = draw(program, 20)
    q = MultivariateNormal(program.encoder(x), scale_tril=program.guide_tril)
    exact = kl_divergence(q, program.posterior(x)).detach().numpy()
    found = gaps(program, x)
    error = np.sqrt(found["elbo_error"] ** 2 + found["refined_elbo_error"] ** 2)
    assert (np.abs(found["amortization_gap"] - exact) < 4.5 * error + 1e-4).all()
    assert np.abs(found["approximation_gap"]).max() < 1e-4


def test_what_a_family_costs_is_its_closed_form():
    # KL(prod N(0, 1 / Lambda_ii) || N(0, Lambda^-1)) = -1/2 log(1 - rho^2) for two units.
    program = MeanField(correlation=0.9)
    x = draw(program, 40)
    answer = ask(program, x, draws=2000)
    found = answer.groups["gaps"]
    gap, error = float(found["approximation_gap"].mean()), float(found["iw_error"].mean())
    assert gap == pytest.approx(-0.5 * math.log(1 - 0.81), abs=4 * error / 40**0.5 + 0.05)
    best = found["refined_elbo"].values - program.exact.evidence(x).detach().numpy()
    error = float(found["refined_elbo_error"].mean()) / 40**0.5
    assert best.mean() == pytest.approx(0.5 * math.log(1 - 0.81), abs=4 * error + 1e-3)
    assert np.abs(found["amortization_gap"].values.mean()) < 4 * error * 2**0.5 + 1e-3
    assert answer.verdict.grade == "fail"
    assert "family" in answer.verdict.meaning
    assert "correlations" in answer.verdict.remedy


def test_a_guide_of_the_wrong_scale_is_mended_in_constrained_latents_too():
    program = programs.Positive()
    torch.manual_seed(0)
    x = torch.distributions.Exponential(1.0).sample((30, 1))
    found = gaps(program, x, 1000)
    error = 4.5 * found["iw_error"] + 1e-3
    assert (np.abs(found["iw_bound"] - program.evidence(x).numpy()) < error).all()
    assert (found["amortization_gap"] > 0).mean() > 0.9


def test_data_are_refined_each_by_itself():
    torch.manual_seed(0)
    program = VAE((5,), latent_dim=2, hidden=(8,), likelihood="gaussian").double()
    x = torch.randn(12, 5, dtype=torch.float64)
    together, alone = gaps(program, x, 2000), gaps(program, x[:10], 2000)
    error = together["refined_elbo_error"][:10]
    difference = np.abs(together["refined_elbo"][:10] - alone["refined_elbo"])
    assert (difference < 5 * 2**0.5 * error + 1e-2).all()


def test_what_scales_an_objective_is_no_part_of_the_gap():
    torch.manual_seed(0)
    scaled = programs.Scaled()
    x = torch.randn(12, 5)
    one, other = gaps(scaled, x), gaps(programs.Scaled.without(scaled), x)
    for name in ("refined_elbo", "iw_bound", "elbo"):
        assert np.allclose(one[name], other[name], atol=1e-4)


@pytest.mark.parametrize("kind", [tables.Conditional, tables.Incomplete])
def test_covariates_stay_with_their_data_points(kind, monkeypatch):
    monkeypatch.setattr(ppl_vae.programs.scoring, "BLOCK_ELEMENTS", 5 * 32)  # three blocks
    program, batch = with_covariates(kind, 12)
    found = gaps(program, batch, 100)
    evidence = batch.call(program.evidence).detach().numpy()
    for name in ("elbo", "refined_elbo", "iw_bound"):
        assert np.allclose(found[name], evidence, atol=1e-3)


def test_all_observed_sites_count():
    program, batch = with_covariates(tables.Labelled, 12)
    found = gaps(program, batch, 2000)
    evidence, _ = by_quadrature(Posterior(program, batch))
    error = 4.5 * found["iw_error"] + 1e-3
    assert (np.abs(found["iw_bound"] - evidence.numpy()) < error).all()
    assert (found["amortization_gap"] > 0).all()


@pytest.mark.parametrize("unit", [1e-3, 100.0])
def test_gaps_do_not_depend_on_the_units_of_z(unit):
    torch.manual_seed(0)
    program, other = programs.Rescaled(), programs.Rescaled(unit=unit)
    other.load_state_dict(program.state_dict())
    x = torch.randn(12, 5)
    one, same = gaps(program, x), gaps(other, x)
    for name in ("approximation_gap", "amortization_gap"):
        assert np.allclose(one[name], same[name], atol=5e-3)


def test_the_better_guide_is_never_worse():
    # A likelihood so sharp that Adam's first steps go astray.
    program = ppca((1e4, 1e4))
    found = gaps(program, draw(program, 12))
    error = np.hypot(found["elbo_error"], found["refined_elbo_error"])
    assert (found["amortization_gap"] > -4.5 * error - 1e-6).all()


class OneOfTwoModes(torch.nn.Module):
    """x ~ N(z^2, 0.3), so that z is as probable as -z; the guide has the positive mode alone."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def model(self, x):
        pyro.module(f"two-modes-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal((z**2)[..., None], 0.3).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"two-modes-{id(self)}", self)
        with pyro.plate("data", len(x)):
            mode = x[:, 0].clamp(min=0.5).sqrt()
            pyro.sample("z", dist.Normal(mode + self.shift, 0.15 / mode))

    def evidence(self, x):
        z = torch.linspace(-6, 6, 8001, dtype=torch.float64)
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.3).log_prob(x)
        return (log_p.logsumexp(1) + (z[1] - z[0]).log()).numpy()


def test_a_mode_that_the_guide_misses_counts():
    program = OneOfTwoModes()
    x = torch.linspace(1.5, 5, 20, dtype=torch.float64)[:, None]
    answer = ask(program, x, draws=1000)
    found = answer.groups["gaps"]
    error = 4.5 * found["evidence_error"].values + 1e-3
    assert (np.abs(found["evidence"] - program.evidence(x)) < error).all()
    # The best guide of the family has one mode too: that half is missing is the family's doing.
    assert (found["approximation_gap"] > math.log(2) - error).all()
    assert answer.verdict.grade == "fail"
    assert "modes" in answer.verdict.remedy


@pytest.mark.parametrize("name", ["Minimal", "TwoLayers", "WithDropout", "Deterministic"])
def test_programs_are_as_they_were_after_it(name):
    torch.manual_seed(0)
    program = getattr(programs, name)()
    program.decoder.requires_grad_(False)
    before = {k: v.clone() for k, v in program.state_dict().items()}
    found = gaps(program, torch.randn(12, 5))
    assert np.isfinite(found["approximation_gap"]).all()
    assert (found["amortization_gap"] > -0.05).all()  # at worst, noise of the draws
    assert all(torch.equal(v, before[k]) for k, v in program.state_dict().items())
    assert {n for n, p in program.named_parameters() if not p.requires_grad} == {
        n for n, _ in program.named_parameters() if n.startswith("decoder")
    }
    assert all(p.grad is None for p in program.parameters())


def of_classes(program, x):
    """log p(x) of a latent class, by enumeration."""
    each = dist.Normal(program.decoder.weight, 1.0).log_prob(x[:, None]).sum(-1)
    return (each.logsumexp(-1) - math.log(3)).detach().numpy()


@pytest.mark.parametrize("bias", [0.0, 20.0])
def test_the_gap_of_a_latent_class_is_not_split(bias):
    torch.manual_seed(0)
    program, x = programs.Discrete(), 2 * torch.randn(60, 5)
    with torch.no_grad():
        program.encoder.bias[0] = bias  # of 20: the guide never draws another class than the first
    answer = ask(program, x)
    found = answer.groups["gaps"]
    assert "approximation_gap" not in found
    assert "cannot be reparameterized" in answer.verdict.meaning
    assert answer.verdict.value == pytest.approx(float(found["gap"].mean()))
    error = 4.5 * found["evidence_error"].values + 1e-4
    assert (np.abs(found["evidence"] - of_classes(program, x)) < error).all()
    if bias:
        assert answer.verdict.grade == "fail"


def test_an_exact_guide_of_a_latent_class_passes():
    torch.manual_seed(0)
    program, x = programs.Discrete(), 2 * torch.randn(60, 5)
    with torch.no_grad():
        mean = program.decoder.weight
        program.encoder.weight.copy_(mean)
        program.encoder.bias.copy_(-mean.square().sum(1) / 2)
    answer = ask(program, x)
    assert answer.verdict.grade == "pass"
    assert answer.verdict.value == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("name", "words"), [("Flow", "auxiliary"), ("Planar", "inverted")])
def test_a_guide_too_narrow_to_be_weighed_is_annealed(name, words):
    torch.manual_seed(0)
    program, x = getattr(programs, name)(), torch.randn(12, 5)
    with torch.no_grad():
        program.encoder.weight.mul_(0.1)
        program.encoder.bias[2:] = -2.0  # log scales
    answer = ask(program, x)
    found = answer.groups["gaps"]
    assert words in answer.verdict.meaning
    assert "approximation_gap" not in found
    weight = program.decoder.weight.detach()
    exact = MultivariateNormal(program.decoder.bias, weight @ weight.T + torch.eye(5)).log_prob(x)
    annealed = np.isfinite(found["ais_bound"].values)
    assert annealed.sum() > 6
    error = 4.5 * found["ais_error"].values[annealed] + 0.02
    assert (np.abs(found["ais_bound"] - exact.detach().numpy())[annealed] < error).all()
    assert (found["evidence"] == found["ais_bound"])[annealed].all()
    assert not found["loose"][annealed].any()
    assert answer.verdict.grade == "fail"


def test_a_gap_too_noisy_to_grade_passes_nothing():
    torch.manual_seed(0)
    answer = ask(programs.Masked(), 3 * torch.randn(12, 5))
    assert answer.verdict.grade == "cannot say"
    assert answer.verdict.value > 0.25  # as much as fails, were it sure
    assert "more data" in answer.verdict.remedy
    assert answer.groups["gaps"].sizes["datum"] == 12


@pytest.mark.parametrize(("data", "draws"), [(9, 200), (20, 99)])
def test_too_few_say_nothing(data, draws):
    with pytest.raises(ppl_vae.InputError, match="at least 10 data points and 100 draws"):
        ask(ppca(), draw(ppca(), data), draws)


def test_the_gap_of_another_guide_takes_log_p_from_before():
    program, other = spoil(ppca(), 2.0), spoil(ppca(), 0.5, 0.5)
    x = draw(program, 20)
    before = ask(program, x).groups["gaps"]
    answer = ask_gap_again(Posterior(other, x), before, 400, 0)
    found = answer.groups["gaps"]
    assert np.array_equal(found["evidence"].values, before["evidence"].values)
    q = MultivariateNormal(other.encoder(x), scale_tril=other.guide_tril)
    exact = kl_divergence(q, other.posterior(x)).detach().numpy()
    assert (np.abs(found["gap"] - exact) < 4.5 * found["elbo_error"] + 1e-3).all()
    assert answer.verdict.grade == "fail"
    assert "refined_elbo" not in found


def test_a_bound_from_before_that_is_loose_gives_way():
    program = ppca()
    x = draw(program, 20)
    before = ask(program, x).groups["gaps"].copy(deep=True)
    exact = program.evidence(x).detach().numpy()
    before["evidence"].values[:] -= 1.0
    found = ask_gap_again(Posterior(program, x), before, 400, 0).groups["gaps"]
    assert np.abs(found["evidence"].values - exact).max() < 1e-6
