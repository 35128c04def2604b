"""The model of independent columns, against SciPy's densities; what a poor fit is told."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats
import torch
from torch import nn

from ppl_vae import Batch, Posterior
from ppl_vae.evidence.independent import independent_columns
from ppl_vae.models import VAE

RNG = np.random.default_rng(0)


class Under(nn.Module):
    """x of any shape under some likelihood, whatever its parameters."""

    def __init__(self, likelihood, shape):
        super().__init__()
        self.likelihood, self.shape = likelihood, shape
        self.scale = nn.Parameter(torch.zeros(()))

    def model(self, x, mask=None):
        pyro.module("under", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0 * self.scale, 1.0))
            zeros = torch.zeros(*z.shape, *self.shape) + 0 * self.scale
            p = self.likelihood(zeros)
            p = p if mask is None else p.mask(mask)
            pyro.sample("x", p.to_event(len(self.shape)), obs=x)

    def guide(self, x, mask=None):
        pyro.module("under", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0 * self.scale, 1.0))


LIKELIHOODS = {
    "real": lambda zeros: dist.StudentT(5.0, zeros, 1.0),
    "positive": lambda zeros: dist.Gamma(zeros + 2, 1.0),
    "binary": lambda zeros: dist.Bernoulli(logits=zeros),
    "count": lambda zeros: dist.Poisson(zeros + 1),
    "unit": lambda zeros: dist.Beta(zeros + 1, 1.0),
    "value": lambda zeros: dist.Categorical(logits=torch.stack([zeros] * 4, -1)),
}


def continuous_bernoulli(x, y):
    def density(value, logit):
        return logit * value + np.log(logit / np.expm1(logit))

    def objective(logit):
        return -density(x, logit).sum()

    found = scipy.optimize.minimize_scalar(objective, bounds=(-400, -1e-9), method="bounded")
    other = scipy.optimize.minimize_scalar(objective, bounds=(1e-9, 400), method="bounded")
    return density(y, min(found, other, key=lambda f: f.fun).x)


def counts(x, y):
    mean, variance = x.mean() + 0.5 / len(x), x.var()
    size = mean**2 / (variance - mean)
    wide = scipy.stats.nbinom(size, size / (size + mean)) if size > 0 else None
    narrow = scipy.stats.poisson(mean)
    best = wide if wide and wide.logpmf(x).sum() > narrow.logpmf(x).sum() else narrow
    return best.logpmf(y)


def shares(x, y):
    values = np.unique(np.concatenate([x, y]))
    of_each = {v: ((x == v).sum() + 0.5) / (len(x) + len(values) / 2) for v in values}
    return np.log([of_each[v] for v in y])


EXACT = {
    "real": (
        lambda: 1e3 * RNG.normal(size=(200, 3)) + 1e6,
        lambda x, y: scipy.stats.norm(x.mean(), x.std()).logpdf(y),
    ),
    "positive": (
        lambda: RNG.lognormal(5, 2, size=(200, 3)),
        lambda x, y: scipy.stats.lognorm(np.log(x).std(), 0, np.exp(np.log(x).mean())).logpdf(y),
    ),
    "binary": (
        lambda: (RNG.random((200, 3)) < [0.1, 0.5, 0.0]).astype(float),
        lambda x, y: scipy.stats.bernoulli((x.sum() + 0.5) / (len(x) + 1)).logpmf(y),
    ),
    "count": (
        lambda: np.stack(
            [RNG.poisson(3, 200), RNG.negative_binomial(2, 0.1, 200), np.zeros(200)], axis=1
        ),
        counts,
    ),
    "unit": (lambda: RNG.beta([0.3, 2, 5], [3, 2, 0.5], size=(200, 3)), continuous_bernoulli),
    "value": (lambda: RNG.integers([2, 3, 4], size=(200, 3)), shares),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXACT)
def test_densities_are_those_of_scipy(kind):
    draw, exact = EXACT[kind]
    values = draw().astype(float)
    x, y = values[:150], values[150:]
    program = Under(LIKELIHOODS[kind], (3,)).double()
    posterior = Posterior(program, torch.from_numpy(y))
    found = independent_columns(posterior, Batch(x=torch.from_numpy(x)))
    expected = sum(exact(x[:, i], y[:, i]) for i in range(3))
    # SciPy's optimum of the continuous Bernoulli is known to a millionth; all else is exact.
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5 if kind == "unit" else 1e-9)


def test_missing_values_are_neither_learned_from_nor_scored():
    x = torch.from_numpy(RNG.normal(size=(60, 2)))
    mask = torch.from_numpy(RNG.random((60, 2)) < 0.6)
    spoilt = torch.where(mask, x, 1e6)
    program = Under(LIKELIHOODS["real"], (2,)).double()
    test = Batch(x=spoilt[50:], mask=mask[50:])
    found = independent_columns(Posterior(program, test), Batch(x=spoilt[:50], mask=mask[:50]))
    expected = torch.zeros(10, dtype=torch.float64)
    for i in range(2):
        seen = x[:50, i][mask[:50, i]]
        p = dist.Normal(seen.mean(), seen.std(unbiased=False))
        expected += torch.where(mask[50:, i], p.log_prob(x[50:, i]), 0.0)
    torch.testing.assert_close(found, expected)


def test_images_share_a_variance_and_constant_columns_count_for_nothing():
    x = torch.from_numpy(RNG.normal(size=(60, 1, 3, 2)) * [0.0, 1.0])
    program = Under(LIKELIHOODS["real"], (1, 3, 2)).double()
    found = independent_columns(Posterior(program, x[50:]), Batch(x=x[:50]))
    mean = x[:50].mean(0)
    scale = (x[:50] - mean).square().mean().sqrt()
    expected = dist.Normal(mean, scale).log_prob(x[50:]).sum((1, 2, 3))
    torch.testing.assert_close(found, expected)
    table = x[:, 0, 0]
    program = Under(LIKELIHOODS["real"], (2,)).double()
    found = independent_columns(Posterior(program, table[50:]), Batch(x=table[:50]))
    seen = table[:50, 1]
    expected = dist.Normal(seen.mean(), seen.std(unbiased=False)).log_prob(table[50:, 1])
    torch.testing.assert_close(found, expected)


def test_blocks_change_nothing(monkeypatch):
    x = (torch.from_numpy(RNG.random((60, 1, 4, 4))) < 0.3).float()
    posterior = Posterior(VAE((1, 4, 4), latent_dim=2, hidden=(4,)), x[50:])
    whole = independent_columns(posterior, Batch(x=x[:50]))
    monkeypatch.setattr("ppl_vae.evidence.independent.BLOCK", 100)
    torch.testing.assert_close(independent_columns(posterior, Batch(x=x[:50])), whole)


def test_other_supports_are_not_compared():
    x = torch.rand(20, 3)
    posterior = Posterior(Under(lambda zeros: dist.Uniform(zeros - 10, 10.0), (3,)), x)
    assert independent_columns(posterior, Batch(x=x)) is None
