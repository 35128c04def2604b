"""Estimators of one gradient: their means, their variances, and the test that compares them."""

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from ppl_vae import InputError, compare_gradients
from ppl_vae.models import VAE, Autoencoder, LinearGaussian
from ppl_vae.objectives.gradients import ESTIMATORS, Gradient

from .programs import Discrete, LearnedFlow, Minimal, Planar, TwoLayers, WithDropout

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
    with pytest.raises(InputError, match="site 'k' cannot be reparameterized"):
        compare_gradients(Discrete(), X)
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
