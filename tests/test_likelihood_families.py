"""Every likelihood: normalized, its density scipy's, its draws and moments those of the density."""

import math

import numpy as np
import pyro
import pytest
import scipy.special
import scipy.stats
import torch
from torch.distributions import constraints

from ppl_vae.models import (
    LIKELIHOODS,
    Categorical,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    MixedColumns,
    NegativeBinomial,
    Ordered,
    StudentT,
)
from ppl_vae.models.likelihoods.counts import log_growth

D, N = 3, 2
COLUMNS = [
    {"name": "height", "kind": "real", "loc": 170.0, "scale": 12.0},
    {"name": "income", "kind": "positive", "loc": 10.0, "scale": 0.5},
    {"name": "visits", "kind": "count"},
    {"name": "pet", "kind": "category", "categories": ["cat", "dog", "none", "fish"]},
    {"name": "smokes", "kind": "binary"},
    {"name": "grade", "kind": "ordered", "categories": ["low", "middle", "high"]},
    {"name": "sex", "kind": "category", "categories": ["f", "m"]},
    {"name": "weight", "kind": "real", "loc": 70.0, "scale": 9.0},
    {"name": "pain", "kind": "ordered", "categories": ["0", "1", "2", "3", "4"]},
]
SHAPES = {"columns": (len(COLUMNS),)}
CODES = {"categorical": 4, "ordered": 5}


def made(name, shape=None):
    """A likelihood in double precision, its parameters away from where they begin."""
    shape = shape or SHAPES.get(name, (D,))
    given = {"columns": COLUMNS} if name == "columns" else {}
    given |= {"classes": CODES[name]} if name in CODES else {}
    given |= {"levels": 16} if name.startswith("discretized") else {}
    likelihood = LIKELIHOODS[name](shape, **given).double()
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return likelihood


def distribution(name, spread=0.7):
    likelihood = made(name)
    return likelihood(spread * torch.randn(N, *likelihood.output_shape, dtype=torch.float64))


def values_of(name):
    """All values that a cell may have, or None for a density."""
    if name in CODES:
        return torch.arange(CODES[name]).double()
    if name.startswith("discretized"):
        return torch.arange(17).double() / 16
    if name == "bernoulli":
        return torch.tensor([0.0, 1.0]).double()
    return torch.arange(1000).double() if "poisson" in name or "negative" in name else None


PURE = [name for name in LIKELIHOODS if name != "columns"]
DISCRETE = [name for name in PURE if values_of(name) is not None]
REAL = [name for name in PURE if name not in DISCRETE]
every = pytest.mark.parametrize("name", LIKELIHOODS)
pure = pytest.mark.parametrize("name", PURE)
discrete = pytest.mark.parametrize("name", DISCRETE)


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


@every
def test_shapes_expand_and_mask_as_pyros_do(name):
    p = distribution(name)
    shape = SHAPES.get(name, (D,))
    x = p.sample()
    assert (p.batch_shape, p.event_shape) == ((N, *shape), ())
    wide = p.expand((2, N, *shape))
    assert wide.sample().shape == (2, N, *shape)
    assert wide.mean.shape == wide.variance.shape == (2, N, *shape)
    torch.testing.assert_close(wide.log_prob(x), p.log_prob(x).expand(2, N, *shape))
    torch.testing.assert_close(p.to_event(1).log_prob(x), p.log_prob(x).sum(-1))
    mask = torch.rand(N, *shape) < 0.5
    masked = p.mask(mask)
    torch.testing.assert_close(masked.log_prob(x), p.log_prob(x).where(mask, 0.0))
    assert masked.expand((2, N, *shape)).to_event(1).log_prob(x).shape == (2, N)
    assert masked.sample().shape == x.shape
    assert p.sample((5,)).shape == (5, N, *shape)


