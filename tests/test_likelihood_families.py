"""Every likelihood as a part of programs: shapes, masks, supports, columns, exposure, extremes."""

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

from .likelihood_cases import (
    CODES,
    COLUMNS,
    DISCRETE,
    PURE,
    SHAPES,
    D,
    N,
    distribution,
    every,
    made,
)


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
