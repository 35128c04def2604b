"""Probabilistic PCA against closed forms from elsewhere: scipy, linear algebra, calculus."""

import numpy as np
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import ClippedAdam
from scipy.stats import multivariate_normal

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.models import LinearGaussian
from ppl_vae.models.networks import inverse_positive

sizes = pytest.mark.parametrize(
    ("latent_dim", "dim"), [(latent, dim) for latent in (1, 2, 10) for dim in (5, 50, 784)]
)


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
    weights = Posterior(program, x).terms(draws=7).log_weight
    np.testing.assert_allclose(weights, program.evidence(x).detach().expand(7, -1), atol=1e-9)


def exact_kls(program, x):
    """KL of the guide to prior and posterior, by the textbook formula in NumPy."""
    q_loc, tril = program.encoder(x).detach().numpy(), program.guide_tril.detach().numpy()
    q = tril @ tril.T
    posterior = program.posterior(x)
    p_loc, p = posterior.mean.detach().numpy(), posterior.covariance_matrix.detach().numpy()[0]

    def kl(p_loc, p):
        shift = p_loc - q_loc
        inverse = np.linalg.inv(p)
        return 0.5 * (
            np.trace(inverse @ q)
            + np.einsum("ni,ij,nj->n", shift, inverse, shift)
            - len(q)
            + np.linalg.slogdet(p)[1]
            - np.linalg.slogdet(q)[1]
        )

    return kl(np.zeros_like(q_loc), np.eye(len(q))), kl(p_loc, p)


@sizes
def test_the_whole_chain_of_the_exact_guide_has_no_error(latent_dim, dim):
    program, x = random_program(latent_dim, dim)
    program.set_exact_guide()
    scores = ppl_vae.score(program, x, draws=3)
    evidence = program.evidence(x).detach()
    scale = evidence.abs().max().item()
    for name in ("elbo", "iw_bound", "iw_jackknife"):
        np.testing.assert_allclose(
            scores.per_datum[name], evidence, rtol=0, atol=1e-10 * max(1, scale)
        )
    assert scores.per_datum["kl_to_posterior"].abs().max() < 1e-10 * max(1, scale)
    to_prior, to_posterior = exact_kls(program, x)
    np.testing.assert_allclose(scores.analytic_kl["z"], to_prior, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(to_posterior, 0, atol=1e-8)


@sizes
def test_the_whole_chain_of_a_wrong_guide_is_within_four_standard_errors(latent_dim, dim):
    program, x = random_program(latent_dim, dim)
    program.set_exact_guide()
    with torch.no_grad():
        # Half a standard deviation off, and too wide, so that weights have a variance.
        tril = 1.3 * program.guide_tril
        program.encoder.bias += 0.5 * tril.diagonal()
        diagonal = inverse_positive(tril.diagonal())
        program.raw_guide_tril.copy_(tril.tril(-1) + torch.diag(diagonal))
    draws = 2000
    terms = Posterior(program, x).terms(draws, seed=1)
    scores = ppl_vae.score(program, x, draws, seed=1)
    to_prior, to_posterior = exact_kls(program, x)
    np.testing.assert_allclose(scores.analytic_kl["z"], to_prior, rtol=1e-10)
    elbo = program.evidence(x).detach().numpy() - to_posterior
    exact = {"elbo": elbo, "kl": to_prior, "reconstruction": elbo + to_prior}
    drawn = {"elbo": terms.log_weight, "kl": terms.kl, "reconstruction": terms.reconstruction}
    for name, values in exact.items():
        # Draws are independent across data: the error of the mean over data, at fixed data.
        stderr = (drawn[name].var(0) / draws).sum().sqrt().item() / len(x)
        assert abs((scores.per_datum[name].numpy() - values).mean()) < 4 * stderr, name
    # KL to the posterior is F taken from the exact evidence, or from a bound on it.
    found = program.evidence(x).detach() - scores.per_datum["elbo"]
    stderr = (terms.log_weight.var(0) / draws).sum().sqrt().item() / len(x)
    assert abs(found.mean().item() - to_posterior.mean()) < 4 * stderr
    error = scores.per_datum["iw_error"].square().sum().sqrt().item() / len(x)
    bound = scores.per_datum["iw_jackknife"] - program.evidence(x).detach()
    assert abs(bound.mean().item()) < 4 * error


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
    with pytest.raises(ValueError, match="latent_dim must be less than"):
        LinearGaussian((3,), latent_dim=3).set_maximum_likelihood(x)
    flat = x[:, :1] * torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match="latent_dim must be smaller"):
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
    terms = Posterior(program, x).terms(draws=4000)
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
    elbo = Posterior(program, data.train.x).terms(draws=50).log_weight.mean().item()
    assert reached <= best
    assert best - elbo < 0.05


def reaches_maximum_likelihood(latent_dim, steps):
    """Nats per datum that stock SVI from a random start stays below the best log-likelihood."""
    data = ppl_vae.load_data("digits")
    x = data.train.x.double() / data.levels
    program, best = (LinearGaussian(data.shape, latent_dim) for _ in range(2))
    best.set_maximum_likelihood(x)
    adam = ClippedAdam({"lr": 0.03, "lrd": 0.01 ** (1 / steps)})
    svi = SVI(program.model, program.guide, adam, ppl_vae.PathwiseELBO())
    for _ in range(steps):
        svi.step(x)
    optimum = best.evidence(x).mean().item()
    elbo = Posterior(program, x).terms(draws=20).log_weight.mean().item()
    assert elbo > optimum - 0.05
    return optimum - program.evidence(x).mean().item()


def test_svi_reaches_the_maximum_likelihood_on_real_digits():
    assert 0 <= reaches_maximum_likelihood(latent_dim=2, steps=700) < 0.05


@pytest.mark.slow
def test_svi_reaches_the_maximum_likelihood_of_ten_latents():
    assert 0 <= reaches_maximum_likelihood(latent_dim=10, steps=3000) < 0.05