@every
def test_what_is_missing_may_be_anything(name):
    likelihood = made(name)
    output = torch.randn(N, *likelihood.output_shape, dtype=torch.float64, requires_grad=True)
    p = likelihood(output)
    x = p.sample()
    mask = torch.rand(x.shape) < 0.5
    for nothing in (0.0, torch.nan):
        given = torch.where(mask, x, nothing)
        output.grad = None
        found = p.mask(mask).log_prob(given)
        torch.testing.assert_close(found, p.log_prob(x).where(mask, 0.0))
        found.sum().backward(retain_graph=True)
        assert output.grad.isfinite().all()
        read = likelihood.inputs(given, mask)
        assert read.shape == (N, *likelihood.input_shape)
        assert read.isfinite().all()
        if likelihood.input_shape == likelihood.data_shape and name != "columns":
            assert (read[~mask] == 0).all()
    seen = torch.ones_like(mask)
    torch.testing.assert_close(likelihood.inputs(x, seen), likelihood.inputs(x))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_extremes(name, dtype):
    likelihood = made(name).to(dtype)
    shape = SHAPES.get(name, (D,))
    extremes = torch.tensor([-1e4, -300.0, -20.0, 0.0, 19.0, 300.0, 1e4], dtype=dtype)
    output = extremes[:, None].repeat(1, *likelihood.output_shape).requires_grad_()
    for x in (torch.ones(shape), likelihood(0 * output[0]).sample()):
        log_p = likelihood(output).log_prob(x.to(dtype))
        assert log_p.dtype == dtype
        assert log_p.isfinite().all()
        found = torch.autograd.grad(log_p.sum(), [output, *likelihood.parameters()])
        assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize(
    ("name", "x", "advice"),
    [
        ("poisson", -1.0, "-1 lies outside .* the Poisson likelihood; for real numbers use"),
        ("poisson", 0.5, "0.5 lies outside .* the Poisson"),
        ("negative-binomial", 2.5, "2.5 lies outside .* the negative binomial .* lognormal"),
        ("zero-inflated-negative-binomial", -3.0, "-3 lies outside .* zero-inflated"),
        ("categorical", 4.0, r"4 lies outside .* categorical likelihood; its codes are 0 ... 3"),
        ("categorical", 0.5, "0.5 lies outside"),
        ("ordered", -1.0, r"-1 lies outside .* ordered likelihood; its codes are 0 ... 4"),
        ("lognormal", 0.0, "0 lies outside .* lognormal likelihood; for real numbers use gaussian"),
        ("student-t", math.nan, "nan lies outside .* Student-t .* remove or impute"),
        ("discretized-logistic", 0.03, "0.03 lies outside .* multiples of 1/16"),
        ("discretized-logistic-mixture", 1.5, "1.5 lies outside .* multiples of 1/16"),
    ],
)
def test_data_outside_the_support_are_refused(name, x, advice):
    p = distribution(name)
    with pytest.raises(ValueError, match=advice):
        p.log_prob(torch.full((N, D), x, dtype=torch.float64))


@pytest.mark.parametrize(
    ("column", "x", "advice"),
    [
        (0, math.nan, "column 'height': nan lies outside .* Gaussian .* impute"),
        (1, 0.0, "column 'income': 0 lies outside the support of the lognormal"),
        (2, 1.5, "column 'visits': 1.5 lies outside .* negative binomial"),
        (3, 4.0, r"column 'pet': 4 lies outside .* codes are 0 ... 1 or 0 ... 3"),
        (4, 2.0, "column 'smokes': 2 lies outside .* Bernoulli"),
        (5, 3.0, "column 'grade': 3 lies outside .* ordered"),
        (6, 2.0, "column 'sex': 2 lies outside .* categorical"),
    ],
)
def test_the_column_is_named(column, x, advice):
    p = distribution("columns").expand((2, N, len(COLUMNS)))
    value = p.sample()
    value[1, 1, column] = x
    with pytest.raises(ValueError, match=advice):
        p.log_prob(value)
    assert not p.support.check(value)[1, 1, column]
    assert p.support.check(value).sum() == value.numel() - 1


def test_columns_are_the_likelihoods_of_their_kinds():
    likelihood = made("columns")
    output = torch.randn(N, *likelihood.output_shape, dtype=torch.float64)
    p, x = likelihood(output), likelihood(output).sample()
    log_p, mean, variance = p.log_prob(x), p.mean, p.variance
    begin = 0
    for kind, part in likelihood.parts.items():
        at = [i for i, column in enumerate(COLUMNS) if column["kind"] == kind]
        alone = part(output[:, begin : begin + part.output_shape[0]])
        begin += part.output_shape[0]
        torch.testing.assert_close(log_p[:, at], alone.log_prob(x[:, at]))
        torch.testing.assert_close(mean[:, at], alone.mean)
        torch.testing.assert_close(variance[:, at], alone.variance, equal_nan=True)
    assert begin == output.shape[1] == likelihood.output_shape[0]
    # Standardized, so that networks see numbers of size one.
    assert 100 < mean[:, 0].mean() < 240
    assert 3000 < x[:, 1].mean() < 200_000
    read = likelihood.inputs(x)
    assert read.shape[1] == 2 + 1 + 1 + 1 + 2 * 4 + 2
    torch.testing.assert_close(
        read[:, :2],
        (x[:, [0, 7]] - torch.tensor([170.0, 70.0])) / torch.tensor([12.0, 9.0]),
        check_dtype=False,
    )


