"""Compiled graphs: as accurate as torch, held against longer numbers, and the same draws."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

from ppl_vae.compiled.capture import capture
from ppl_vae.compiled.engine import Compiled
from ppl_vae.compiled.kernels import LONGEST, compile_graph, log1p_of_unit

DTYPES = [torch.float32, torch.float64]
MAGNITUDES = [0.0, 1e-30, 1e-8, 1e-3, 0.5, 1.0, 2.0, 5.0, 10.0, 19.9, 20.5, 40.0, 100.0, 700.0]
EXTREMES = [float("inf"), float("-inf"), float("nan")]
X = torch.tensor([sign * x for x in MAGNITUDES for sign in (1, -1)] + EXTREMES).double()
FINITE = slice(len(X) - len(EXTREMES))
TARGETS = torch.tensor([0.0, 1.0, 0.3]).repeat(len(X))[: len(X)].double()
WEIGHTS = torch.linspace(0.5, 2.0, len(X)).double()


def compiled(function, *inputs):
    """The function through a compiled graph, which returns the tensors of its results."""
    found = capture(function, *inputs)
    run = compile_graph(found.graph, [*inputs, *found.closed])
    spec = pytree.tree_structure(found.results)
    return lambda *x: pytree.tree_unflatten(run(*x, *found.closed), spec)


def long(tensor):
    """As numpy's longest numbers, of 64 bits after the point on x86."""
    return tensor.double().numpy().astype(np.longdouble)


def assert_within(value, exact, bound):
    """Where the exact value is no finite number, the value must be the same."""
    value, finite = long(value), np.isfinite(exact)
    bound = np.broadcast_to(bound, exact.shape)
    np.testing.assert_array_equal(value[~finite], exact[~finite])
    assert (np.abs(value[finite] - exact[finite]) <= bound[finite]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_log1p_of_unit_is_within_three_units_in_the_last_place(dtype):
    # Two roundings in s, one in the sum, one in the product, each of half a unit; a quarter
    # of one for the terms left out; a unit for what the small terms of the sum inherit.
    finfo = torch.finfo(dtype)
    small = torch.logspace(torch.tensor(finfo.tiny).log10() + 1, 0, 5000, dtype=torch.float64)
    u = torch.cat([torch.zeros(1), small, torch.linspace(0, 1, 5001)]).clamp(max=1).to(dtype)
    exact = np.log1p(long(u))
    assert_within(log1p_of_unit(u), exact, 3 * finfo.eps * exact)


def likelihoods(x, target, weight):
    """Losses that a series computes, and, by the last, what must be left to torch."""
    leaf = x.detach().requires_grad_()
    entropy = F.binary_cross_entropy_with_logits
    losses = {
        "softplus": F.softplus(leaf),
        "log-sigmoid": F.logsigmoid(leaf),
        "none": entropy(leaf, target, reduction="none"),
    }
    finite, t, w = x[FINITE], target[FINITE], weight[FINITE]
    return {name: loss.detach() for name, loss in losses.items()} | {
        "gradients": {
            name: torch.autograd.grad(loss[FINITE].sum(), leaf)[0][FINITE]
            for name, loss in losses.items()
        },
        "mean": entropy(finite, t),
        "sum": entropy(finite, t, reduction="sum"),
        "weighed": entropy(finite, t, weight=w, reduction="none"),
        "of positives": entropy(finite, t, pos_weight=w, reduction="none"),
        "weighed sum": entropy(finite, t, weight=w, pos_weight=w, reduction="sum"),
        "beta": F.softplus(x, beta=2.0),
        "threshold": F.softplus(x, threshold=1.0),
    }


@pytest.fixture(scope="module")
def series():
    """Results of one graph for both precisions, by dtype."""

    def both(*tensors):
        return [likelihoods(*(t.to(dtype) for t in tensors)) for dtype in DTYPES]

    results = compiled(both, X, TARGETS, WEIGHTS)(X, TARGETS, WEIGHTS)
    return dict(zip(DTYPES, results, strict=True))


def given(dtype):
    """Logits as they are after rounding, targets and weights, in long numbers."""
    return [long(tensor.to(dtype)) for tensor in (X, TARGETS, WEIGHTS)]


def softplus(x):
    with np.errstate(invalid="ignore"):  # as from a NaN comes another
        return np.logaddexp(np.longdouble(0), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_and_log_sigmoid_keep_their_digits_far_out(series, dtype):
    # Three units for the logarithm, one or two for the exponential; fixed ones where exp(-|x|)
    # has no digits left.
    finfo, (x, _, _) = torch.finfo(dtype), given(dtype)
    lost = finfo.tiny * finfo.eps * 4 if dtype == torch.float64 else 2.0**-147
    for name, exact in {"softplus": softplus(x), "log-sigmoid": -softplus(-x)}.items():
        assert_within(series[dtype][name], exact, 5 * finfo.eps * np.abs(exact) + lost)


# What a loss is, by logit, target and weight: sums of positive terms, in which nothing cancels.
CROSS_ENTROPIES = {
    "none": lambda x, t, w: (1 - t) * softplus(x) + t * softplus(-x),
    "weighed": lambda x, t, w: w * ((1 - t) * softplus(x) + t * softplus(-x)),
    "of positives": lambda x, t, w: (1 - t) * softplus(x) + w * t * softplus(-x),
    "weighed sum": lambda x, t, w: w * ((1 - t) * softplus(x) + w * t * softplus(-x)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["none", "weighed", "of positives"])
def test_cross_entropy_is_exact_beside_its_logit(series, dtype, name):
    # As in torch, where terms as large as the logit cancel, too.
    x, t, w = (values[FINITE] for values in given(dtype))
    bound = 6 * torch.finfo(dtype).eps * (1 + np.abs(x)) * (1 if name == "none" else w.max())
    assert_within(series[dtype][name][FINITE], CROSS_ENTROPIES[name](x, t, w), bound)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["mean", "sum", "weighed sum"])
def test_cross_entropy_is_summed_as_torch_does(series, dtype, name):
    x, t, w = (values[FINITE] for values in given(dtype))
    exact = CROSS_ENTROPIES["weighed sum" if name == "weighed sum" else "none"](x, t, w)
    size = np.sum(exact + np.abs(x)) * (w.max() ** 2 if name == "weighed sum" else 1)
    bound = (len(x) + 6) * torch.finfo(dtype).eps * size
    share = len(x) if name == "mean" else 1
    assert_within(series[dtype][name], np.sum(exact) / share, bound / share)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_those_of_the_functions_themselves(series, dtype):
    eps, (x, t, _) = torch.finfo(dtype).eps, (values[FINITE] for values in given(dtype))
    sigmoid = np.exp(-softplus(-x))
    slopes = {"softplus": sigmoid, "log-sigmoid": 1 - sigmoid, "none": sigmoid - t}
    for name, slope in slopes.items():
        # torch takes softplus for the identity beyond 20, where its slope is off by exp(-20).
        beyond = np.where(x > 20, np.exp(-x), 0) if name == "softplus" else 0
        assert_within(series[dtype]["gradients"][name], slope, 4 * eps + beyond)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "value"), [("beta", 2.0), ("threshold", 1.0)])
