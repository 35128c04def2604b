"""Likelihoods: normalized, right about their support, and helpful about it."""

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.integrate import quad
from scipy.special import expit

from ppl_vae.models import LIKELIHOODS, VAE, Bernoulli, ContinuousBernoulli, Gaussian, Laplace
from ppl_vae.models.networks import SCALE_FLOOR, inverse_positive, positive


@pytest.mark.parametrize(
    "logit", [-200.0, -80.0, -17.0, -1.0, -0.021, -1e-4, 0.0, 0.019, 3.0, 90.0]
)
def test_continuous_bernoulli_is_normalized(logit):
    density = ContinuousBernoulli((1,))(torch.tensor(logit, dtype=torch.float64))

    def at(x):
        return density.log_prob(torch.tensor(x, dtype=torch.float64)).exp().item()

    mass = quad(at, 0, 0.05, epsabs=1e-12)[0] + quad(at, 0.05, 0.95)[0] + quad(at, 0.95, 1)[0]
    assert abs(mass - 1) < 1e-8


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("gaussian", scipy.stats.norm.logpdf),
        ("laplace", scipy.stats.laplace.logpdf),
        ("bernoulli", lambda x, loc, scale: scipy.stats.bernoulli.logpmf(x, expit(loc))),
    ],
)
def test_densities_are_scipys(name, exact):
    vae = VAE((4,), likelihood=name, **({} if name == "bernoulli" else {"likelihood_scale": 0.7}))
    output = torch.randn(30, 4, dtype=torch.float64)
    x = torch.randn(30, 4, dtype=torch.float64)
    x = (x > 0).double() if name == "bernoulli" else x
    found = vae.double().likelihood(output).log_prob(x)
    np.testing.assert_allclose(found, exact(x.numpy(), output.numpy(), 0.7), rtol=1e-6)


def test_continuous_bernoulli_is_as_accurate_in_float32():
    logits = torch.linspace(-60, 60, 2001)
    x = torch.full_like(logits, 0.3)
    single = ContinuousBernoulli((1,))(logits).log_prob(x)
    double = ContinuousBernoulli((1,))(logits.double()).log_prob(x.double())
    np.testing.assert_allclose(single, double, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("logit", [-80.0, -17.0, -1.0, -0.021, -1e-5, 0.0, 0.019, 3.0, 90.0])
def test_mean_and_draws_of_continuous_bernoulli(logit):
    exact = 0.5 if abs(logit) < 1e-3 else 1 / -np.expm1(-logit) - 1 / logit
    density = ContinuousBernoulli((1,))(torch.full((100_000,), logit))
    assert density.mean[0].item() == pytest.approx(exact, abs=3e-5)
    draws = density.sample()
    assert density.support.check(draws).all()
    assert abs(draws.double().mean().item() - exact) < 4 * draws.std().item() / 100_000**0.5
    # The quantile at u has mass u below it.
    fine = ContinuousBernoulli((1,))(torch.tensor(logit, dtype=torch.float64))
    quantile = fine.icdf(torch.tensor(0.3, dtype=torch.float64)).item()
    grid = torch.linspace(0, quantile, 200_001, dtype=torch.float64)
    mass = torch.trapezoid(fine.log_prob(grid).exp(), grid).item()
    assert mass == pytest.approx(0.3, abs=1e-6)


def test_continuous_bernoulli_has_a_gradient_everywhere():
    logits = torch.linspace(-100, 100, 4001, requires_grad=True)
    ContinuousBernoulli((1,))(logits).log_prob(torch.tensor(0.5)).sum().backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("bernoulli", 0.5, "0.5 lies outside the support of the Bernoulli .* continuous-bernoulli"),
        ("bernoulli", 300.0, "300 lies outside .* for real numbers use gaussian"),
        ("continuous-bernoulli", -1.0, "-1 lies outside .* for real numbers use gaussian"),
        ("continuous-bernoulli", 255.0, "255 lies outside .* levels of grey, store them as bytes"),
        ("gaussian", float("nan"), "nan lies outside .* remove or impute"),
        ("laplace", float("nan"), "nan lies outside .* remove or impute"),
    ],
)
def test_plain_pyro_says_which_likelihood_suits(name, value, advice):
    from pyro.infer import Trace_ELBO

    vae = VAE((3,), likelihood=name)
    x = torch.tensor([[0.0, 1.0, value]])
    with pytest.raises(ValueError, match=advice):
        Trace_ELBO().loss(vae.model, lambda x: vae.guide(torch.zeros(1, 3)), x)


