"""Compiled: the results of the function, whoever computes them, and when it is who."""

import re
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae.compiled.engine
from ppl_vae import InputError
from ppl_vae.compiled.engine import Compiled, EagerWarning, worth_compiling
from ppl_vae.compiled.shapes import FIRST_CHECK, MOST_SHAPES

X = torch.tensor([1.0, 2.0, 4.0])


class Counted:
    """A function, and at which calls of a :class:`Compiled` it ran.

    Whatever changes Python's state is never compiled: it counts as one of the engine's own objects,
    which nobody looks into.
    """

    __module__ = "ppl_vae.compiled.counted"

    def __init__(self, function, engine="compiled", **options):
        self.calls, self.ran, self.function = 0, [], function
        self.compiled = Compiled(self.run, engine, **options)

    def run(self, *args, **kwargs):
        if self.ran[-1:] != [self.calls]:
            self.ran.append(self.calls)
        return self.function(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.compiled(*args, **kwargs)

    graphs = property(lambda self: self.compiled.graphs)


@pytest.fixture
def as_it_is(monkeypatch):
    """Graphs run without being compiled."""
    without_gradients = lambda graph, inputs: torch.no_grad()(graph)  # noqa: E731
    monkeypatch.setattr(ppl_vae.compiled.engine, "compile_graph", without_gradients)


@pytest.fixture
def cheap(as_it_is, monkeypatch):
    """It pays at the third call of a shape."""
    monkeypatch.setattr(
        ppl_vae.compiled.engine, "SECONDS_TO_COMPILE", 2.5 * ppl_vae.compiled.engine.SECONDS_SAVED
    )


@pytest.fixture
def warned():
    """What is warned of in the test."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", EagerWarning)
        yield seen


def told_once(seen, pattern):
    (found,) = seen
    assert found.category is EagerWarning
    assert re.search(pattern, str(found.message))


def alike(some, others):
    """Whether two trees of results are the same to the bit, types included."""
    if isinstance(others, torch.Tensor):
        same_kind = isinstance(some, torch.Tensor) and some.dtype == others.dtype
        return same_kind and torch.equal(some, others)
    if isinstance(others, dict):
        return some.keys() == others.keys() and all(alike(some[k], others[k]) for k in others)
    if isinstance(others, tuple | list):
        return len(some) == len(others) and all(map(alike, some, others))
    return type(some) is type(others) and some == others


def test_it_pays_the_more_the_more_calls_and_numbers():
    counts = [0, 1, 10, 1000, 10**5, 10**7]
    table = np.array([[worth_compiling(calls, numbers) for numbers in counts] for calls in counts])
    assert (np.diff(table.astype(int), axis=0) >= 0).all()
    assert (np.diff(table.astype(int), axis=1) >= 0).all()
    assert not table[0].any()
    assert table[-1].all()


def test_an_engine_must_exist():
    with pytest.raises(InputError, match="engine must be one of .*'fast'"):
        Compiled(lambda x: x, "fast")


def test_compiled_is_so_at_its_second_call_and_checked_at_powers_of_two(as_it_is):
    double = Counted(lambda x: 2 * x)
    for call in range(1, 71):
        assert torch.equal(double(X * call), 2 * X * call)
    assert double.ran == [1, 2, *(2 + FIRST_CHECK * k for k in (1, 2, 4))]


def test_compiled_runs_a_second_shape_as_it_is_until_that_pays(as_it_is):
    double = Counted(lambda x: 2 * x)
    for x in (X, X, X, X[:2], X[:2], X[:2], X[:2]):
        assert torch.equal(double(x), 2 * x)
    assert double.ran == [1, 2, 4, 5, 6, 7]
    assert double.graphs == 1


def test_auto_compiles_each_shape_once_that_pays(cheap):
    double = Counted(lambda x: 2 * x, "auto")
    for x in (X, X, X[:2], X[:2], X, X[:2], X, X[:2]):
        assert torch.equal(double(x), 2 * x)
    assert double.ran == [1, 2, 3, 4, 5, 6]
    assert double.graphs == 2


@pytest.mark.parametrize(("engine", "seconds"), [("auto", 15.0), ("eager", 0.0)])
def test_what_does_not_pay_is_never_captured(monkeypatch, engine, seconds):
    monkeypatch.setattr(ppl_vae.compiled.engine, "SECONDS_TO_COMPILE", seconds)
    monkeypatch.delattr(ppl_vae.compiled.engine, "capture")
    double = Counted(lambda x: 2 * x, engine)
    for _ in range(30):
        assert torch.equal(double(X), 2 * X)
    assert len(double.ran) == 30


def test_floats_change_within_one_graph_as_precise_as_the_tensors_beside_them(as_it_is):
    scale, x = Counted(lambda x, by, *, plus: x * by + plus["all"]), X.double()
    for i in range(10):
        assert torch.equal(scale(x, i / 10, plus={"all": 0.3 * i}), x * (i / 10) + 0.3 * i)
    assert scale.ran == [1, 2]


OTHERS = [(2, 3), ("x", "y"), (None, 2), (True, 1), ([1, 2], (1, 2)), (1, 1.0), (X, X[:2])]
OTHERS += [(X, X.double()), (X, X.long())]


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_values_and_kinds_of_tensors_make_another_graph(cheap, one, other):
    run = Counted(lambda x, also, word: (2 * x, word), "auto")
    for _ in range(6):
        for also in (one, other):
            assert alike(run(X, also, word := repr(type(also))), (2 * X, word))
    assert run.graphs == 2


def test_modes_of_modules_make_another_graph(cheap):
    net = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Dropout(0.5)))
    run = Counted(lambda x: net(x).detach(), "auto", modules=[net])
    for call in range(12):
        net[1][0].train(call % 2 == 0)
        state = torch.get_rng_state()
        found = run(X)
        torch.set_rng_state(state)
        assert torch.equal(found, net(X))
    assert run.graphs == 2
    assert run.ran == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("changing", "told"),
    [
        (lambda i: i, "the latest 64: hand it over as a tensor or a float"),
        (lambda i: torch.ones(i), r"the latest a tensor of shape \(64,\): pad or crop it"),
        (lambda i: [X] * i, "in number or structure"),
        (lambda i: i if i < MOST_SHAPES else 0.5, ""),
    ],
)
def test_too_many_shapes_are_told_by_the_argument_that_changes(as_it_is, warned, changing, told):
    first = Counted(lambda x, also: x, "auto", name="Mine")
    for i in range(MOST_SHAPES + 4):
        assert torch.equal(first(X, changing(i)), X)
    told_once(warned, f"Mine runs eagerly: its arguments keep changing, {told}")


def test_there_are_so_many_graphs_and_no_more(cheap, warned, monkeypatch):
    monkeypatch.setattr(ppl_vae.compiled.engine, "MOST_GRAPHS", 2)
    scale = Counted(lambda x, by: x * by, "auto")
    for _ in range(5):
        for by in range(4):
            assert torch.equal(scale(X, by), X * by)
    assert scale.graphs == 2
    told_once(warned, "there are 2 graphs already")


@pytest.mark.parametrize("argument", [{1, 2}, np.ones(2)], ids=["set", "array"])
def test_what_can_change_unseen_is_told(as_it_is, warned, argument):
    total = Counted(lambda x, also: x + sum(also))
    for _ in range(5):
        assert torch.equal(total(X, argument), X + sum(argument))
    assert len(total.ran) == 5
    told_once(warned, f"an argument is a {type(argument).__name__}, which no graph sees into")


def test_control_flow_by_values_is_told_with_file_and_line(as_it_is, warned):
    absolute = lambda x: x if x.sum() > 0 else -x  # noqa: E731
    run = Counted(absolute, name="Mine")
    for sign in (1, -1, 1, -1):
        assert torch.equal(run(sign * X), X)
    line = absolute.__code__.co_firstlineno
    told_once(warned, f"Mine runs eagerly: control flow .*test_engine.py, line {line}")


def test_what_cannot_be_captured_draws_as_if_it_had_not_been_tried(as_it_is, warned):
    draw = lambda x: torch.randn(3) if torch.rand(3).sum() > 1.5 else x  # noqa: E731
    drawn = []
    for engine in ("compiled", "eager"):
        run = Counted(draw, engine)
        torch.manual_seed(3)
        drawn.append(torch.stack([run(X) for _ in range(6)]))
    assert torch.equal(*drawn)
    told_once(warned, "control flow")


def test_what_cannot_be_captured_changes_buffers_once_a_call(as_it_is, warned):
    count = torch.zeros(())

    def choose(x):
        count.add_(1)
        return count * x if x.sum() > 0 else x

    run = Counted(choose)
    for call in range(1, 5):
        assert torch.equal(run(X), call * X)
    told_once(warned, "control flow")


def test_errors_of_the_function_are_its_own(as_it_is, warned):
    holds = {"mine": X}
    run = Counted(lambda x: holds["mine"])
    run(X)
    holds.clear()
    with pytest.raises(KeyError, match="mine"):
        run(X)
    assert warned == []


CHANGES = {
    "a weight": lambda x, on: x * (2.0 if on else 3.0),
    "a float": lambda x, on: (x, 0.5 if on else 0.25),
    "a word": lambda x, on: (x, "on" if on else "off"),
    "no tensor": lambda x, on: (x, 3 * x if on else None),
    "a structure": lambda x, on: {"a": x, "b": x} if on else {"a": x},
    "names": lambda x, on: {"b" if on else "a": x},
    "a shape": lambda x, on: x[:2] if on else x,
    "a type": lambda x, on: x.double() if on else x,
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_in_python_is_seen_at_once(as_it_is, warned, name):
    state = {"on": False}
    run = Counted(lambda x: CHANGES[name](x, state["on"]))
    for call in range(1, 13):
        state["on"] = 5 < call < 9
        assert alike(run(X), CHANGES[name](X, state["on"]))
    assert run.graphs == 1
    assert run.ran == [1, 2, 6, 7, 8]
    told_once(warned, r"state\['on'\] was False, and now is True")


def test_tensors_that_are_changed_in_place_are_followed(as_it_is):
    weight = nn.Parameter(torch.ones(3))
    scale = Counted(lambda x: (x * weight).detach())
    for call in range(40):
        with torch.no_grad():
            weight.fill_(float(call))
        assert torch.equal(scale(X), X * call)
    assert scale.graphs == 1
    assert len(scale.ran) == 4


def test_parameters_of_another_type_make_another_graph(as_it_is):
    net = nn.Linear(3, 2)
    run = Counted(lambda x: net(x.to(net.weight.dtype)).detach())
    for dtype in (torch.float32, torch.float64, torch.float32):
        net.to(dtype)
        for _ in range(4):
            assert alike(run(X), net(X.to(dtype)).detach())


def test_what_is_read_and_then_changed_is_no_cause_to_warn(as_it_is):
    average = torch.zeros(())

    def baseline(x):
        centred = x - average
        average.mul_(0.5).add_(x.mean())
        return centred

    run, expected = Counted(baseline), torch.zeros(())
    for call in range(20):
        assert torch.equal(run(X * call), X * call - expected)
        expected = expected * 0.5 + (X * call).mean()
    assert run.ran == [1, 2, 18]


def test_arguments_are_changed_once_a_call(as_it_is, warned):
    run, x = Counted(lambda x: x.add_(1).sum()), torch.zeros(3)
    for call in range(1, 21):
        assert run(x) == 3 * call
        assert torch.equal(x, torch.full((3,), float(call)))


def test_parts_of_arguments_are_changed_where_they_lie(as_it_is):
    run, x = Counted(lambda x: x.add_(1).sum()), torch.zeros(3, 4)
    for call in range(1, 6):
        assert run(x[:, 1]) == 3 * call
    assert torch.equal(x.sum(0), torch.tensor([0.0, 15.0, 0.0, 0.0]))
    assert run.graphs == 1


def test_handlers_around_a_call_see_the_sites(as_it_is):
    run = Counted(lambda x: pyro.sample("z", dist.Normal(x, 1.0).to_event(1)))
    for _ in range(4):
        run(X)
    with pyro.poutine.trace() as traced:
        found = run(X)
    assert traced.trace.nodes["z"]["value"] is found
    with pyro.poutine.condition(data={"z": X}):
        assert torch.equal(run(X), X)
    assert run.ran == [1, 2, 5, 6]


def test_gradients_go_on_through_arguments(as_it_is, warned):
    run, x = Counted(lambda x: (3 * x).sum()), X.clone().requires_grad_()
    for _ in range(4):
        run(x).backward()
    assert torch.equal(x.grad, torch.full((3,), 12.0))
    told_once(warned, "an argument requires a gradient")


def test_results_are_of_the_same_structure_whoever_computes_them(as_it_is):
    def results(x, by):
        return {"a": (2 * x, None, "word"), "b": [x.sum(), 1.5, {"c": x * by}], "d": (), "e": by}

    run = Counted(results)
    for _ in range(20):
        assert alike(run(X, 7), results(X, 7))
    assert run.graphs == 1


def test_numbers_that_the_function_reads_off_tensors_are_tensors_from_its_graph(as_it_is):
    run = Counted(lambda x, by: [x.sum().item(), by, x.long().sum().item()])
    for i in range(40):
        assert run(X * i, i / 4) == [7.0 * i, i / 4, 7 * i]
    assert run.ran == [1, 2, 18, 34]


def test_graphs_are_forgotten_on_demand(as_it_is):
    run = Counted(lambda x: 2 * x)
    for call in range(6):
        if call == 3:
            run.compiled.shapes.restore({})
            assert run.graphs == 0
        run(X)
    assert run.ran == [1, 2, 4, 5]


@pytest.mark.parametrize("function", [lambda x: 2 * x, lambda x: x if x.sum() > 0 else -x])
def test_who_waits_for_a_graph_is_told_when(as_it_is, warned, function):
    run, told = Counted(function), []
    run.compiled.on_progress = lambda share, note: told.append((bool(note), run.calls))
    for _ in range(5):
        run(X)
    assert told == [(True, 2), (False, 2)]


def test_without_a_compiler_it_runs_as_it_is_and_says_so(warned):
    run = Counted(lambda x: (x.sin() + torch.rand(3)).cumsum(0))
    lacking = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    state = torch.get_rng_state()
    with torch._inductor.config.patch(lacking):
        found = [run(X * i) for i in range(4)]
    torch.set_rng_state(state)
    for i, result in enumerate(found):
        assert torch.equal(result, run.function(X * i))
    assert run.graphs == 0
    told_once(warned, "does not compile here: No working C\\+\\+ compiler .*no-such-compiler")
