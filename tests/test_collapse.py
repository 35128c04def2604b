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
from ppl_vae.diagnostics.latents import information
from ppl_vae.inference.redraw import redraw
from ppl_vae.models import LinearGaussian
from ppl_vae.models.networks import inverse_positive
from ppl_vae.runtime import derived_seed

from . import programs, tables
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
    exact = 1 - 1 / eigenvalues  # and of the scores: the prior is normal
    error = exact * (2 / 4000) ** 0.5 + exact * (2 / 2000) ** 0.5  # data, and draws of the prior
    assert (np.abs(found["activity"].values - exact) < 4.5 * error).all()
    assert answer.verdict.grade == "pass"
    assert not found["idle"].any()
    # Bins lose some of the information, and add none but for chance.
    told, highest = found["information"].values, 0.5 * np.log(eigenvalues)
    assert (told < highest + 4.5 * found["information_error"].values).all()
    assert (told > 0.7 * highest).all()
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


@pytest.mark.parametrize("kind", [tables.Conditional, tables.Incomplete])
def test_covariates_are_given_to_model_and_guide(kind):
    program, batch = with_covariates(kind, 800)
    found = ask(program, batch).groups["latents"]
    evidence = batch.call(program.evidence).detach().numpy()
    assert np.allclose(found["rate"] + found["distortion"], -evidence)
    # z does not depend on covariates: exact posteriors average to its prior.
    assert float(found["marginal_kl"]) == pytest.approx(0, abs=0.15)


def test_distortion_is_of_all_observed_sites():
    program, batch = with_covariates(tables.Labelled, 200)
    found = ask(program, batch).groups["latents"]["distortion"].values
    terms = Posterior(program, batch).terms(DRAWS, derived_seed(0, "rate"))  # the same draws
    by_hand = -(terms.likelihood["x"] + terms.likelihood["y"]).mean(0)
    assert np.allclose(found, by_hand)


def test_information_is_at_most_the_logarithm_of_the_data():
    program = ppca((100.0, 100.0, 100.0))
    found = ask(program, draw(program, 100)).groups["latents"]
    assert float(found["mutual_information"]) == pytest.approx(math.log(100), abs=0.01)


def test_units_that_the_model_does_not_use_are_no_fault():
    torch.manual_seed(0)
    x = torch.randn(2000, 6, dtype=torch.float64) * torch.tensor([4.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    program = LinearGaussian((6,), 3)
    program.set_maximum_likelihood(x)
    with torch.no_grad():
        program.loading[:, 2] = 0  # as if its eigenvalue were that of the noise
    program.set_exact_guide()
    answer = ask(program, x)
    found = answer.groups["latents"]
    assert answer.verdict.grade == "pass"
    assert found["collapsed"].values.tolist() == [False, False, True]
    assert answer.verdict.value == 2
    assert "the model does not use z[2]" in answer.verdict.meaning
    assert float(found["use"][2]) == pytest.approx(0, abs=1e-9)
    assert not found["ignored"].any()


@pytest.mark.parametrize(
    ("strengths", "ignored", "grade"),
    [
        ((2.0, 2.0), (0,), "caution"),
        ((2.0, 2.0), (0, 1), "fail"),
        ((2.0, 0.0), (0, 1), "fail"),  # the other unit is not used by the model either
        ((2.0, 0.0), (1,), "pass"),
        ((0.0, 0.0), (0, 1), "pass"),
    ],
)
def test_whose_doing_it_is_that_a_unit_is_idle(strengths, ignored, grade):
    program = ppca(strengths)
    x = draw(program, 300)
    with torch.no_grad():
        tril = program.guide_tril.diagonal().clone()
        for unit in ignored:
            program.encoder.weight[unit] = 0.0
            tril[unit] = 1.0
        program.raw_guide_tril.copy_(torch.diag(inverse_positive(tril)))
    answer = ask(program, x)
    found = answer.groups["latents"]
    assert answer.verdict.grade == grade
    faults = [i in ignored and strengths[i] > 0 for i in (0, 1)]
    assert found["ignored"].values.tolist() == faults
    # A step from the model's own conditional brings back what the guide left out.
    gain, error = (found[name].values[faults] for name in ("gain", "gain_error"))
    assert (gain - 3 * error > 1 / 32).all()
    assert (gain < 0.5 * math.log(5) + 4.5 * error).all()  # it knows no more than the posterior
    assert bool(answer.verdict.remedy) == (grade != "pass")


class Parity(torch.nn.Module):
    """Two bits, of which x tells whether they differ, and nothing of either alone."""

    noise = 0.3

    def __init__(self, exact):
        super().__init__()
        self.exact, self.shift = exact, torch.nn.Parameter(torch.zeros(()))

    def model(self, x):
        pyro.module(f"parity-{id(self)}", self)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(x.new_full((), 0.5)))
            b = pyro.sample("b", dist.Bernoulli(x.new_full((), 0.5)))
            mean = (a - b).abs() + self.shift
            pyro.sample("x", dist.Normal(mean[..., None], self.noise).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"parity-{id(self)}", self)
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(x.new_full((), 0.5) + 0 * self.shift))
            odds = (x[:, 0] - 0.5) / self.noise**2  # log odds that they differ
            logits = torch.where(a == 1, -odds, odds) if self.exact else 0 * odds
            pyro.sample("b", dist.Bernoulli(logits=logits))


