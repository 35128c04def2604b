"""A captured graph is the function: the same operations on whatever its tensors hold by then."""

import copy

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro.util import warn_if_nan
from torch import nn
from torch.utils import _pytree as pytree

from ppl_vae.compiled.capture import CaptureError, capture, rehearsal

X, OTHER = torch.tensor([[0.5, -1.0], [2.0, 0.25], [1.0, 3.0]]), torch.tensor([[3.0, 1.0]] * 3)
CONTROL_FLOW = "control flow depends on the value of a tensor"


def run(found, *inputs):
    """The tensors that a graph returns, without what it adds to gradients."""
    outputs = found.graph(*inputs, *found.closed)
    return outputs[: len(outputs) - len(found.leaves)]


def assert_same(some, others):
    """To the bit, for a graph does what the function does."""
    others = [torch.as_tensor(leaf) for leaf in pytree.tree_leaves(others)]
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one, other)


def first_line_of(function):
    return f"test_capture.py, line {function.__code__.co_firstlineno}"


def network():
    return nn.Sequential(nn.Linear(2, 4), nn.Softplus(), nn.Linear(4, 1))


def test_the_results_are_those_of_the_function_as_it_returned_them():
    found = capture(lambda x: {"twice": (2 * x, None), "name": "x", "two": 2}, X)
    assert found.results["name"] == "x"
    assert found.results["two"] == 2
    assert found.results["twice"][1] is None
    assert torch.equal(found.results["twice"][0], 2 * X)
    assert_same(run(found, OTHER), 2 * OTHER)


def test_gradients_taken_inside_are_in_the_graph():
    net = network()

    def gradients(x):
        loss = net(x).square().sum()
        return {"loss": loss, "gradients": torch.autograd.grad(loss, list(net.parameters()))}

    found = capture(gradients, X)
    assert len(found.closed) == len(list(net.parameters()))
    assert_same(run(found, OTHER), gradients(OTHER))


def test_gradients_left_in_grad_are_in_the_graph():
    net = network()

    def gradients(x):
        net.zero_grad()
        net(x).exp().sum().backward()
        return [parameter.grad for parameter in net.parameters()]

    found = capture(gradients, X)
    assert_same(run(found, OTHER), gradients(OTHER))


def test_tensors_beside_the_arguments_are_read_anew():
    weight, scale = torch.ones(2), nn.Parameter(torch.tensor(2.0))
    found = capture(lambda x: x * weight * scale, X)
    weight.add_(torch.tensor([1.0, 2.0]))
    with torch.no_grad():
        scale.fill_(5.0)
    assert_same(run(found, X), X * torch.tensor([2.0, 3.0]) * 5.0)


def test_the_first_operation_may_be_on_tensors_beside_the_arguments():
    weight, bias = torch.ones(2), torch.tensor([1.0, 2.0])
    found = capture(lambda x: (weight + bias) * x, X)
    bias.fill_(4.0)
    assert_same(run(found, X), 5 * X)


def test_a_function_need_not_have_arguments():
    weight = torch.ones(2)
    found = capture(lambda: (weight.sum(), weight))
    weight.fill_(3.0)
    assert_same(run(found), (torch.tensor(6.0), torch.tensor([3.0, 3.0])))


def test_what_batch_normalization_keeps_is_changed_by_the_graph():
    norm = nn.BatchNorm1d(2)
    like = copy.deepcopy(norm)
    found = capture(norm, X)
    assert_same(list(norm.buffers()), list(like.buffers()))  # a capture is a rehearsal
    outputs = [run(found, x) for x in (OTHER, X)]
    assert_same([output for (output,) in outputs], [like(x) for x in (OTHER, X)])
    assert_same(list(norm.buffers()), list(like.buffers()))
    assert norm.num_batches_tracked == 2


def test_numbers_in_the_text_are_no_inputs_and_start_afresh():
    def total(x):
        so_far = torch.tensor([1.0, 10.0])
        so_far += x.sum()
        return so_far

    found = capture(total, X)
    assert found.closed == ()
    for _ in range(2):
        assert_same(run(found, OTHER), total(OTHER))


