"""Data that a program generates."""

import pytest
import torch

from ppl_vae import decode, posterior_predictive, prior_predictive
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

from .programs import Cauchy, Discrete, Minimal, TwoLayers

SHAPE = (1, 4, 5)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Discrete])
def test_any_conforming_program_generates(kind):
    drawn = prior_predictive(kind(), (5,), 7)
    assert drawn.x.shape == drawn.mean.shape == (7, 5)
    again = posterior_predictive(kind(), torch.randn(3, 5))
    assert again.x.shape == (3, 5)
    assert set(again.latents) == set(drawn.latents) == set(again.latent_means)


def test_prior_predictive_has_the_moments_of_the_model():
    program = LinearGaussian((3,), latent_dim=2)
    drawn = prior_predictive(program, (3,), 40_000, seed=2).x
    cov = program.loading @ program.loading.T + program.scale**2 * torch.eye(3)
    # Standard errors of the entries of a Gaussian's sample covariance
    stderr = ((cov.square() + cov.diag()[:, None] * cov.diag()) / 40_000).sqrt()
    assert ((drawn.T.cov() - cov).abs() < 4 * stderr).all()


def test_decode_takes_the_latents_it_is_given():
    vae, z = VAE(SHAPE, latent_dim=2), torch.randn(6, 2)
    drawn = decode(vae, {"z": z}, SHAPE, 6)
    assert torch.equal(drawn.latents["z"], z)
    torch.testing.assert_close(drawn.mean, torch.sigmoid(vae.decoder(z)).detach())
    assert set(drawn.x.unique().tolist()) == {0.0, 1.0}


def test_posterior_predictive_decodes_a_draw_of_the_guide():
    autoencoder, x = Autoencoder(SHAPE, latent_dim=2), torch.rand(6, *SHAPE)
    drawn = posterior_predictive(autoencoder, x)
    code = autoencoder.encoder(x)
    torch.testing.assert_close(drawn.latents["z"], code.detach())
    torch.testing.assert_close(drawn.mean, torch.sigmoid(autoencoder.decoder(code)).detach())
    assert not torch.equal(drawn.x, x)  # new data, not the observed ones

    vae = VAE(SHAPE, latent_dim=2)
    drawn = posterior_predictive(vae, x)
    torch.testing.assert_close(drawn.latent_means["z"], vae.encoder(x).chunk(2, -1)[0].detach())


def test_where_there_is_no_mean_draws_stand_in():
    drawn = posterior_predictive(Cauchy(), torch.randn(3, 5))
    assert torch.equal(drawn.mean, drawn.x)


def test_same_seed_same_bits_and_nothing_else_moves():
    vae, state = VAE(SHAPE), torch.get_rng_state()
    assert torch.equal(
        prior_predictive(vae, SHAPE, 3, seed=1).x, prior_predictive(vae, SHAPE, 3, seed=1).x
    )
    assert torch.equal(torch.get_rng_state(), state)
