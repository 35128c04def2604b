"""Programs of classes: labels given, and labels known for some data."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro.infer import SVI, TraceEnum_ELBO

from ppl_vae import CompiledSVI, InputError, Posterior, Settings, fit, keep_labels, score
from ppl_vae.data.batch import Batch
from ppl_vae.models import ConditionalVAE, SemiSupervisedVAE
from ppl_vae.models.networks import inverse_positive
from ppl_vae.objectives.kl_weight import KLWeight
from ppl_vae.programs.conformance import check_program

from . import tables

X = torch.rand(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).round()
Y = torch.tensor([0, -1, 2, -1, 1, -1, -1])
ENUMERATED = TraceEnum_ELBO(max_plate_nesting=1)


def small(alpha=7.0, **choices):
    return SemiSupervisedVAE((5,), 2, (8,), classes=3, alpha=alpha, **choices).double()


def loss_by_hand(m2, noise, kl_weight=1.0):
    """Kingma et al. (2014), eq. 6 and 7, class by class and datum by datum, and eq. 9."""
    total = torch.zeros((), dtype=torch.float64)
    log_q = m2.classifier(X).log_softmax(-1)
    for n, y in enumerate(Y.tolist()):
        terms = []
        for k in range(3):
            q = m2.encode_inputs(X[n], torch.tensor(k)).base_dist
            z = q.loc + q.scale * noise[k, n]
            logits = m2.decoder(torch.cat([z, torch.eye(3).double()[k]]))
            likelihood = (X[n] * logits - F.softplus(logits)).sum()
            prior = dist.Normal(0, 1).log_prob(z).sum() - math.log(3)
            terms.append((likelihood, prior - q.log_prob(z).sum()))
        if y >= 0:
            total -= terms[y][0] + kl_weight * terms[y][1]
            total -= m2.alpha * log_q[n, y] if m2.training else 0.0
        else:
            for k, (likelihood, rest) in enumerate(terms):
                value = likelihood + kl_weight * (rest - log_q[n, k])
                total -= log_q[n, k].exp() * value
    return total


@pytest.mark.parametrize("training", [True, False])
def test_the_enumerated_loss_is_the_sum_over_classes(training):
    m2 = small().train(training)
    torch.manual_seed(5)
    noise = torch.normal(torch.zeros_like(X[:, :2]).expand(3, 7, 2), 1.0)
    torch.manual_seed(5)
    loss = ENUMERATED.differentiable_loss(m2.model, m2.guide, X, y=Y)
    by_hand = loss_by_hand(m2, noise)
    torch.testing.assert_close(loss, by_hand, rtol=1e-12, atol=1e-6)
    parameters = [p for p in m2.parameters() if p.requires_grad]
    for ours, theirs in zip(
        torch.autograd.grad(loss, parameters, allow_unused=True),
        torch.autograd.grad(by_hand, parameters, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_weight_of_the_kl_is_that_of_every_term_but_the_likelihood():
    m2, weight = small(), KLWeight()
    weight.weight = 0.25
    torch.manual_seed(5)
    noise = torch.normal(torch.zeros_like(X[:, :2]).expand(3, 7, 2), 1.0)
    torch.manual_seed(5)
    with weight:
        loss = ENUMERATED.differentiable_loss(m2.model, m2.guide, X, y=Y)
    torch.testing.assert_close(loss, loss_by_hand(m2, noise, 0.25), rtol=1e-12, atol=1e-6)


def test_a_captured_step_is_one_of_stock_svi():
    losses = []
    for make in (SVI, lambda *parts: CompiledSVI(*parts, engine="compiled")):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        m2 = small()
        svi = make(m2.model, m2.guide, pyro.optim.Adam({"lr": 1e-2}), ENUMERATED)
        losses.append(torch.tensor([svi.step(X, y=Y) for _ in range(8)]))
    assert svi.gradients.graphs == 1
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-5)


def test_the_term_of_the_classifier_is_no_part_of_the_elbo():
    m2, batch = small(alpha=1e6), Batch(x=X, y=Y)
    with_term = score(m2, batch, draws=3).per_datum["elbo"]
    m2.alpha = 0.0
    assert torch.equal(score(m2, batch, draws=3).per_datum["elbo"], with_term)


def test_p_of_x_is_the_sum_over_classes():
    """p(x) where y is not known, against p(x, y) at each y: means of weights, by their errors."""
    m2, draws = small(), 4000
    unknown = torch.full((7,), -1)
    log_p = Posterior(m2, Batch(x=X, y=unknown)).log_weight(draws, seed=1).exp()
    each = [
        Posterior(m2, Batch(x=X, y=torch.full((7,), k))).log_weight(draws, seed=2 + k).exp()
        for k in range(3)
    ]
    difference = log_p.mean(0) - sum(weight.mean(0) for weight in each)
    error = (sum(weight.var(0) for weight in (log_p, *each)) / draws).sqrt()
    assert (difference.abs() < 5 * error).all()


def test_conditional_evidence_is_exact_where_all_is_linear():
    """x = W z + V c + b + noise: log p(x | c) is normal."""
    cvae = ConditionalVAE(
        (5,), 2, (), likelihood="gaussian", classes=3, covariates={"age": (40.0, 10.0)}
    ).double()
    x, y, age = torch.randn(6, 5).double(), torch.arange(6) % 3, 40 + 10 * torch.randn(6).double()
    batch = Batch(x=x, y=y, age=age)
    with torch.no_grad():  # the guide becomes the prior: weights are bounded
        for parameter in cvae.encoder.parameters():
            parameter.zero_()
        cvae.encoder.first.mlp[0].bias[2:] = inverse_positive(torch.ones(2))
    layer = cvae.decoder.mlp[0]
    weight, own = layer.weight[:, :2], layer.weight[:, 2:]
    c = torch.cat([F.one_hot(y, 3).double(), (age[:, None] - 40) / 10], -1)
    covariance = weight @ weight.T + cvae.likelihood.scale.square() * torch.eye(5).double()
    exact = dist.MultivariateNormal(layer.bias + c @ own.T, covariance).log_prob(x).detach()
    weights = Posterior(cvae, batch).log_weight(10_000)
    bound = weights.logsumexp(0) - math.log(len(weights))
    error = ((weights - bound).exp().var(0) / len(weights)).sqrt()
    assert ((bound - exact).abs() < 5 * error).all()


@pytest.mark.parametrize("make", [tables.Conditional, lambda: ConditionalVAE((5,), classes=3)])
def test_a_label_that_is_missing_is_refused_where_it_is_given(make):
    y = torch.zeros(200, dtype=torch.long)
    y[150] = -1
    with pytest.raises(InputError, match=r"datum 150 has no label \(y is -1\)"):
        check_program(make(), Batch(x=torch.rand(200, 5).round(), y=y))


def test_a_class_that_there_is_not_is_refused_by_its_row():
    y = torch.zeros(200, dtype=torch.long)
    y[150] = 3
    with pytest.raises(InputError, match="datum 150: y holds 3, but must be a class in 0 ... 2"):
        check_program(small(), Batch(x=torch.rand(200, 5).round(), y=y))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "classes or covariates must be given"),
        ({"classes": 1}, "classes must be an integer of at least 2, got 1"),
        ({"covariates": {"age": (0.0, 0.0)}}, "mean and positive standard deviation by name"),
        ({"covariates": {"age": 3}}, "mean and positive standard deviation by name"),
    ],
)
def test_conditions_that_mean_nothing_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        ConditionalVAE((5,), **arguments)


@pytest.mark.parametrize(
    ("covariates", "problem"),
    [
        ({}, "covariate 'age' is missing"),
        ({"age": torch.zeros(3), "dose": torch.zeros(3)}, "covariate 'dose' was given"),
        ({"age": torch.zeros(3, 2)}, "covariate 'age' has 2 columns, not 1"),
    ],
)
def test_covariates_are_those_of_the_program(covariates, problem):
    with pytest.raises(InputError, match=problem):
        cvae = ConditionalVAE((5,), covariates={"age": (0.0, 1.0)})
        check_program(cvae, Batch(x=torch.zeros(3, 5), **covariates))


@pytest.mark.parametrize(
    "settings",
    [{"objective": name, "particles": 2} for name in ("iw", "stl", "dreg", "analytic-kl")]
    + [{"free_bits": 0.5}],
    ids=str,
)
def test_objectives_that_do_not_enumerate_are_refused(digits, settings):
    m2 = SemiSupervisedVAE(digits.shape, 2, (8,), classes=10)
    with pytest.raises(InputError, match="label"):
        fit(m2, digits, Settings(epochs=1, **settings), progress=False)


def test_labels_are_kept_by_class_and_seed(digits):
    kept = keep_labels(digits, 23, seed=1)
    labels = kept.train.labels
    counts = labels[labels >= 0].bincount(minlength=10)
    assert sorted(counts.tolist()) == [2] * 7 + [3] * 3
    assert torch.equal(labels[labels >= 0], digits.train.labels[labels >= 0])
    assert torch.equal(kept.test.labels, digits.test.labels)
    assert torch.equal(keep_labels(digits, 23, seed=1).train.labels, labels)
    assert not torch.equal(keep_labels(digits, 23, seed=2).train.labels, labels)
    assert kept.digest != digits.digest


@pytest.mark.parametrize("count", [0, 9, 100_000, 2.5])
def test_labels_that_are_not_there_cannot_be_kept(digits, count):
    with pytest.raises(InputError, match="labels"):
        keep_labels(digits, count)
