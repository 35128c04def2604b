"""Guides refined for each data point by itself: what is the best of a family is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae
from ppl_vae import InputError, Posterior
from ppl_vae.models import LinearGaussian

from . import conjugate, programs


@pytest.fixture(scope="module")
def correlated():
    """Probabilistic PCA whose posterior's units are correlated, with a guide that is off."""
    torch.manual_seed(3)
    ppca = LinearGaussian((6,), latent_dim=3)
    with torch.no_grad():
        ppca.loading.mul_(3)
        ppca.set_exact_guide()
        ppca.encoder.bias.add_(0.3)
    x = ppl_vae.prior_predictive(ppca, (6,), 40, seed=1).x
    return ppca, x


def gap(ppca, posterior):
    """log p(x) - ELBO of each data point; exact, where all weights of a data point agree."""
    return (ppca.evidence(posterior.batch.x) - posterior.log_weight(4000, seed=5).mean(0)).detach()


def test_a_full_guide_becomes_the_posterior(correlated):
    ppca, x = correlated
    refined = Posterior(ppca, x).refine("full")
    exact = ppca.posterior(x)
    assert gap(ppca, refined).abs().max() < 1e-4
    guide = refined.program
    assert torch.allclose(guide.loc, exact.mean, atol=1e-2)
    assert torch.allclose(guide.factor @ guide.factor.mT, exact.covariance_matrix, atol=1e-2)


def test_a_diagonal_guide_becomes_the_best_one(correlated):
    # 1/2 (sum log P_ii - log det P), P the posterior's precision, and scales 1 / sqrt(P_ii).
    ppca, x = correlated
    refined = Posterior(ppca, x).refine("diagonal")
    precision = ppca.posterior(x).precision_matrix.detach()
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    best = 0.5 * (diagonal.log().sum(-1) - precision.logdet())
    assert best.min() > 0.01
    found = gap(ppca, refined)
    assert (found.mean() - best.mean()).abs() < 4 * best.mean() / 40**0.5 / 4000**0.5 + 0.003
    assert torch.allclose(refined.program.factor, diagonal.rsqrt(), rtol=0.05)


def test_the_model_stays_as_it_is_to_the_bit(correlated):
    ppca, x = correlated
    before = {name: value.clone() for name, value in ppca.state_dict().items()}
    for family in ("own", "diagonal", "full"):
        Posterior(ppca, x).refine(family, steps=3)
    assert all(torch.equal(before[name], value) for name, value in ppca.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in ppca.parameters())


def test_a_refined_posterior_can_be_split_and_drawn_from(correlated):
    ppca, x = correlated
    refined = Posterior(ppca, x).refine("full", steps=50)
    assert torch.equal(refined[3:5].program.loc, refined.program.loc[3:5])
    assert refined.draw(7)["z"].shape == (7, 40, 3)
    whole, part = (p.draw(4000, seed=2)["z"].mean(0) for p in (refined, refined[10:12]))
    assert torch.allclose(whole[10:12], part, atol=0.1)


@pytest.mark.parametrize("family", ["full", "own"])
def test_blocks_do_not_matter(correlated, family, monkeypatch):
    ppca, x = correlated
    x = x[:15]
    together = Posterior(ppca, x).refine(family)
    monkeypatch.setattr("ppl_vae.programs.scoring.BLOCK_ELEMENTS", 6 * 4 * 8)
    apart = Posterior(ppca, x).refine(family)
    assert (gap(ppca, together) - gap(ppca, apart)).abs().max() < 0.02


class TwoSites(nn.Module):
    """z1, and z2 given z1: jointly normal with x, so that the posterior is known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def model(self, x):
        pyro.module("two", self)
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Normal(x.new_zeros(()), 1.0))
            second = pyro.sample(
                "second", dist.Normal(first[..., None], 0.7).expand_by([]).to_event(1)
            )
            pyro.sample(
                "x", dist.Normal(self.weight * second + first[..., None], 0.5).to_event(1), obs=x
            )

    def guide(self, x):
        pyro.module("two", self)
        with pyro.plate("data", len(x)):
            pyro.sample("second", dist.Normal(0 * x + 0.1 * self.weight, 1.0).to_event(1))
            pyro.sample("first", dist.Normal(0 * x[:, 0], 1.0))


def test_sites_that_depend_on_each_other_are_refined_jointly():
    program, x = TwoSites(), torch.randn(30, 1, dtype=torch.float64)
    w = program.weight.item()
    load = torch.tensor([1.0 + w, w]).double()  # of first, and of second's own noise
    noise = torch.diag(torch.tensor([1.0, 0.7**2]).double())
    variance = load @ noise @ load + 0.5**2
    evidence = dist.Normal(0.0, variance.sqrt()).log_prob(x[:, 0])
    refined = Posterior(program, x).refine("full")
    assert (refined.log_weight(200) - evidence).abs().max() < 0.05  # all weights agree: exact
    diagonal = Posterior(program, x).refine("diagonal").log_weight(4000).mean(0)
    # The posterior's precision in (first, second), where second ~ N(first, 0.49).
    prior = torch.tensor([[1 + 1 / 0.49, -1 / 0.49], [-1 / 0.49, 1 / 0.49]]).double()
    seen = torch.tensor([1.0, w]).double() / 0.5
    precision = prior + seen.outer(seen)
    best = 0.5 * (precision.diagonal().log().sum() - precision.logdet())
    assert best > 0.05
    assert torch.allclose((evidence - diagonal).mean(), best, atol=0.01)


@pytest.mark.parametrize("name", ["proportion", "boxes", "mixture of vectors"])
def test_latents_of_bounded_support_are_refined_in_free_coordinates(name):
    program = conjugate.PROGRAMS[name]()
    x = ppl_vae.prior_predictive(
        program,
        (conjugate.SIZES[next(k for k in conjugate.SIZES if name.startswith(k))],),
        30,
        seed=4,
    ).x
    refined = Posterior(program, x).refine("full")
    log_weight = refined.log_weight(4000).double()
    bound = log_weight.logsumexp(0) - math.log(4000)
    assert (bound - program.log_p(x)).abs().mean() < 0.03
    assert (log_weight.mean(0) <= program.log_p(x) + 0.05).all()


class Fold(nn.Module):
    """x = |z| + noise; the guide knows one of the two modes."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def model(self, x):
        pyro.module("fold", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.seen(z), 0.1).to_event(1), obs=x)

    def seen(self, z):
        return z.abs()

    def guide(self, x):
        pyro.module("fold", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + self.shift, 0.1).to_event(1))

    def log_p(self, x):
        """Exact for x far from the fold."""
        return math.log(2) + dist.Normal(0.0, 1.01**0.5).log_prob(x[:, 0])