def test_a_number_that_item_reads_stays_in_the_graph():
    def loss(x):
        return -x.sum().item() / 2 + x[0, 0].item()

    assert_same(run(capture(loss, X), OTHER), loss(OTHER))


def test_item_reads_a_number_as_it_was():
    def before(x):
        total = x.sum()
        number = total.item()
        total += 1
        return number

    found = capture(before, X)
    assert_same(run(found, OTHER), before(OTHER))
    assert found.results == pytest.approx(before(X))


READERS = {
    "if": lambda x: x if x.sum() > 0 else -x,
    "int": lambda x: x * int(x.sum()),
    "float": lambda x: x * float(x.sum()),
    "index": lambda x: [x, -x][x[0, 0].long()],
    "range": lambda x: [x for _ in range(x[0, 0].long())],
    "tolist": lambda x: x * len(x.tolist()),
    "numpy": lambda x: x * x.numpy().sum().item(),
    "asarray": lambda x: x * np.asarray(x).sum().item(),
    "item": lambda x: x if x.sum().item() > 0 else -x,
    "max": lambda x: max(x[0]),
}


@pytest.mark.parametrize("name", READERS)
def test_what_python_would_do_by_a_value_is_refused_by_file_and_line(name):
    with pytest.raises(CaptureError) as refused:
        capture(READERS[name], X)
    assert str(refused.value) == f"{CONTROL_FLOW} ({first_line_of(READERS[name])})"


def test_the_line_is_that_of_the_program_where_a_library_reads_the_value():
    # The distribution looks at its parameter when it is made.
    normal = lambda x: dist.Normal(x, x.exp(), validate_args=True).log_prob(x)  # noqa: E731
    with pytest.raises(CaptureError, match=first_line_of(normal)):
        capture(normal, X)


VALUES_IN_SHAPES = {
    "a new tensor": lambda x: torch.tensor([x[0, 0], x[0, 1]]),
    "by its keyword": lambda x: torch.tensor(data=[x[0, 0], x[0, 1]]),
    "by an older name": lambda x: x.new([x[0, 0], x[0, 1]]),
    "a count": lambda x: x * len((x > 0.4).nonzero()),
    "a mask": lambda x: x.new_ones(len(x[x > 0.4])),
}


@pytest.mark.parametrize("name", VALUES_IN_SHAPES)
def test_values_do_not_freeze_unseen(name):
    function = VALUES_IN_SHAPES[name]
    try:
        found = capture(function, X)
    except CaptureError:
        return
    assert_same(run(found, OTHER), function(OTHER))


def test_classes_as_one_hot_are_those_of_torch():
    classes, others = torch.tensor([[0, 2], [1, 1]]), torch.tensor([[3, 0], [2, 2]])

    def both(k):
        return F.one_hot(k, 4), F.one_hot(k, num_classes=5), F.one_hot(k[0, 0], 6)

    found = capture(both, classes)
    assert_same(pytree.tree_leaves(found.results), both(classes))
    assert_same(run(found, others), both(others))
    assert all(one.dtype == torch.int64 for one in run(found, others))


def test_distributions_that_validate_are_in_the_graph_without_it():
    normal = dist.Normal(torch.zeros(2), 1.0, validate_args=True)
    bernoulli = dist.Bernoulli(torch.tensor([0.3, 0.6]), validate_args=True)

    def log_prob(x):
        return normal.log_prob(x), bernoulli.log_prob((x > 0).float())

    assert_same(run(capture(log_prob, X), OTHER), log_prob(OTHER))


def test_validation_is_as_before():
    with pyro.validation_enabled(True):
        capture(lambda x: dist.Normal(x, x.exp()).log_prob(x), X)
        assert torch.distributions.Distribution._validate_args
        with pytest.raises(ValueError, match="scale"):
            dist.Normal(X, -1.0)


def test_what_pyro_warns_of_is_in_the_graph_without_it():
    weight = nn.Parameter(torch.ones(2))

    def gradient(x):
        loss = (weight * x).sum()
        warn_if_nan(loss, "loss")
        warn_if_nan(loss.item(), "loss")
        return torch.autograd.grad(loss, weight)

    assert_same(run(capture(gradient, X), OTHER), gradient(OTHER))


