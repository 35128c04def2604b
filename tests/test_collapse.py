"""Question 5: collapse, against the closed forms of probabilistic PCA."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.collapse import DRAWS, ask_collapse
from ppl_vae.models import LinearGaussian
from ppl_vae.runtime import derived_seed

from . import programs
from .yardsticks import draw, ppca, with_covariates


def ask(program, x):
    return ask_collapse(Posterior(program, x), 0)


def test_kl_and_activity_are_those_of_probabilistic_pca():
    # Lucas et al. 2019: E_x KL_j = 1/2 ln(l_j / s^2), Var of the mean 1 - s^2 / l_j, for R = I.
    strengths = np.array([3.0, 1.0, 0.5])
    eigenvalues = 1 + strengths**2
    program = ppca(tuple(strengths))
    answer = ask(program, draw(program, 4000))
    found = answer.groups["latents"]
    kl, spread = found["kl"].values.mean(0), found["kl"].values.std(0) / 4000**0.5
    assert (np.abs(kl - 0.5 * np.log(eigenvalues)) < 4.5 * spread).all()
    exact = 1 - 1 / eigenvalues
    assert (np.abs(found["activity"].values - exact) < 4.5 * exact * (2 / 4000) ** 0.5).all()
    assert answer.verdict.grade == "pass"
    assert (found["rate"] + found["distortion"]).mean() == pytest.approx(
        -program.evidence(draw(program, 4000)).mean().item(), abs=1e-9
    )
    # Rate and the sum of units agree, for the posterior has no correlations.
    assert found["rate"].mean() == pytest.approx(kl.sum(), abs=0.02)


def test_the_rate_splits_into_information_and_marginal_kl():
    # The exact guide on the model's own data averages to the prior: all of the rate is information.
    program = ppca((1.0, 0.5))
    found = ask(program, draw(program, 1000)).groups["latents"]
    rate = 0.5 * math.log(2) + 0.5 * math.log(1.25)
    assert float(found["mutual_information"]) == pytest.approx(rate, abs=0.1)
    assert float(found["marginal_kl"]) == pytest.approx(0, abs=0.1)
    assert float(found["mutual_information"]) + float(found["marginal_kl"]) == pytest.approx(
        float(found["rate"].mean()), abs=1e-6
    )


@pytest.mark.parametrize("kind", [programs.Conditional, programs.Incomplete])
def test_covariates_are_given_to_model_and_guide(kind):
    program, batch = with_covariates(kind, 800)
    found = ask(program, batch).groups["latents"]
    evidence = batch.call(program.evidence).detach().numpy()
    assert np.allclose(found["rate"] + found["distortion"], -evidence)
    # z does not depend on covariates: exact posteriors average to its prior.
    assert float(found["marginal_kl"]) == pytest.approx(0, abs=0.15)


def test_distortion_is_of_all_observed_sites():
    program, batch = with_covariates(programs.Labelled, 200)
    found = ask(program, batch).groups["latents"]["distortion"].values
    terms = Posterior(program, batch).terms(DRAWS, derived_seed(0, "rate"))  # the same draws
    by_hand = -(terms.likelihood["x"] + terms.likelihood["y"]).mean(0)
    assert np.allclose(found, by_hand)


def test_information_is_at_most_the_logarithm_of_the_data():
    program = ppca((100.0, 100.0, 100.0))
    found = ask(program, draw(program, 100)).groups["latents"]
    assert float(found["mutual_information"]) == pytest.approx(math.log(100), abs=0.01)


def test_units_collapse_exactly_where_the_eigenvalue_is_below_the_noise():
    torch.manual_seed(0)
    x = torch.randn(2000, 6, dtype=torch.float64) * torch.tensor([4.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    program = LinearGaussian((6,), 3)
    program.set_maximum_likelihood(x)
    with torch.no_grad():
        program.loading[:, 2] = 0  # as if its eigenvalue were that of the noise
    program.set_exact_guide()
    answer = ask(program, x)
    assert answer.verdict.grade == "caution"
    assert answer.groups["latents"]["collapsed"].values.tolist() == [False, False, True]
    assert answer.verdict.value == 2
    assert "z[2]" in answer.verdict.meaning


def test_a_guide_that_is_its_prior_fails():
    class Collapsed(programs._Variant):
        def guide(self, x):
            pyro.module(f"minimal-{id(self)}", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0 * self.encoder(x)[:, :2], 1.0).to_event(1))

    answer = ask(Collapsed(), torch.randn(300, 5))
    assert answer.verdict.grade == "fail"
    assert answer.verdict.value == 0
    # Draws of the mean vary by 1 / S although the mean does not: that is taken away.
    assert (answer.groups["latents"]["activity"] < 3 / DRAWS / 300**0.5).all()


@pytest.mark.parametrize(
    ("name", "units", "informed"),
    [("TwoLayers", 4, True), ("Discrete", 1, True), ("Flow", 2, False), ("Planar", 2, False)],
)
def test_every_kind_of_guide_has_units(name, units, informed):
    torch.manual_seed(0)
    found = ask(getattr(programs, name)(), torch.randn(120, 5)).groups["latents"]
    assert found["kl"].shape == (120, units)
    assert np.isfinite(found["kl"]).all()
    assert ("mutual_information" in found) == informed


@pytest.mark.parametrize("name", ["LogNormal", "Gamma", "Dirichlet", "OneHot", "Mixture"])
def test_a_guide_that_is_its_prior_has_no_kl_whatever_the_prior(name):
    def law(x):
        ones = x.new_ones(3)
        return {
            "LogNormal": lambda: dist.LogNormal(x.new_zeros(3), 0.5).to_event(1),
            "Gamma": lambda: dist.Gamma(2 * ones, ones).to_event(1),
            "Dirichlet": lambda: dist.Dirichlet(ones),
            "OneHot": lambda: dist.OneHotCategorical(ones / 3),
            "Mixture": lambda: dist.MixtureSameFamily(
                dist.Categorical(x.new_ones(3, 2)),
                dist.Normal(x.new_tensor([-2.0, 2.0]).expand(3, 2), 1.0),
            ).to_event(1),
        }[name]()

    class Program(programs.Minimal):
        def __init__(self):
            super().__init__()
            self.decoder = torch.nn.Linear(3, 5)

        def model(self, x):
            pyro.module(f"law-{id(self)}", self)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", law(x))
                pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

        def guide(self, x):
            pyro.module(f"law-{id(self)}", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", law(x + 0 * self.encoder(x).sum()))

    torch.manual_seed(0)
    answer = ask(Program(), torch.randn(120, 5))
    kl = answer.groups["latents"]["kl"].values
    if name in ("Dirichlet", "OneHot"):
        assert np.isnan(kl).all()  # units depend on each other: there is no KL by unit
    else:
        assert np.abs(kl).max() < 1e-5
        assert answer.groups["latents"]["collapsed"].all()
    assert answer.groups["latents"]["rate"].values == pytest.approx(0, abs=1e-4)
    assert answer.verdict.grade == "fail"


def test_a_kl_without_closed_form_is_estimated():
    # LogNormal against Gamma, one unit: the KL is what the rate says.
    torch.manual_seed(0)
    found = ask(programs.Positive(), torch.distributions.Exponential(1.0).sample((300, 1)))
    found = found.groups["latents"]
    error = found["rate"].std() / 300**0.5 + 0.01
    assert abs(found["kl"].mean() - found["rate"].mean()) < 4 * error


def test_activity_does_not_depend_on_the_units_of_z():
    torch.manual_seed(0)
    x, program = torch.randn(200, 5), programs.Rescaled()
    small = programs.Rescaled(unit=1e-3)
    small.load_state_dict(program.state_dict())
    one, other = ask(program, x), ask(small, x)
    assert one.verdict.grade == other.verdict.grade == "pass"
    names = ("activity", "kl")
    for name in names:
        assert np.allclose(*(a.groups["latents"][name] for a in (one, other)), rtol=1e-3)


def test_binary_latents_have_their_kl():
    torch.manual_seed(0)
    program, x = programs.Sigmoids(), torch.randn(120, 5)
    p = program.encoder(x).sigmoid().detach().numpy()
    exact = p * np.log(2 * p) + (1 - p) * np.log(2 - 2 * p)
    assert np.allclose(ask(program, x).groups["latents"]["kl"], exact, atol=1e-5)


def test_too_few_data_say_nothing():
    with pytest.raises(ppl_vae.InputError, match="at least 100"):
        ask(ppca(), draw(ppca(), 99))
