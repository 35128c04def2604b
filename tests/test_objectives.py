"""Objectives, and the weight of the KL term, against formulas written out by hand."""

from typing import get_args

import pytest
import torch
from pyro.infer import Trace_ELBO

from ppl_vae import Posterior
from ppl_vae.choices import Objective
from ppl_vae.models import VAE
from ppl_vae.objectives.estimators import make_objective
from ppl_vae.objectives.kl_weight import KLWeight

from .programs import Minimal, TwoLayers

X = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))


def loss_by(objective, program, seed=3):
    torch.manual_seed(seed)
    return objective.loss(program.model, program.guide, X)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers])
@pytest.mark.parametrize("particles", [2, 5])
def test_iw_is_the_importance_weighted_bound_of_each_datum(kind, particles):
    program = kind()
    loss = loss_by(make_objective("iw", particles), program)
    weights = Posterior(program, X).terms(draws=particles, seed=3).log_weight
    bound = weights.logsumexp(0) - torch.tensor(particles).log()
    assert loss == pytest.approx(-bound.sum().item(), rel=1e-5)


@pytest.mark.parametrize("particles", [1, 4])
def test_analytic_kl_has_the_mean_of_the_monte_carlo_one(particles):
    program = Minimal()
    losses = {
        name: torch.tensor(
            [loss_by(make_objective(name, particles), program, seed) for seed in range(300)]
        )
        for name in ("elbo", "analytic-kl")
    }
    difference = losses["elbo"] - losses["analytic-kl"]
    assert abs(difference.mean()) < 4 * difference.std() / 300**0.5


@pytest.mark.parametrize(
    ("objective", "kind"),
    # TwoLayers is not of mean field, as Pyro warns: it has no analytic KL.
    [
        *((name, Minimal) for name in get_args(Objective)),
        *((name, TwoLayers) for name in get_args(Objective) if name != "analytic-kl"),
    ],
)
def test_a_weight_of_one_changes_nothing(objective, kind):
    program = kind()
    estimator = make_objective(objective, 3)
    plain = loss_by(estimator, program)
    with KLWeight():
        assert loss_by(estimator, program) == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("kind", [Minimal, TwoLayers])
@pytest.mark.parametrize("particles", [1, 3])
def test_the_weight_scales_the_kl_alone(kind, particles):
    program, kl_weight = kind(), KLWeight()
    kl_weight.weight = 0.25
    with kl_weight:
        loss = loss_by(make_objective("elbo", particles), program)
    terms = Posterior(program, X).terms(draws=particles, seed=3)
    expected = (terms.reconstruction - 0.25 * terms.kl).mean(0).sum().item()
    assert loss == pytest.approx(-expected, rel=1e-5)
    assert sum(kl_weight.kl.values()) == pytest.approx(terms.kl.mean().item(), rel=1e-4)


def test_the_weight_scales_an_analytic_kl_too():
    program, kl_weight = Minimal(), KLWeight()
    estimator = make_objective("analytic-kl")
    plain = loss_by(estimator, program)
    reconstruction = Posterior(program, X).terms(seed=3).reconstruction.sum().item()
    kl_weight.weight = 0.5
    with kl_weight:
        weighed = loss_by(estimator, program)
    assert weighed == pytest.approx(plain - 0.5 * (plain + reconstruction), rel=1e-5)


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_free_bits_are_the_gradient_of_the_maximum(share):
    vae = VAE((5,), latent_dim=3, hidden=(8,), likelihood="gaussian", likelihood_scale=1.0)
    torch.manual_seed(3)
    loc, raw_scale = vae.encoder(X).chunk(2, -1)
    q = torch.distributions.Normal(loc, torch.nn.functional.softplus(raw_scale) + 1e-4)
    z = q.rsample()
    kl = (q.log_prob(z) - torch.distributions.Normal(0, 1).log_prob(z)).sum(-1)
    reconstruction = vae.likelihood(vae.decoder(z)).log_prob(X).sum(-1)
    free_bits = share * kl.mean().item()  # below the KL, then above it
    objective = reconstruction.sum() - len(X) * kl.mean().clamp(min=free_bits)
    expected = torch.autograd.grad(-objective, list(vae.parameters()))

    torch.manual_seed(3)
    with KLWeight(free_bits):
        Trace_ELBO().loss_and_grads(vae.model, vae.guide, X)
    for parameter, gradient in zip(vae.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize(("free_bits", "weight"), [(1e-6, 0.5), (1e6, 0.0)])
def test_free_bits_and_the_weight_go_together(free_bits, weight):
    program, kl_weight = Minimal(), KLWeight(free_bits)
    kl_weight.weight = 0.5
    with kl_weight:
        loss = loss_by(Trace_ELBO(), program)
    terms = Posterior(program, X).terms(seed=3)
    expected = (terms.reconstruction - weight * terms.kl).sum().item()
    assert loss == pytest.approx(-expected, rel=1e-5)


def test_free_bits_count_each_site_for_itself():
    program, kl_weight = TwoLayers(), KLWeight()
    with kl_weight:
        loss_by(Trace_ELBO(), program)
    low, high = sorted(kl_weight.kl, key=kl_weight.kl.get)
    between = (kl_weight.kl[low] + kl_weight.kl[high]) / 2
    with KLWeight(between):
        loss = loss_by(Trace_ELBO(), program)
    terms = Posterior(program, X).terms(seed=3)
    expected = terms.reconstruction - (terms.guide[high] - terms.prior[high])
    assert loss == pytest.approx(-expected.sum().item(), rel=1e-5)