def test_softplus_of_other_options_is_left_to_torch(series, dtype, name, value):
    exact = long(F.softplus(X.to(dtype).double(), **{name: value}))
    finfo = torch.finfo(dtype)
    assert_within(series[dtype][name], exact, 8 * finfo.eps * np.abs(exact) + finfo.tiny)


SHAPES = [(5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 1, 1), (0, 7, 3), (5, 0, 3), (9, 99, 33)]
# How a matrix is kept, and how it is read.
LAYOUTS = {
    "rows": (lambda a: a, lambda a: a),
    "columns": (lambda a: a.t().contiguous(), lambda a: a.t()),
    "strides": (lambda a: a.repeat_interleave(2, 1), lambda a: a[:, ::2]),
}
CASES = [
    *itertools.product(SHAPES, [torch.float32], ["rows", "columns"], ["rows", "columns"]),
    *itertools.product(SHAPES[:1], [torch.float32], ["strides"], LAYOUTS),
    *itertools.product(SHAPES[:2], [torch.float64], LAYOUTS, ["columns", "strides"]),
]


def matrices(shape, dtype):
    """Two factors, and what is added to a product: a row, a row of one for all, and a matrix."""
    m, k, n = shape
    made = torch.Generator().manual_seed(m + k + n)
    shapes = (m, k), (k, n), (n,), (1,), (m, n)
    return [torch.randn(*shape, generator=made, dtype=torch.float64).to(dtype) for shape in shapes]


def products(case, a, b, row, one, matrix):
    _, _, layout, other = case
    a, b = LAYOUTS[layout][1](a), LAYOUTS[other][1](b)
    usual = {"mm": torch.mm(a, b), "a row": torch.addmm(row, a, b)}
    if not layout == other == "rows":
        return usual
    return usual | {
        "one": torch.addmm(one, a, b),
        "a matrix": torch.addmm(matrix, a, b),
        "shares": torch.addmm(row, a, b, beta=0.5, alpha=2.0),
    }


