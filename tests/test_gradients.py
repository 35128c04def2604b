"""Estimators of one gradient: their means, their variances, and the test that compares them."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence
from torch.nn.functional import softplus

from ppl_vae import InputError, compare_gradients
from ppl_vae.models import VAE, Autoencoder, LinearGaussian
from ppl_vae.objectives.gradients import ESTIMATORS, SCORE_FUNCTIONS, Gradient
from ppl_vae.objectives.score_function import ScoreFunctionELBO

from .programs import Discrete, LearnedFlow, Minimal, Planar, Sigmoids, TwoLayers, WithDropout

X = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))


def references(found):
    return {gradient.target: gradient for gradient in reversed(found.values())}


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, WithDropout])
def test_estimators_of_one_target_agree(kind):
    found = compare_gradients(kind(), X, particles=3, repeats=200)
    assert found.keys() == ESTIMATORS.keys()
    for gradient in found.values():
        # Of 1,000 such comparisons less than one would come out below, were the means the same.
        assert gradient.agreement(references(found)[gradient.target]) > 1e-3


def test_means_are_the_exact_gradient():
    program = LinearGaussian((5,), latent_dim=2)
    x = X.double()
    found = compare_gradients(program, x, particles=3, repeats=300)
    q = MultivariateNormal(program.encoder(x), scale_tril=program.guide_tril)
    elbo = (program.evidence(x) - kl_divergence(q, program.posterior(x))).mean()
    exact = torch.autograd.grad(
        elbo, [program.raw_guide_tril, program.encoder.weight, program.encoder.bias]
    )
    names = dict(program.named_parameters())
    used = [n for n in names if n.startswith(("encoder", "raw_guide"))]
    by_name = dict(zip(["raw_guide_tril", "encoder.weight", "encoder.bias"], exact, strict=True))
    flat = torch.cat([by_name[n].flatten() for n in used])
    for name, (target, _) in ESTIMATORS.items():
        if target == "ELBO":
            gradient = found[name]
            stderr = (gradient.variance / 300).sqrt()
            assert ((gradient.mean - flat).abs() <= 4.5 * stderr + 1e-12).all(), name


def by_enumeration(program, x):
    """log w and log q of all four states of two binary units, each of shape (4 states, N)."""
    states = torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).double()
    z = states[:, None].expand(-1, len(x), 2)
    log_q = Bernoulli(logits=program.encoder(x)).log_prob(z).sum(-1)
    log_p = Normal(program.decoder(z), 1.0).log_prob(x).sum(-1) + 2 * math.log(0.5)
    return log_p - log_q, log_q


def test_of_binary_latents_score_functions_have_the_exact_mean():
    torch.manual_seed(0)
    program, x, repeats = Sigmoids().double(), X[:4].double(), 300
    found = compare_gradients(program, x, particles=2, repeats=repeats)
    assert found.keys() == SCORE_FUNCTIONS.keys()
    log_w, log_q = by_enumeration(program, x)
    pair = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)  # of two draws
    exact = {
        "ELBO": (log_q.exp() * log_w).sum(0).mean(),
        "importance-weighted bound": ((log_q[:, None] + log_q[None]).exp() * pair)
        .sum((0, 1))
        .mean(),
    }
    for name, gradient in found.items():
        parameters = [program.encoder.weight, program.encoder.bias]
        slopes = torch.autograd.grad(exact[gradient.target], parameters, retain_graph=True)
        flat = torch.cat([slope.flatten() for slope in slopes])
        error = (gradient.variance / repeats).sqrt()
        assert ((gradient.mean - flat).abs() <= 4.5 * error).all(), name
    plain, baseline = (found[n] for n in list(found)[:2])
    assert baseline.total_variance < plain.total_variance


def test_of_classes_the_baseline_takes_variance_away():
    found = compare_gradients(Discrete(), X, particles=3, repeats=40)
    plain, baseline = (found[n] for n in list(found)[:2])
    assert baseline.total_variance < plain.total_variance
    assert baseline.agreement(plain) > 1e-3


@pytest.mark.parametrize("importance_weighted", [False, True])
def test_the_loss_of_score_functions_is_the_bound(importance_weighted):
    torch.manual_seed(0)
    program, x = Sigmoids().double(), X[:4].double()
    loss = ScoreFunctionELBO(2, importance_weighted)
    found = torch.tensor([-loss.loss(program.model, program.guide, x) for _ in range(200)])
    log_w, log_q = by_enumeration(program, x)
    pair = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)
    exact = (log_q.exp() * log_w).sum()
    if importance_weighted:
        exact = ((log_q[:, None] + log_q[None]).exp() * pair).sum()
    assert abs(found.mean() - exact) < 4 * found.std() / 200**0.5
    with pytest.raises(InputError, match="num_particles must be an integer of at least 2, got 1"):
        ScoreFunctionELBO(1)


def with_cache(loc, scale):
    """A transform that remembers what it was called with, and with it the way to its draws."""
    affine = transforms.AffineTransform(loc, scale, cache_size=1)
    return dist.TransformedDistribution(dist.Normal(torch.zeros_like(loc), 1.0), [affine])


PRIORS = {
    "half-normal": (lambda z: dist.HalfNormal(z + 1), lambda a, b: dist.HalfNormal(b)),
    "half-Cauchy": (lambda z: dist.HalfCauchy(z + 1), lambda a, b: dist.LogNormal(a, b / 3)),
    "Gumbel": (lambda z: dist.Gumbel(z, 1.0), dist.Gumbel),
    "Weibull": (
        lambda z: dist.Weibull(z + 1, 2.0),
        lambda a, b: dist.Weibull(softplus(a) + 0.5, b + 1),
    ),
    "uniform": (
        lambda z: dist.Uniform(z, z + 1),
        lambda a, b: dist.Beta(softplus(a) + 1, b + 1),
    ),
    "mixture": (
        lambda z: dist.MixtureSameFamily(
            dist.Categorical(z.new_ones(2, 3)), dist.Normal(z.new_zeros(2, 3), 1.0)
        ),
        with_cache,
    ),
}


class Under(Minimal):
    def __init__(self, prior, posterior):
        super().__init__()
        self.prior, self.posterior = prior, posterior

    def model(self, x):
        pyro.module(f"under-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(x.new_zeros(2)).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"under-{id(self)}", self)
        with pyro.plate("data", len(x)):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("z", self.posterior(loc, softplus(raw) + 0.5).to_event(1))


@pytest.mark.parametrize("name", PRIORS)
def test_estimators_agree_under_other_priors(name):
    torch.manual_seed(0)
    found = compare_gradients(Under(*PRIORS[name]), X, particles=2, repeats=30)
    for gradient in found.values():
        assert gradient.agreement(references(found)[gradient.target]) > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_score_functions_agree_with_paths(weighted):
    torch.manual_seed(0)
    program = Under(*PRIORS["Gumbel"])
    usual = compare_gradients(program, X, particles=3, repeats=50)
    name = "reparameterized, K draws" if weighted else "reparameterized"
    loss = ScoreFunctionELBO(3, importance_weighted=weighted)
    gradients = []
    for _ in range(50):
        program.zero_grad()
        loss.loss_and_grads(program.model, program.guide, X)
        gradients.append(-torch.cat([p.grad.flatten() for p in program.encoder.parameters()]))
    found = torch.stack(gradients).double() / len(X)
    error = ((found.var(0) + usual[name].variance) / 50).sqrt()
    assert ((found.mean(0) - usual[name].mean).abs() < 4.5 * error).all()


def test_sticking_the_landing_and_nothing_else_has_no_variance_at_the_posterior():
    program = LinearGaussian((5,), latent_dim=2)
    program.set_exact_guide()
    found = compare_gradients(program, X.double(), repeats=10)
    for name, gradient in found.items():
        stuck = name.startswith(("sticking", "doubly"))
        assert (gradient.total_variance < 1e-20) == stuck
        assert gradient.agreement(references(found)[gradient.target]) > 1e-3


def test_the_score_function_is_the_noisiest():
    found = compare_gradients(Minimal(), X, repeats=50)
    noisiest = max(found, key=lambda name: found[name].total_variance)
    assert noisiest == "score function"
    assert found["score function"].signal_to_noise < found["reparameterized"].signal_to_noise


def gradient_of(projections):
    return Gradient("ELBO", projections.mean(0), projections.var(0), projections)


@pytest.mark.parametrize("repeats", [2, 3, 10, 100])
def test_agreement_has_its_error_rate(repeats):
    alarms = 0
    for _ in range(400):
        first, second = torch.randn(2, repeats, 16, dtype=torch.float64)
        alarms += gradient_of(first).agreement(gradient_of(3 * second)) < 0.05
    assert alarms <= 36  # 20 expected at most; more than 36 in 1 of 1,000 tries


def test_agreement_has_power():
    caught = 0
    for _ in range(100):
        first, second = torch.randn(2, 100, 16, dtype=torch.float64)
        caught += gradient_of(first).agreement(gradient_of(second + 0.6)) < 0.05
    assert caught >= 95


def test_equal_constants_agree_and_others_do_not():
    ones = gradient_of(torch.ones(5, 16))
    assert ones.agreement(ones) == 1
    assert ones.agreement(gradient_of(torch.zeros(5, 16))) == 0
    assert ones.signal_to_noise == float("inf")


def test_moments_are_those_of_numpy():
    from ppl_vae.objectives.gradients import _Moments

    vectors = torch.randn(30, 7) + 100
    moments = _Moments(torch.eye(7))
    for vector in vectors:
        moments.add(vector)
    summary = moments.summary("ELBO")
    torch.testing.assert_close(summary.mean, vectors.double().mean(0))
    torch.testing.assert_close(summary.variance, vectors.double().var(0))
    torch.testing.assert_close(summary.projections, vectors.double())


def test_nothing_of_the_program_moves():
    program = Minimal()
    program.encoder.weight.grad = kept = torch.ones_like(program.encoder.weight)
    before = {name: p.detach().clone() for name, p in program.named_parameters()}
    done = []

    def told(share, note):
        done.append(share)

    first, same = (
        compare_gradients(program, X, repeats=3, seed=5, on_progress=told) for _ in range(2)
    )
    assert program.encoder.weight.grad is kept
    assert program.decoder.weight.grad is None
    assert all(torch.equal(p, before[name]) for name, p in program.named_parameters())
    assert all(torch.equal(first[name].mean, same[name].mean) for name in first)
    assert sum(done) == pytest.approx(2)


def test_only_the_guides_parameters_are_meant():
    vae = VAE((5,), latent_dim=2, hidden=(8,), likelihood="gaussian")
    found = compare_gradients(vae, X, repeats=2)
    size = sum(p.numel() for p in vae.encoder.parameters())
    assert all(gradient.mean.shape == (size,) for gradient in found.values())


def test_what_has_no_such_gradient_is_refused():
    with pytest.raises(InputError, match="point mass"):
        compare_gradients(Autoencoder((5,), likelihood="gaussian"), X)
    with pytest.raises(InputError, match="auxiliary site 'u'"):
        compare_gradients(LearnedFlow(), X)
    with pytest.raises(InputError, match="a flow at site 'z' that cannot be inverted"):
        compare_gradients(Planar(), X)
    frozen = Minimal()
    frozen.encoder.requires_grad_(False)
    with pytest.raises(InputError, match="the guide has frozen parameters only"):
        compare_gradients(frozen, X)
    far = X.clone()
    far[3] = 1e25
    with pytest.raises(InputError, match="gradient is not finite"):
        compare_gradients(Minimal(), far, repeats=2)
    for name in ("particles", "repeats"):
        with pytest.raises(InputError, match=f"{name} must be an integer of at least 2, got 1"):
            compare_gradients(Minimal(), X, **{name: 1})
