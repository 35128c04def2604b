"""Probabilistic PCA against closed forms from elsewhere: scipy, linear algebra, calculus."""

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from scipy.stats import multivariate_normal

import ppl_vae
from ppl_vae.models import LinearGaussian
from ppl_vae.weights import log_terms

sizes = pytest.mark.parametrize(("latent_dim", "dim"), [(1, 5), (2, 50), (10, 5), (10, 784)])


def random_program(latent_dim: int, dim: int) -> tuple[LinearGaussian, torch.Tensor]:
    program = LinearGaussian((dim,), latent_dim)
    with torch.no_grad():
        for parameter in program.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return program, program.model(size=20).detach()


def dense(program: LinearGaussian) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    loading, loc = program.loading.detach().numpy(), program.loc.detach().numpy()
    covariance = loading @ loading.T + program.scale.item() ** 2 * np.eye(len(loc))
    return loading, loc, covariance


@sizes
def test_evidence_is_that_of_the_dense_gaussian(latent_dim, dim):
    program, x = random_program(latent_dim, dim)
    _, loc, covariance = dense(program)
    expected = multivariate_normal(loc, covariance).logpdf(x.numpy())
    np.testing.assert_allclose(program.evidence(x).detach(), expected, rtol=1e-10, atol=1e-10)


@sizes
def test_posterior_is_the_conditional_of_the_joint_gaussian(latent_dim, dim):
    program, x = random_program(latent_dim, dim)
    loading, loc, covariance = dense(program)
    gain = np.linalg.solve(covariance, loading).T
    posterior = program.posterior(x)
    np.testing.assert_allclose(posterior.mean.detach(), (x.numpy() - loc) @ gain.T, atol=1e-10)
    expected = np.eye(latent_dim) - gain @ loading
    np.testing.assert_allclose(posterior.covariance_matrix.detach()[0], expected, atol=1e-10)


@sizes
def test_with_the_exact_guide_every_log_weight_is_the_evidence(latent_dim, dim):
    program, x = random_program(latent_dim, dim)
    program.set_exact_guide()
    weights = log_terms(program, x, draws=7).log_weight
    np.testing.assert_allclose(weights, program.evidence(x).detach().expand(7, -1), atol=1e-9)


def test_elbo_of_a_wrong_guide_is_within_four_standard_errors_of_the_closed_form():
    program, x = random_program(2, 5)
    weights = log_terms(program, x, draws=20_000, seed=1).log_weight
    kl = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(program.encoder(x), scale_tril=program.guide_tril),
        program.posterior(x),
    )
    exact = (program.evidence(x) - kl).mean().item()
    # Draws are independent across data: the error of the mean over data, at fixed data.
    stderr = (weights.var(0) / len(weights)).sum().sqrt().item() / len(x)
    assert stderr < 0.05
    assert abs(weights.mean().item() - exact) < 4 * stderr


def test_maximum_likelihood_has_the_published_likelihood_and_no_slope():
    x = ppl_vae.load_data("digits").fixed("train").double().flatten(1)[:, 10:40]
    program = LinearGaussian((30,), latent_dim=4)
    program.set_maximum_likelihood(x)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1]
    noise = eigenvalues[4:].mean()
    # Tipping & Bishop 1999, the log-likelihood at its maximum, over the number of data
    expected = -0.5 * (
        np.log(eigenvalues[:4]).sum() + 26 * np.log(noise) + 30 * np.log(2 * np.pi) + 30
    )
    mean = program.evidence(x).mean()
    assert abs(mean.item() - expected) < 1e-9
    mean.backward()
    for parameter in (program.loading, program.loc, program.raw_scale):
        assert parameter.grad.abs().max() < 1e-9


def test_at_maximum_likelihood_the_posterior_is_diagonal():
    x = torch.randn(200, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    program = LinearGaussian((6,), latent_dim=3)
    program.set_maximum_likelihood(x)
    covariance = program.posterior(x).covariance_matrix[0].detach()
    eigenvalues = torch.linalg.eigvalsh(x.T.cov(correction=0)).flip(0)
    expected = program.scale.detach().square() / eigenvalues[:3]
    np.testing.assert_allclose(covariance, torch.diag(expected), atol=1e-10)


def test_maximum_likelihood_is_refused_where_there_is_none():
    x = torch.randn(50, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="no direction for the noise"):
        LinearGaussian((3,), latent_dim=3).set_maximum_likelihood(x)
    flat = x[:, :1] * torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="explain the data exactly"):
        LinearGaussian((3,), latent_dim=1).set_maximum_likelihood(flat)


@pytest.mark.parametrize("estimator", [Trace_ELBO, TraceMeanField_ELBO])
def test_pyros_estimators_agree_at_the_exact_guide(estimator):
    program, x = random_program(2, 5)
    program.set_exact_guide()
    loss = estimator(num_particles=4000, vectorize_particles=True, max_plate_nesting=1).loss(
        program.model, program.guide, x
    )
    exact = program.evidence(x).sum().item()
    # Trace_ELBO has no variance here; with analytic KL the draws of the likelihood remain.
    terms = log_terms(program, x, draws=4000)
    stderr = (terms.reconstruction.var(0) / 4000).sum().sqrt().item()
    assert abs(-loss - exact) < (1e-8 if estimator is Trace_ELBO else 4 * stderr)


def test_fit_reaches_the_maximum_likelihood():
    data = ppl_vae.make_data(
        torch.randn(1000, 2, dtype=torch.float64) @ torch.randn(2, 6, dtype=torch.float64)
        + 0.3 * torch.randn(1000, 6, dtype=torch.float64)
    )
    program, optimum = (LinearGaussian((6,), latent_dim=2) for _ in range(2))
    optimum.set_maximum_likelihood(data.train.x)
    settings = ppl_vae.Settings(epochs=100, batch_size=100, learning_rate=0.03)
    ppl_vae.fit(program, data, settings, progress=False)
    best = optimum.evidence(data.train.x).mean().item()
    reached = program.evidence(data.train.x).mean().item()
    elbo = log_terms(program, data.train.x, draws=50).log_weight.mean().item()
    assert reached <= best
    assert best - elbo < 0.05
