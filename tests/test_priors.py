"""Priors that PyTorch wraps, or that have no pathwise draws: what is exact of them."""

import math

import pyro.distributions as dist
import pytest
import torch

import ppl_vae
from ppl_vae import Annealing, InputError, Posterior
from ppl_vae.inference import nuts
from ppl_vae.inference.nuts import sample_posterior
from ppl_vae.programs.supports import fixed_support
from ppl_vae.storage.arviz_io import chain_statistics

from .conjugate import PROGRAMS, SIZES, Known

every = pytest.mark.parametrize("name", PROGRAMS)


def program_and_data(name, size):
    program = PROGRAMS[name]()
    return program, ppl_vae.prior_predictive(program, (SIZES[name.split()[0]],), size, seed=1).x


def check_mean_is_one(ratio, most):
    """Of ratios of shape (draws, N) whose mean is 1: within three standard errors, over data."""
    mean = ratio.mean(0)
    error = mean.std() / len(mean) ** 0.5
    assert error < most
    assert abs(mean.mean() - 1) < 3 * error + 1e-9


@every
@pytest.mark.parametrize("start", ["prior", "guide"])
def test_annealed_weights_have_the_evidence_as_their_mean(name, start):
    program, x = program_and_data(name, 100)
    annealing = Annealing(chains=8, temperatures=8, leapfrog_steps=3, start=start)
    found = ppl_vae.anneal(program, x, annealing)
    check_mean_is_one((found.log_weight - program.log_p(x)[None].detach()).exp(), most=0.15)


@every
def test_importance_weights_have_the_evidence_as_their_mean(name):
    program, x = program_and_data(name, 100)
    log_weight = Posterior(program, x).log_weight(draws=200)
    log_p = program.log_p(x).detach()
    if name == "proportion":  # its guide is exact
        torch.testing.assert_close(log_weight, log_p.expand_as(log_weight))
    else:
        check_mean_is_one((log_weight - log_p).exp(), most=0.15)


@every
def test_the_evidence_lies_between_the_bounds(name):
    program = PROGRAMS[name]()
    annealing = Annealing(chains=8, temperatures=10, leapfrog_steps=3)
    x, lower, upper = ppl_vae.bidirectional(program, (SIZES[name.split()[0]],), 50, annealing)
    log_p = program.log_p(x).detach()
    for slack in (log_p - lower.bound, -upper.bound - log_p):
        assert slack.mean() > -3 * slack.std() / 50**0.5


def check_means_of_nuts(name):
    program, x = program_and_data(name, 6)
    z = sample_posterior(Posterior(program, x), seed=0)["z"]
    z = z if z.dim() > 3 else z[..., None]  # (draw, chain, datum, unit)
    ess = torch.as_tensor(chain_statistics(z.transpose(0, 1).numpy())["ess_mean"])
    error = z.flatten(0, 1).std(0) / ess**0.5
    exact = program.mean(x).detach().reshape(error.shape)
    # Of 12 means at once less than one in a thousand is off by four standard errors.
    assert ((z.flatten(0, 1).mean(0) - exact).abs() < 4 * error).all()


def test_nuts_has_the_means_of_the_posterior(monkeypatch):
    for setting, fewer in (("WARMUP", 40), ("DRAWS", 60), ("TREE_DEPTH", 3)):
        monkeypatch.setattr(nuts, setting, fewer)
    check_means_of_nuts("mixture of vectors")


def test_nuts_has_the_directions_of_the_posterior(monkeypatch):
    for setting, fewer in (("WARMUP", 40), ("DRAWS", 60), ("TREE_DEPTH", 3)):
        monkeypatch.setattr(nuts, setting, fewer)
    program, x = program_and_data("direction", 6)
    z = sample_posterior(Posterior(program, x), seed=0)["z"]
    assert (z.abs() <= math.pi).all()
    direction, concentration = program.exact(x)
    off = z - direction
    # Of a von Mises distribution E sin is 0, and E cos is I1 / I0.
    length = torch.special.i1(concentration) / torch.special.i0(concentration)
    for found, exact in ((off.sin(), 0 * length), (off.cos(), length)):
        ess = torch.as_tensor(
            chain_statistics(found[..., None].transpose(0, 1).numpy())["ess_mean"]
        )
        error = found.flatten(0, 1).std(0) / ess[:, 0] ** 0.5
        assert ((found.flatten(0, 1).mean(0) - exact).abs() < 4 * error).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in PROGRAMS if hasattr(PROGRAMS[n](), "mean")])
def test_nuts_in_full_has_the_means_of_the_posterior(name):
    check_means_of_nuts(name)


class Components(Known):
    def prior(self, x):
        kernels = dist.Uniform(torch.zeros(2).double(), torch.tensor([1.0, 2.0]).double())
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(2).double()), kernels)

    def posterior(self, x):
        return dist.Beta(2.0 + self.zero, x.new_full((len(x),), 2.0))


class Rates(Known):
    """Of a discrete mixture: counts, as a latent."""

    def prior(self, x):
        kernels = dist.Poisson(torch.tensor([1.0, 4.0]).double())
        return dist.MixtureSameFamily(dist.Categorical(torch.ones(2).double()), kernels)

    def posterior(self, x):
        return dist.Poisson(x.new_full((len(x),), 2.0) + self.zero)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (Components, "latent site 'z' has a support that depends on the component of a mixture"),
        (Rates, "latent site 'z' is discrete.*: use the importance-weighted estimator"),
    ],
)
def test_what_cannot_be_moved_is_refused_by_name(kind, problem):
    program, x = kind(), torch.ones(4, 1).double()
    for move in (ppl_vae.anneal, lambda p, x: sample_posterior(Posterior(p, x), 0)):
        with pytest.raises(InputError, match=problem):
            move(program, x)


def test_mixtures_of_mixtures_have_the_support_of_their_components():
    kernels = dist.Uniform(0.0, torch.full((7, 3, 2), 2.0))
    inner = dist.MixtureSameFamily(dist.Categorical(torch.ones(7, 3, 2)), kernels)
    outer = dist.MixtureSameFamily(dist.Categorical(torch.ones(7, 3)), inner)
    support = fixed_support("z", outer, event_dim=0)
    assert support.upper_bound.shape == ()
    assert support.upper_bound == 2
