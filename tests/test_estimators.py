"""The whole chain by each estimator: what follows from what, and how much work it is."""

import pytest
import torch

from ppl_vae import Annealing, InputError
from ppl_vae.inference.estimate import estimate
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

FAST = Annealing(chains=4, temperatures=20, leapfrog_steps=3)
X = torch.randn(12, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("estimator", ["iw", "ais", "bdmc"])
def test_the_identity_holds_for_every_datum(estimator):
    program = LinearGaussian((5,))
    batch, scores = estimate(estimator, program, X, 50, FAST)
    chain = scores.per_datum
    assert batch.x.shape == X.shape
    torch.testing.assert_close(chain["elbo"], chain["reconstruction"] - chain["kl"])
    bounds = [chain[name] for name in ("iw_bound", "ais_bound") if name in chain]
    tighter = max(bounds, key=lambda bound: bound.mean())
    torch.testing.assert_close(chain["elbo"] + chain["kl_to_posterior"], tighter)
    if estimator == "bdmc":
        torch.testing.assert_close(chain["ais_bound"] + chain["gap"], chain["upper_bound"])
        torch.testing.assert_close(
            chain["elbo"] + chain["kl_to_posterior_upper"], chain["upper_bound"]
        )


def test_kl_to_the_posterior_is_within_its_bounds():
    program = LinearGaussian((5,))
    batch, scores = estimate("bdmc", program, X.repeat(10, 1), 200, Annealing(temperatures=60))
    x = batch.x
    exact = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(program.encoder(x), scale_tril=program.guide_tril),
        program.posterior(x),
    ).detach()
    for name, sign in (("kl_to_posterior", 1), ("kl_to_posterior_upper", -1)):
        beyond = sign * (scores.per_datum[name] - exact)
        assert beyond.mean() < 4 * beyond.std() / len(x) ** 0.5


def test_bits_are_nats_of_the_tighter_bound():
    vae = VAE((5,), latent_dim=2, hidden=(4,))
    _, scores = estimate("ais", vae, (X > 0).float(), 50, FAST)
    tighter = max(scores.per_datum["ais_bound"].mean(), scores.per_datum["iw_bound"].mean())
    assert scores.per_datum["bits_per_dim"].mean() * 5 * 0.6931471805599453 == pytest.approx(
        -tighter
    )


@pytest.mark.parametrize("estimator", ["iw", "ais", "bdmc"])
def test_the_work_is_told_beforehand(estimator):
    done = []
    program = LinearGaussian((5,))
    estimate(estimator, program, X, 7, FAST, on_progress=lambda share, note: done.append(share))
    assert sum(done) == pytest.approx(1)


def test_annealing_has_nothing_to_compare_with_for_a_point_mass():
    autoencoder = Autoencoder((5,), likelihood="gaussian")
    _, scores = estimate("iw", autoencoder, X)
    assert scores.per_datum.keys() == {"reconstruction"}
    with pytest.raises(InputError, match="point mass"):
        estimate("ais", autoencoder, X, annealing=FAST)


def test_the_same_options_are_refused_before_any_work():
    with pytest.raises(InputError, match="estimator must be one of"):
        estimate("magic", LinearGaussian((5,)), X)
    with pytest.raises(InputError, match="draws must be an integer of at least 1"):
        estimate("bdmc", LinearGaussian((5,)), X, draws=0)


def test_one_chain_is_enough():
    _, scores = estimate("bdmc", LinearGaussian((5,)), X, 1, Annealing(1, 3, 1))
    assert scores.per_datum["ais_error"].isnan().all()
    assert scores.estimates()["gap"].mean > -50
