"""The ELBO and its terms: ordering, standard errors, refusals."""

import math

import numpy as np
import pytest
import torch

from ppl_vae import Estimate, InputError, evaluate, log_terms
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

from .programs import Explodes, Minimal

X = torch.randn(50, 5)


def test_an_estimate_is_mean_and_standard_error():
    values = torch.randn(1000)
    estimate = Estimate.of(values)
    assert estimate.mean == pytest.approx(values.numpy().astype(np.float64).mean())
    assert estimate.stderr == pytest.approx(values.double().std().item() / math.sqrt(1000))
    assert estimate.n == 1000
    assert math.isnan(Estimate.of(torch.ones(1)).stderr)


def test_elbo_is_reconstruction_minus_kl_and_below_the_bound():
    figures = evaluate(Minimal(), X, draws=20)
    assert list(figures) == [
        "elbo", "reconstruction", "kl", "iw_bound", "iw_jackknife", "kl_to_posterior",
    ]  # fmt: skip
    difference = figures["reconstruction"].mean - figures["kl"].mean
    assert figures["elbo"].mean == pytest.approx(difference, abs=1e-5)
    assert figures["elbo"].mean < figures["iw_bound"].mean


def test_with_one_draw_the_bound_is_the_elbo():
    figures = evaluate(Minimal(), X, draws=1)
    assert figures["iw_bound"] == figures["elbo"]


def test_the_bound_agrees_with_numpy():
    program = Minimal()
    weights = log_terms(program, X, draws=30, seed=2).log_weight.numpy().astype(np.float64)
    top = weights.max(0)
    by_hand = (np.log(np.exp(weights - top).mean(0)) + top).mean()
    assert evaluate(program, X, draws=30, seed=2)["iw_bound"].mean == pytest.approx(by_hand)


def test_the_bound_rises_towards_the_exact_evidence():
    program = LinearGaussian((5,), latent_dim=2)
    x = program.model(size=400).detach()
    exact = program.evidence(x).mean().item()
    bounds = [evaluate(program, x, draws)["iw_bound"].mean for draws in (1, 10, 1000)]
    assert bounds == sorted(bounds)
    # Delta method: the bound of S draws has bias -v/2S and variance v/S, with v the variance of
    # the weights relative to their mean (Nowozin 2018, proposition 1).
    weights = log_terms(program, x, 1000).log_weight
    v = weights.softmax(0).mul(1000).var(0)
    bias, stderr = (v / 2000).mean().item(), (v / 1000).sum().sqrt().item() / len(x)
    assert abs(bounds[-1] + bias - exact) < 4 * stderr


def test_a_point_mass_has_no_elbo():
    figures = evaluate(Autoencoder((5,), likelihood="gaussian"), X)
    assert list(figures) == ["reconstruction"]


def test_a_weight_that_is_not_finite_names_datum_and_site():
    with pytest.raises(InputError, match="log weight of datum 0 is not finite.* site 'x'"):
        evaluate(Explodes(calls=4), X)  # the check makes the first three


def test_data_outside_the_support_are_refused():
    with pytest.raises(InputError, match="datum 0: .* outside the support of the Bernoulli"):
        evaluate(VAE((5,)), X)


def test_the_program_stays_on_its_type():
    figures = evaluate(Minimal().double(), X)
    assert figures["elbo"].n == 50
    assert torch.get_default_dtype() == torch.float32
