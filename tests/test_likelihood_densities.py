"""Every likelihood: normalized, its density scipy's, its draws and moments those of the density."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from .likelihood_cases import CODES, PURE, D, N, distribution, made, pure, values_of


def moments(name, p):
    """Mass, mean and variance of each cell, by summing or integrating the density."""
    values = values_of(name)
    if values is not None:
        mass = p.log_prob(values[:, None, None].expand(-1, N, D)).exp()
    else:
        # Of the logarithm of positive numbers, and of t in units in which tails end.
        points = 280_001 if name == "laplace" else 28_001  # for its kink
        t = torch.linspace(-14, 14, points, dtype=torch.float64)[:, None, None]
        step = (t[1] - t[0]).item()
        if name == "continuous-bernoulli":
            values = (2 * t).sigmoid()
            slope = 2 * values * (-2 * t).sigmoid()
        elif name == "lognormal":
            values, slope = t.exp(), t.exp()
        else:
            values, slope = t.sinh(), t.cosh()
        mass = p.log_prob(values.expand(-1, N, D)).exp() * slope * step
    values = values.reshape(-1, 1, 1)
    mean = (mass * values).sum(0)
    return mass.sum(0), mean, (mass * values.square()).sum(0) - mean.square()


@pure
@torch.no_grad()
def test_sums_or_integrates_to_one_and_has_its_moments(name):
    p = distribution(name)
    mass, mean, variance = moments(name, p)
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=1e-8)
    if name in CODES:
        most_probable = torch.stack([p.log_prob(c.expand(N, D)) for c in values_of(name)]).argmax(0)
        assert torch.equal(p.mean, most_probable.double())
        assert p.variance.isnan().all()
        return
    # The tails of Student's t beyond e^14 have that share of its mean, and of its variance more.
    torch.testing.assert_close(p.mean, mean, rtol=1e-6, atol=1e-6)
    if name != "student-t":
        torch.testing.assert_close(p.variance, variance, rtol=1e-6, atol=1e-6)


def scipys(name, likelihood, output, x):
    """log p of a table by scipy.stats."""
    o, s = output.numpy(), scipy.stats
    scale = getattr(likelihood, "scale", torch.ones(())).detach().numpy()
    if name == "bernoulli":
        return s.bernoulli.logpmf(x, scipy.special.expit(o))
    if name == "gaussian":
        return s.norm.logpdf(x, o, scale)
    if name == "laplace":
        return s.laplace.logpdf(x, o, scale)
    if name == "student-t":
        return s.t.logpdf(x, likelihood.df.detach().numpy(), o, scale)
    if name == "lognormal":
        return s.lognorm.logpdf(x, scale, scale=np.exp(o))
    if name == "poisson":
        return s.poisson.logpmf(x, np.exp(o))
    if "negative" in name:
        theta = likelihood.inverse_dispersion.detach().numpy()
        mean = np.exp(o[:, :D])
        counted = s.nbinom.logpmf(x, theta, theta / (theta + mean))
        if name == "negative-binomial":
            return counted
        zero = scipy.special.expit(o[:, D:])
        return np.log(zero * (x == 0) + (1 - zero) * np.exp(counted))
    if name == "categorical":
        chances = scipy.special.softmax(o.reshape(N, -1, D), 1)
        places = np.meshgrid(range(N), range(D), indexing="ij")
        return np.log(chances[places[0], x.astype(int), places[1]])
    if name == "ordered":
        cuts = likelihood.cutpoints
        steps = scipy.special.log1p(np.exp(cuts.raw_steps.detach().numpy())) + 1e-4
        first = cuts.first.detach().numpy()[:, None]
        points = np.concatenate([first, first + steps.cumsum(1)], 1)
        edges = np.pad(points, ((0, 0), (1, 1)), constant_values=(-np.inf, np.inf))
        below = s.logistic.cdf(edges[None] - o[:, :, None])
        places = np.meshgrid(range(N), range(D), indexing="ij")
        code = x.astype(int)
        return np.log(below[(*places, code + 1)] - below[(*places, code)])
    parts = o.reshape(N, -1, D)
    count = parts.shape[1] // (2 if name == "discretized-logistic" else 3)
    loc, raw = parts[:, :count], parts[:, count : 2 * count]
    shares = scipy.special.softmax(parts[:, 2 * count :], 1) if count > 1 else np.ones_like(loc)
    if count > 1:
        loc = loc + np.linspace(-0.8, 0.8, count)[:, None]
    width = np.log1p(np.exp(raw)) + 1e-3
    level = np.round(16 * x)[:, None]
    high = np.where(level == 16, np.inf, (2 * level + 1) / 16 - 1)
    low = np.where(level == 0, -np.inf, (2 * level - 1) / 16 - 1)
    cdf = [s.logistic.cdf((edge - loc) / width) for edge in (high, low)]
    return np.log((shares * (cdf[0] - cdf[1])).sum(1))


@pytest.mark.parametrize("name", [name for name in PURE if name != "continuous-bernoulli"])
@torch.no_grad()
def test_densities_are_scipys_to_six_digits(name):
    for spread in (0.5, 3.0):
        likelihood = made(name)
        output = spread * torch.randn(N, *likelihood.output_shape, dtype=torch.float64)
        p = likelihood(output)
        for x in (p.sample(), p.sample()):
            expected = scipys(name, likelihood, output, x.numpy())
            np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-6, atol=1e-6)


DRAWS = 20_000
LEVEL = 1e-4  # of each comparison: of all below together, at most 1 in 30 seeds would fail


@pure
@torch.no_grad()
def test_draws_have_the_density(name):
    p = distribution(name)
    x = p.sample((DRAWS,))
    assert x.shape == (DRAWS, N, D)
    assert p.support.check(x).all()
    values = values_of(name)
    for row in range(N):
        for column in range(D):
            drawn = x[:, row, column].numpy()
            if values is None:
                t = np.linspace(-14, 14, 28_001)
                grid = {
                    "lognormal": np.exp,
                    "continuous-bernoulli": lambda t: scipy.special.expit(2 * t),
                }.get(name, np.sinh)(t)
                density = p.log_prob(torch.tensor(grid)[:, None, None].expand(-1, N, D)).exp()
                density = density[:, row, column].numpy()
                mass = np.diff(grid) * (density[1:] + density[:-1]) / 2
                cdf = np.concatenate([[0], mass.cumsum()])
                found = scipy.stats.kstest(drawn, lambda v, g=grid, c=cdf: np.interp(v, g, c))
                assert found.pvalue > LEVEL
                continue
            mass = p.log_prob(values[:, None, None].expand(-1, N, D)).exp()[:, row, column]
            counts = (torch.tensor(drawn)[:, None] == values).sum(0).numpy()
            expected = DRAWS * mass.numpy()
            rare = expected < 10
            seen = np.append(counts[~rare], counts[rare].sum())
            due = np.append(expected[~rare], expected[rare].sum())
            kept = due > 0.5  # a handful of rare values together is left out
            due = due[kept] * seen[kept].sum() / due[kept].sum()
            if kept.sum() > 1:
                assert scipy.stats.chisquare(seen[kept], due).pvalue > LEVEL