def test_only_discrete_columns_are_discrete():
    assert not distribution("columns").support.is_discrete
    counts = [c for c in COLUMNS if c["kind"] not in ("real", "positive")]
    likelihood = MixedColumns((len(counts),), counts)
    assert likelihood(torch.zeros(likelihood.output_shape)).support.is_discrete
    for name in PURE:
        assert bool(distribution(name).support.is_discrete) == (name in DISCRETE)


@pytest.mark.parametrize("name", ["gaussian", "laplace", "student-t", "lognormal"])
def test_standardizing_keeps_the_units_of_the_data(name):
    known = [{"name": "a", "loc": 3.0, "scale": 0.25}, {"name": "b", "loc": -1.0, "scale": 7.0}]
    plain, units = LIKELIHOODS[name]((2,)).double(), LIKELIHOODS[name]((2,), columns=known).double()
    output = torch.randn(N, 2, dtype=torch.float64)
    loc, scale = torch.tensor([3.0, -1.0]), torch.tensor([0.25, 7.0])
    x = units(output).sample()
    standard = (x.log() if name == "lognormal" else x).sub(loc) / scale
    torch.testing.assert_close(units.inputs(x), standard)
    torch.testing.assert_close(units.scale, scale * plain.scale)
    # The density of x is that of the standardized value, times what the map stretches.
    stretch = (scale * x if name == "lognormal" else scale).log()
    before = standard.exp() if name == "lognormal" else standard
    plus = standard if name == "lognormal" else 0.0
    expected = plain(output).log_prob(before) + plus - stretch
    torch.testing.assert_close(units(output).log_prob(x), expected)


def test_exposure_multiplies_the_mean_of_counts():
    for name in ("poisson", "negative-binomial", "zero-inflated-negative-binomial"):
        likelihood = made(name)
        output = torch.randn(N, *likelihood.output_shape, dtype=torch.float64)
        exposure = torch.rand(N, dtype=torch.float64) + 0.5
        ratio = likelihood(output, exposure).mean / likelihood(output).mean
        torch.testing.assert_close(ratio, exposure[:, None].expand(N, D))
        cells = torch.rand(N, D, dtype=torch.float64) + 0.5
        torch.testing.assert_close(
            likelihood(output.expand(2, *output.shape), cells).mean[1],
            likelihood(output).mean * cells,
        )
    mixed = made("columns")
    output = torch.randn(N, *mixed.output_shape, dtype=torch.float64)
    ratio = mixed(output, exposure).mean / mixed(output).mean
    changed = torch.tensor([c["kind"] == "count" for c in COLUMNS])
    torch.testing.assert_close(ratio[:, changed], exposure[:, None])
    counted = mixed(output, torch.full((N, len(COLUMNS)), 2.0)).mean / mixed(output).mean
    torch.testing.assert_close(counted[:, 2], torch.full((N,), 2.0).double())


def test_a_mean_beyond_all_counts_goes_on_as_a_line():
    raw = torch.tensor([-30.0, 0.0, 19.99, 20.0, 20.01, 50.0], dtype=torch.float64)
    expected = torch.where(raw < 20, raw.exp(), math.exp(20) * (raw - 19))
    torch.testing.assert_close(log_growth(raw).exp(), expected)


def test_single_precision_keeps_six_digits_at_any_dispersion_and_tail():
    x, mean = torch.tensor([0.0, 3.0, 40.0]), torch.tensor([2.0, 3.0, 35.0]).log()
    for raw in (-8.0, -2.0, 0.0, 2.3, 2.31, 5.0, 12.0, 19.0):
        found = []
        for dtype in (torch.float32, torch.float64):
            likelihood = NegativeBinomial((3,)).to(dtype)
            torch.nn.init.constant_(likelihood.raw_inverse_dispersion, raw)
            found.append(likelihood(mean.to(dtype)).log_prob(x.to(dtype)).detach().double())
        # Sums of terms up to some hundreds.
        torch.testing.assert_close(found[0], found[1], rtol=2e-5, atol=2e-5)
    theta = likelihood.inverse_dispersion.detach()
    poisson = scipy.stats.poisson.logpmf(x, mean.double().exp())
    np.testing.assert_allclose(found[1], poisson, rtol=1e-5)  # of order 1 / theta
    assert theta.min() > 1e8
    for raw in (-3.0, 3.0, 30.0, 39.0, 41.0, 1000.0, 1e6):
        heavy = StudentT((1,))
        torch.nn.init.constant_(heavy.raw_df, raw)
        log_p = heavy(torch.zeros(1)).log_prob(torch.tensor([2.5])).item()
        exact = scipy.stats.t.logpdf(2.5, heavy.df.item())
        assert log_p == pytest.approx(exact, rel=5e-6)