def test_products_are_as_accurate_as_their_length_allows():
    """In one graph, for it takes as long to compile as many."""
    given, kept = [matrices(*case[:2]) for case in CASES], []
    for (_, _, layout, other), (a, b, *rest) in zip(CASES, given, strict=True):
        kept += [LAYOUTS[layout][0](a), LAYOUTS[other][0](b), *rest]

    def all_products(*tensors):
        return [products(case, *tensors[5 * i : 5 * i + 5]) for i, case in enumerate(CASES)]

    results = compiled(all_products, *kept)(*kept)
    for (shape, dtype, _, _), inputs, found in zip(CASES, given, results, strict=True):
        exact = products((0, 0, "rows", "rows"), *(x.double() for x in inputs))
        # Higham's bound: each sum of as many products, in any order, and what is added to it.
        sizes = products((0, 0, "rows", "rows"), *(x.double().abs() for x in inputs))
        for name, value in found.items():
            assert value.dtype == dtype
            assert value.is_contiguous()
            bound = (shape[1] + 3) * torch.finfo(dtype).eps * long(sizes[name])
            assert_within(value, long(exact[name]), bound)


def test_a_graph_draws_and_changes_what_the_function_does():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
    like, x = copy.deepcopy(net), torch.randn(50, 2)

    def draws(net, x):
        rate = x.abs() + 0.5
        torch.randn(3)  # which no result shows
        return {
            "network": net(x),
            "normal": (torch.randn(2, 3), torch.randn_like(x), torch.normal(x, rate)),
            "uniform": (torch.rand(5), x.clone().uniform_(-1, 1)),
            "whole": (torch.randperm(7), torch.randint(0, 9, (4,)), torch.poisson(rate)),
            "bernoulli": torch.bernoulli(torch.sigmoid(x)),
            "multinomial": torch.multinomial(rate, 4, replacement=True),
            "gamma": (torch._standard_gamma(rate), torch._sample_dirichlet(rate)),
            "exponential": x.clone().exponential_(),
            "after all": torch.randn(3),
        }

    run = compiled(lambda x: draws(net, x), x)
    net.load_state_dict(like.state_dict())
    for _ in range(2):
        state = torch.get_rng_state()
        expected = draws(like, x)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        for one, other in zip(*map(pytree.tree_leaves, (run(x), expected)), strict=True):
            torch.testing.assert_close(one, other)
        assert torch.equal(torch.get_rng_state(), after)
    torch.testing.assert_close(dict(net.state_dict()), dict(like.state_dict()))


def test_compiled_graphs_and_their_checks_draw_what_the_function_draws():
    norm = nn.BatchNorm1d(2)

    def draw(x):
        return torch.randn(3), torch.poisson(x), norm(torch.rand_like(x)).detach(), torch.rand(2)

    ends = []
    for engine in ("compiled", "eager"):
        norm.reset_running_stats()
        torch.manual_seed(3)
        run = Compiled(draw, engine)
        results = [run(torch.full((5, 2), float(i))) for i in range(36)]
        ends.append((results, torch.get_rng_state(), norm.running_var.clone()))
    (results, state, kept), (expected, expected_state, expected_kept) = ends
    for found, own in zip(results, expected, strict=True):
        assert all(torch.equal(found[i], own[i]) for i in (0, 1, 3))
    torch.testing.assert_close(results, expected)
    torch.testing.assert_close(kept, expected_kept)
    assert torch.equal(state, expected_state)


def test_tensors_may_be_laid_out_in_any_way():
    weight = torch.randn(2, 3)
    run = Compiled(lambda x: x @ weight.t(), "compiled")
    wide = torch.randn(13)
    rows = torch.randn(4, 3)
    layouts = (rows, rows, torch.randn(3, 4).t(), rows[:1].expand(4, 3), wide[1:].reshape(4, 3))
    for x in (*layouts, torch.randn(8, 6)[::2, ::2]):
        torch.testing.assert_close(run(x), x @ weight.t())
    assert run.graphs == 1
    for value in (torch.randn(3, 2).t(), torch.randn(5, 3)):
        weight.data = value
        torch.testing.assert_close(run(rows), rows @ weight.t())


def test_a_graph_that_would_take_minutes_to_compile_is_run_as_it_is(monkeypatch):
    def function(x):
        for _ in range(LONGEST):
            x = x + 1
        return x

    def refused(*args, **kwargs):
        raise AssertionError("compiled")

    monkeypatch.setattr(torch._inductor, "standalone_compile", refused)
    x = torch.zeros(3)
    run = compile_graph(capture(function, x).graph, [x])
    assert torch.equal(run(x)[0], torch.full((3,), float(LONGEST)))