@pytest.mark.parametrize(("exact", "grade"), [(True, "pass"), (False, "fail")])
def test_units_that_only_tell_together(exact, grade):
    program = Parity(exact)
    x = ppl_vae.prior_predictive(program, (1,), 300).x
    answer = ask(program, x)
    found = answer.groups["latents"]
    assert found["idle"].all()  # of each alone the data tell nothing
    assert (found["use"] > 0.4).all()
    assert (found["gain"] < 4.5 * found["gain_error"]).all()
    assert answer.verdict.grade == grade


@pytest.mark.slow
@pytest.mark.parametrize(("exact", "grade"), [(True, "pass"), (False, "fail")])
def test_units_that_share_one_direction(exact, grade):
    # x = sum of 55 units + noise: x tells 1 / 110 nats of each, though given the others much more.
    program = LinearGaussian((1,), 55)
    with torch.no_grad():
        program.loading.fill_(1.0)
    program.set_exact_guide()
    if not exact:
        with torch.no_grad():
            program.encoder.weight.zero_()
            program.raw_guide_tril.copy_(torch.diag(inverse_positive(torch.ones(55))))
    answer = ask(program, draw(program, 100))
    assert answer.verdict.grade == grade
    assert (answer.groups["latents"]["information"] < 0.02).all()


class Square(torch.nn.Module):
    """x ~ N(z^2, 0.3): the posterior is symmetric about 0; the guide is exact on a fine grid."""

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.register_buffer("grid", torch.linspace(-4, 4, 160, dtype=torch.float64))

    def model(self, x):
        pyro.module(f"square-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal((z**2)[..., None], 0.3).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"square-{id(self)}", self)
        z = self.grid
        log_p = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z**2, 0.3).log_prob(x)
        with pyro.plate("data", len(x)):
            kernels = dist.Normal(z + 0 * self.shift, 0.02)
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=log_p), kernels))


def test_a_posterior_that_is_symmetric_has_not_collapsed():
    program = Square()
    answer = ask(program, ppl_vae.prior_predictive(program, (1,), 200, seed=0).x.double())
    found = answer.groups["latents"]
    assert float(found["activity"][0]) < 0.02  # its mean is 0 for every x
    assert float(found["information"][0]) > 0.5
    assert answer.verdict.grade == "pass"
    assert answer.verdict.value == 1


class HeavyTailed(torch.nn.Module):
    """log z ~ N(0, 5), x ~ N(log z, 5): the prior's variance is e^50, and the guide exact."""

    spread = 5.0

    def __init__(self):
        super().__init__()
        self.shift = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def model(self, x):
        pyro.module(f"heavy-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(x.new_zeros(()), self.spread))
            pyro.sample("x", dist.Normal(z.log()[..., None], self.spread).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"heavy-{id(self)}", self)
        with pyro.plate("data", len(x)):
            scale = self.spread * math.sqrt(0.5) + 0 * self.shift
            pyro.sample("z", dist.LogNormal(x[:, 0] / 2, scale))


def test_a_prior_with_heavy_tails_has_an_activity():
    program = HeavyTailed()
    answer = ask(program, ppl_vae.prior_predictive(program, (1,), 1000, seed=0).x.double())
    # Ranks do not change under the logarithm: as for normals, Var of the mean is a half.
    error = 0.5 * ((2 / 1000) ** 0.5 + (2 / 2000) ** 0.5)
    activity = answer.groups["latents"]["activity"]
    assert float(activity[0]) == pytest.approx(0.5, abs=4.5 * error)
    assert answer.verdict.grade == "pass"


def test_a_gibbs_step_leaves_an_exact_posterior_as_it_is():
    program = ppca((2.0, 1.0))
    posterior = Posterior(program, draw(program, 40))
    chosen = torch.tensor([True, False])
    with posterior.evaluation_mode(0):
        before = posterior.sample(2000)
        drawn, use, has_children = redraw(posterior, before, "z", chosen, 8)
    exact = program.posterior(posterior.batch.x)
    after, size = drawn["z"], 2000 * 40
    standard = (after - exact.mean)[..., 0] / exact.stddev[..., 0]
    assert abs(standard.mean()) < 4.5 * size**-0.5
    assert abs(standard.var() - 1) < 4.5 * (2 / size) ** 0.5
    assert torch.equal(after[..., 1], before["z"][..., 1])
    assert 0.3 < (after[..., 0] != before["z"][..., 0]).double().mean() < 1
    # What it says of the unit is at most the KL of its conditional posterior to the prior.
    highest = 0.5 * (exact.stddev**2 + exact.mean**2 - 1 - 2 * exact.stddev.log())[:, 0]
    assert (use <= highest + 0.05).all()
    assert use.mean() > 0.5 * highest.mean()
    assert not has_children


def test_information_without_any_is_zero_by_chance():
    torch.manual_seed(0)
    counts = torch.distributions.Multinomial(100, torch.tensor([0.01, 0.09, 0.4, 0.5]))
    told, error = information(counts.sample((200, 50)).int())
    standard = told / error
    assert abs(standard.mean()) < 4.5 / 50**0.5
    assert 0.6 < standard.std() < 1.4


def test_a_guide_that_is_its_prior_fails():
    class Collapsed(programs._Variant):
        def guide(self, x):
            pyro.module(f"minimal-{id(self)}", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(0 * self.encoder(x)[:, :2], 1.0).to_event(1))

    torch.manual_seed(0)
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
            with torch.no_grad():
                self.decoder.weight.mul_(5)  # so that the model uses z

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