def test_a_column_of_fewer_codes_has_no_others():
    columns = [{"name": str(k), "categories": [str(i) for i in range(k)]} for k in (2, 5, 3)]
    for kind in (Categorical, Ordered):
        likelihood = kind((3,), columns).double()
        p = likelihood(torch.randn(N, *likelihood.output_shape, dtype=torch.float64))
        for column, count in enumerate((2, 5, 3)):
            mass = 0.0
            for code in range(count):
                x = torch.zeros(N, 3, dtype=torch.float64)
                x[:, column] = code
                mass = mass + p.log_prob(x)[:, column].exp()
            torch.testing.assert_close(mass, torch.ones_like(mass))
            x[:, column] = count
            with pytest.raises(ValueError, match=f"column '{count}': {count} lies outside"):
                p.log_prob(x)
        assert (p.sample((200,)).amax((0, 1)) == torch.tensor([1.0, 4.0, 2.0])).all()
    begun = Ordered((3,), columns)(torch.zeros(3))
    for x, count in ((0.0, (2, 5, 3)), (1.0, (2, 5, 3))):
        expected = 1 / torch.tensor(count)
        torch.testing.assert_close(begun.log_prob(torch.full((3,), x)).exp(), expected)


def test_components_begin_apart_and_are_averaged():
    mixture = DiscretizedLogisticMixture((2,), levels=16, components=3)
    output = torch.zeros(18)
    x = torch.tensor([0.25, 1.0])
    each = [
        DiscretizedLogistic((2,), levels=16)(torch.tensor([m, m, 0.0, 0.0])).log_prob(x)
        for m in (-0.8, 0.0, 0.8)
    ]
    expected = torch.stack(each).exp().mean(0).log()
    torch.testing.assert_close(mixture(output).log_prob(x), expected)


def test_images_have_one_output_after_another_in_channels():
    for name in LIKELIHOODS:
        if name == "columns":
            continue
        given = {"classes": 3} if name in CODES else {}
        likelihood = LIKELIHOODS[name]((2, 5, 4), **given)
        channels, height, width = likelihood.output_shape
        assert (channels % 2, height, width) == (0, 5, 4)
        p = likelihood(torch.randn(7, channels, 5, 4))
        assert p.batch_shape == (7, 2, 5, 4)
        x = p.sample()
        assert likelihood.inputs(x).shape == (7, *likelihood.input_shape)
        assert likelihood.inputs(x, x > 1).shape == (7, *likelihood.input_shape)
        assert p.log_prob(x).isfinite().all()


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: LIKELIHOODS["gaussian"]((3,), columns=COLUMNS), "columns must be one for each"),
        (lambda: MixedColumns((3,)), "columns must be given"),
        (
            lambda: MixedColumns((1,), [{"name": "when", "kind": "date"}]),
            "columns must be of a kind that is one of real, .* but 'when' is 'date'",
        ),
        (
            lambda: MixedColumns((1,), [{"name": "c", "kind": "real", "scale": 0.0}]),
            "columns must vary, but 'c' has scale 0",
        ),
        (lambda: Categorical((2,)), "columns or classes must be given"),
        (lambda: Ordered((2,), classes=1), "classes must be an integer of at least 2, got 1"),
        (
            lambda: Categorical((1,), [{"name": "c", "categories": ["a"]}]),
            "columns must have categories, but 'c' has 1: 2 at least",
        ),
        (
            lambda: MixedColumns((1,), [{"name": "c", "kind": "real", "loc": math.nan}]),
            "columns must have finite numbers, but 'c' has loc nan",
        ),
        (lambda: MixedColumns((1,), [{"kind": "real"}]), "columns must have names, but one is"),
        (lambda: MixedColumns((1,), ["real"]), "columns must be a list of dictionaries"),
        (lambda: DiscretizedLogistic((2,), levels=0), "levels must be an integer of at least 1"),
    ],
)
def test_what_no_likelihood_can_be_made_of_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_supports_are_supports():
    for name in LIKELIHOODS:
        p = distribution(name)
        assert isinstance(p.support, constraints.Constraint)
        with pyro.validation_enabled(True):
            assert p.to_event(1).support.check(p.sample()).all()