def fails(x):
    raise ValueError("nothing fits\nand more of it")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (fails, "nothing fits"),
        (lambda x: {}["absent"], "'absent'"),
        (lambda x: next(iter([])), "StopIteration"),
        (lambda x: x @ torch.ones(3, 2), "mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_errors_are_told_in_one_line(function, message):
    with pytest.raises(CaptureError) as refused:
        capture(function, X)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is not None


@pytest.mark.parametrize(
    "function", [lambda x: x.no_such_thing, lambda x: x + torch.ones(5), lambda x: F.softmax(x, 7)]
)
def test_errors_name_the_line_of_the_program(function):
    with pytest.raises(CaptureError, match=first_line_of(function)):
        capture(function, X)


def test_a_function_that_cannot_be_captured_leaves_torch_as_it_was():
    with pytest.raises(CaptureError):
        capture(lambda x: x if x.sum() > 0 else -x, X)
    assert not torch.compiler.is_compiling()
    assert torch.autograd.is_multithreading_enabled()
    assert float(X.sum()) == pytest.approx(5.75)


@pytest.mark.parametrize("error", [False, True])
def test_a_rehearsal_undoes_draws_and_changes(error):
    norm, unknown = nn.BatchNorm1d(2), torch.tensor([float("nan"), 1.0])
    before = [buffer.clone() for buffer in norm.buffers()]
    state = torch.get_rng_state()
    try:
        with rehearsal((*norm.parameters(), *norm.buffers(), unknown)):
            norm(torch.randn(3, 2))
            unknown.add_(1.0)
            assert norm.num_batches_tracked == 1
            assert not error
    except AssertionError:
        assert error
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(list(norm.buffers()), before)
    assert unknown[0].isnan()
    assert unknown[1] == 1.0


def draws(x):
    """By every kind of generator that there is in torch, and by Pyro."""
    rate = x.abs() + 0.5
    torch.randn(3)  # which no result shows
    return {
        "randn": torch.randn(2, 3),
        "rand": torch.rand(5),
        "like": (torch.rand_like(x), torch.randn_like(x), torch.randint(0, 9, (4,))),
        "normal": (torch.normal(x, rate), x.clone().normal_(), x.clone().uniform_(-1, 1)),
        "poisson": torch.poisson(rate),
        "randperm": torch.randperm(7),
        "bernoulli": torch.bernoulli(torch.sigmoid(x)),
        "multinomial": torch.multinomial(rate, 4, replacement=True),
        "gamma": torch._standard_gamma(rate),
        "dirichlet": torch._sample_dirichlet(rate),
        "binomial": torch.binomial(torch.full_like(x, 10.0), torch.sigmoid(x)),
        "exponential": x.clone().exponential_(),
        "cauchy": (x.clone().cauchy_(), x.clone().log_normal_(), x.clone().geometric_(0.3)),
        "random": torch.empty(4, dtype=torch.uint8).random_(),
        "dropout": F.dropout(x),
        "beta": dist.Beta(rate, rate).rsample(),
        "categorical": dist.Categorical(logits=x).sample(),
        "student": dist.StudentT(rate + 1).rsample(),
        "mises": dist.LowRankMultivariateNormal(x[0], torch.ones(2, 1), torch.ones(2)).rsample(),
    }


def test_a_graph_draws_what_the_function_draws():
    found = capture(draws, X)
    for inputs in (X, OTHER):
        state = torch.get_rng_state()
        expected = draws(inputs)
        after = torch.get_rng_state()
        torch.set_rng_state(state)
        assert_same(run(found, inputs), expected)
        assert torch.equal(torch.get_rng_state(), after)
        assert not torch.equal(state, after)


def test_a_capture_draws_as_one_call_does():
    state = torch.get_rng_state()
    found = capture(draws, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(pytree.tree_leaves(found.results), draws(X))
    assert torch.equal(torch.get_rng_state(), found.drawn[0])