def test_more_starts_find_a_better_mode():
    program, x = Fold(), torch.full((10, 1), 1.0, dtype=torch.float64)
    program.shift.data.fill_(-1.0)  # between the modes: each start falls into one
    one = Posterior(program, x).refine("diagonal", starts=3)
    assert ((one.program.loc.abs() - 0.99).abs() < 0.05).all()


@pytest.mark.parametrize(
    ("program", "arguments", "words"),
    [
        (lambda: LinearGaussian((5,)).float(), {"family": "wide"}, "family must be one of"),
        (lambda: LinearGaussian((5,)).float(), {"steps": 0}, "steps must be"),
        (lambda: LinearGaussian((5,)).float(), {"starts": 0}, "starts must be"),
        (programs.Discrete, {}, "discrete"),
    ],
)
def test_what_cannot_be_refined_is_refused(program, arguments, words):
    with pytest.raises(InputError, match=words):
        Posterior(program(), torch.randn(4, 5)).refine(**arguments)


def test_an_angle_is_left_to_its_own_family():
    x = torch.zeros(4, 1, dtype=torch.float64)
    with pytest.raises(InputError, match="is an angle.*use the family own"):
        Posterior(conjugate.Angle(), x).refine("full")


class Spoilt(Fold):
    """The gradient of the first data point is not a number."""

    def seen(self, z):
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient.index_fill(-2, torch.tensor([0]), torch.nan))
        return z.abs()


def test_one_data_point_without_a_gradient_does_not_stop_the_others():
    program = Spoilt()
    program.shift.data.fill_(0.2)
    x = torch.tensor([[0.8], [1.2]], dtype=torch.float64)
    refined = Posterior(program, x).refine("diagonal").program
    assert torch.allclose(refined.loc[1], x[1] / 1.01, atol=0.02)
    assert torch.allclose(refined.loc[0], x[0] + 0.2, atol=0.1)  # where the guide is
    with pytest.raises(InputError, match="not finite near the guide, for any"):
        Posterior(program, x[:1]).refine("diagonal")


def test_a_point_mass_becomes_the_posterior(correlated):
    ppca, x = correlated
    guide = ppca.guide

    def point(x):
        with pyro.plate("data", len(x)):
            return pyro.sample("z", dist.Delta(ppca.encoder(x)[..., :3], event_dim=1))

    ppca.guide = point
    try:
        refined = Posterior(ppca, x).refine("full")
    finally:
        ppca.guide = guide
    assert gap(ppca, refined).abs().max() < 1e-3


@pytest.mark.parametrize("units", [1, 30, 120])
def test_any_number_of_units_takes_as_many_steps(units):
    torch.manual_seed(7)
    ppca = LinearGaussian((130,), latent_dim=units)
    ppca.set_exact_guide()
    with torch.no_grad():
        ppca.encoder.bias.add_(0.3)
    x = ppl_vae.prior_predictive(ppca, (130,), 6, seed=1).x
    before, refined = Posterior(ppca, x), Posterior(ppca, x).refine("full")
    assert gap(ppca, refined).abs().max() < 0.002 * gap(ppca, before).min()


def test_a_full_guide_is_a_start_for_a_diagonal_one(correlated):
    ppca, x = correlated
    again = Posterior(ppca, x[:5]).refine("full").refine("diagonal")
    precision = ppca.posterior(x[:5]).precision_matrix.detach()
    best = precision.diagonal(dim1=-2, dim2=-1).rsqrt()
    assert torch.allclose(again.program.factor, best, rtol=0.05)


def test_many_data_with_many_units_are_refined():
    ppca = LinearGaussian((60,), latent_dim=50)
    x = torch.randn(1800, 60, dtype=torch.float64)  # 18 million numbers at 200 draws
    assert Posterior(ppca, x).refine("diagonal", steps=1).program.loc.shape == (1800, 50)