def test_a_complaint_about_shapes_stays_one():
    density = LIKELIHOODS["bernoulli"]((3,))(torch.zeros(3))
    with pytest.raises(ValueError, match="broadcastable"):
        density.log_prob(torch.zeros(4))


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_scale_is_fixed_or_learned(kind):
    assert list(kind((1, 4, 4), scale=0.25).parameters()) == []
    assert kind((1, 4, 4), scale=0.25).scale.item() == 0.25
    assert kind((1, 4, 4)).scale.item() == pytest.approx(1.0)
    assert kind((7,)).scale.shape == (7,)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="likelihood_scale must be a positive number"):
            kind((7,), scale=bad)


def test_unknown_names_and_scales_that_do_not_apply_are_refused():
    with pytest.raises(ValueError, match="likelihood must be one of bernoulli, .*'zipf'"):
        VAE((3,), likelihood="zipf")
    with pytest.raises(ValueError, match="likelihood_scale=.*'bernoulli'"):
        VAE((3,), likelihood_scale=0.1)


def test_a_likelihood_of_ones_own():
    vae = VAE((3,), likelihood=Gaussian((3,), scale=2.0))
    assert vae.likelihood.scale.item() == 2.0


def test_positive_is_positive_finite_and_invertible():
    raw = torch.tensor([-1e30, -50.0, 0.0, 50.0, 1e30])
    assert (positive(raw) >= SCALE_FLOOR).all()
    assert positive(raw).isfinite().all()
    scale = torch.tensor([2e-4, 0.1, 1.0, 100.0], dtype=torch.float64)
    np.testing.assert_allclose(positive(inverse_positive(scale)), scale, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 3, 99, 100, 101, 784, 12_288])
@pytest.mark.parametrize("scale", [0.01, 3.0, 1000.0])
def test_a_bernoulli_image_is_the_sum_of_its_pixels(dim, scale):
    logits = scale * torch.randn(4, 6, dim, dtype=torch.float64)
    x = torch.rand(6, dim, dtype=torch.float64)
    x[:3] = x[:3].round()
    plain = x * logits - torch.nn.functional.softplus(logits)
    whole = Bernoulli((dim,))(logits).to_event(1)
    whole._validate_args = False  # grey values have a formula too, if no density
    np.testing.assert_allclose(whole.log_prob(x), plain.sum(-1), rtol=1e-12, atol=1e-12)
    single = Bernoulli((dim,))(logits.float()).to_event(1)
    single._validate_args = False
    # Rounding of dim terms of the size of the largest logit.
    slack = 1e-6 * (1 + logits.abs().max().item()) * dim**0.5
    np.testing.assert_allclose(single.log_prob(x.float()), plain.sum(-1), rtol=1e-5, atol=slack)


def test_gradients_of_a_bernoulli_image_are_right():
    logits = torch.randn(3, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    x = torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)

    def log_prob(logits, x):
        image = Bernoulli((4, 5))(logits).to_event(2)
        image._validate_args = False
        return image.log_prob(x)

    assert torch.autograd.gradcheck(log_prob, (logits, x))
    assert torch.autograd.gradgradcheck(log_prob, (logits, x))


def test_a_bernoulli_image_is_a_distribution_like_others():
    image = Bernoulli((4, 5))(torch.randn(2, 4, 5)).to_event(2)
    x = image.sample()
    assert image.expand([3, 2]).log_prob(x).shape == (3, 2)
    torch.testing.assert_close(image.expand([3, 2]).log_prob(x)[1], image.log_prob(x))
    assert (image.mask(torch.tensor([True, False])).log_prob(x)[1] == 0).all()
    assert image.log_prob(x[0]).shape == (2,)
    flat = Bernoulli((4, 5))(torch.randn(2, 4, 5))
    assert flat.to_event(0) is flat
    torch.testing.assert_close(flat.to_event().log_prob(x), flat.log_prob(x).sum())
    with pytest.raises(ValueError, match="0.5 lies outside the support of the Bernoulli"):
        image.log_prob(torch.full((2, 4, 5), 0.5))
