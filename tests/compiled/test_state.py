"""Python state that decides about a step: seen when it changes, or the program is not compiled."""

import functools
import random
import re
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from .both import X, compare, normal, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")

SCALE = 1.0
TABLE = {"scale": 1.0}


class Settings:
    scale = 1.0


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


def loc():
    return pyro.param("loc", torch.zeros(3))


def in_attribute(on):
    settings.scale = 2.0 if on else 1.0


settings = Settings()
space = SimpleNamespace(inner=Settings())
slotted = Slotted()
layers = [1.0, 1.0]
array = np.ones(2)


def in_class(on):
    Settings.scale = 2.0 if on else 1.0


def in_global(on):
    global SCALE
    SCALE = 2.0 if on else 1.0


def in_dict(on):
    TABLE["scale"] = 2.0 if on else 1.0


def in_namespace(on):
    space.inner.scale = 2.0 if on else 1.0


def in_slot(on):
    slotted.scale = 2.0 if on else 1.0


def in_list(on):
    layers[1] = 2.0 if on else 1.0


def in_array(on):
    array[1] = 2.0 if on else 1.0


class Computed:
    kind = "scale"

    def __init__(self):
        self.scale = self._hidden = 1.0

    @property
    def doubled(self):
        return 2 * self._hidden


computed = Computed()


def by_getattr(on):
    computed.scale = 2.0 if on else 1.0


def by_property(on):
    computed._hidden = 2.0 if on else 1.0


READERS = {
    "attribute": (lambda: settings.scale, in_attribute, "settings.scale"),
    "class": (lambda: Settings.scale, in_class, "Settings.scale"),
    "global": (lambda: SCALE, in_global, "SCALE"),
    "dictionary": (lambda: TABLE["scale"], in_dict, "TABLE['scale']"),
    "namespace": (lambda: space.inner.scale, in_namespace, "space.inner.scale"),
    "slot": (lambda: slotted.scale, in_slot, "slotted.scale"),
    "list": (lambda: sum(layers), in_list, "layers"),
    "array": (lambda: float(array.sum()), in_array, "array"),
    "getattr": (lambda: getattr(computed, computed.kind), by_getattr, "computed.scale"),
    "property": (lambda: computed.doubled, by_property, "_hidden"),
}


@pytest.mark.parametrize("name", READERS)
def test_what_changes_between_steps_is_seen_at_once(name):
    read, change, called = READERS[name]

    def model():
        normal(loc(), scale=read())

    def program(kind):
        svi = svi_of(kind, model)
        for step in range(24):
            change(on=8 <= step < 12 or step == 20)
            yield svi.step()
        change(on=False)

    outcome = compare(program)
    assert outcome.graphs == 1
    ((step, reason),) = outcome.reasons
    assert step == 8
    assert called in reason


def changed_cell(kind):
    weight = 1.0

    def model():
        normal(loc(), scale=weight)

    svi = svi_of(kind, model)
    for step in range(12):
        weight = 1.0 + step // 6
        yield svi.step()


def changed_partial(kind):
    table = {"scale": 1.0}
    svi = svi_of(kind, functools.partial(lambda table: normal(loc(), scale=table["scale"]), table))
    for step in range(12):
        table["scale"] = 1.0 + step // 6
        yield svi.step()


def mode_behind_a_handler(kind):
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3))

    def model():
        pyro.module("net", net)
        normal(net(X))

    svi = svi_of(kind, pyro.poutine.scale(model, scale=0.1))
    for step in range(12):
        net.train(step < 6)
        yield svi.step()
        yield svi.evaluate_loss()


def dropout_changed(kind):
    net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3))

    def model():
        pyro.module("net", net)
        normal(net(X))

    svi = svi_of(kind, model)
    for step in range(12):
        net[1].p = 0.5 if step < 6 else 0.1
        yield svi.step()


def buffer_reassigned(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(1.0))

        def model(self):
            normal(loc(), scale=self.scale)

    net = Net()
    svi = svi_of(kind, net.model)
    for step in range(12):
        if step % 3 == 0:
            net.scale = torch.tensor(1.0 + step)
        yield svi.step()


def module_replaced(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 3)

        def model(self):
            normal(self.body(X))

    net, other = Net(), nn.Linear(3, 3)
    svi = svi_of(kind, net.model)
    for step in range(12):
        if step == 6:
            net.body = other
        yield svi.step()


def handler_changed(kind):
    scale = pyro.poutine.scale_messenger.ScaleMessenger(1.0)
    svi = svi_of(kind, scale(lambda: normal(loc())))
    for step in range(12):
        scale.scale = 1.0 + step // 6
        yield svi.step()


def objective_changed(kind):
    def guide():
        z = pyro.param("z_loc", torch.zeros(3))
        pyro.sample("z", dist.Normal(z, 1.0).to_event(1))

    def model():
        normal(pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1)))

    loss = pyro.infer.Trace_ELBO(num_particles=1)
    svi = svi_of(kind, model, guide, loss=loss)
    for step in range(12):
        loss.num_particles = 1 if step < 6 else 3
        yield svi.step()


def model_replaced(kind):
    svi = svi_of(kind, lambda: normal(loc()))
    for step in range(12):
        if step == 6:
            svi.model = lambda: normal(loc(), scale=2.0)
        yield svi.step()


def setting_changed(kind):
    matrix = torch.ones(3, 3)

    def model():
        covariance = matrix + 1e-3 * torch.eye(3)
        jitter = pyro.settings.get("cholesky_relative_jitter")
        normal(loc(), scale=torch.linalg.cholesky(covariance).diagonal().sum() + jitter)

    svi = svi_of(kind, model)
    for step in range(12):
        with pyro.settings.context(cholesky_relative_jitter=4.0 if step < 6 else 8.0):
            yield svi.step()


CHANGES = {
    "a closure's cell": (changed_cell, "weight in model was 1.0, and now is 2.0"),
    "an argument of a partial": (changed_partial, "['scale'] was 1.0, and now is 2.0"),
    "a mode behind a handler": (mode_behind_a_handler, "net.training was True, and now is False"),
    "the rate of dropout": (dropout_changed, ".p was 0.5, and now is 0.1"),
    "a buffer given another tensor": (buffer_reassigned, "['scale'] is another object now"),
    "a module in another's place": (module_replaced, "['body'] is another object now"),
    "a handler's number": (handler_changed, ".scale was 1.0, and now is 2.0"),
    "an objective's particles": (objective_changed, "num_particles was 1, and now is 3"),
    "the model of an SVI": (model_replaced, "model is another object now"),
    "a setting of Pyro": (setting_changed, "cholesky_relative_jitter was 4.0, and now is 8.0"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_program_that_is_changed_is_run_as_it_is(name):
    program, reason = CHANGES[name]
    outcome = compare(program)
    assert outcome.graphs >= 1
    assert any(reason in told for _, told in outcome.reasons)


def by_python(kind):
    def model():
        normal(loc() + (random.random() < 0.3))

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def by_numpy(kind):
    def model():
        normal(loc() + np.random.normal())

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def by_a_generator(kind):
    coin = np.random.default_rng(0)

    def model():
        normal(loc() + coin.random())

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def by_torchs_own(kind):
    own = torch.Generator().manual_seed(1)

    def model():
        normal(loc() + torch.rand(3, generator=own))

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def from_an_iterator(kind):
    batches = iter(range(100))

    def model():
        normal(loc() + next(batches))

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def counted(kind):
    count = [0]

    def model():
        count[0] += 1
        normal(loc() + count[0])

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()
    yield count[0]


def averaged(kind):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torch.zeros(3)

        def model(self):
            self.mean = 0.9 * self.mean + 0.1 * X.mean(0)
            normal(loc() + self.mean)

    net = Net()
    svi = svi_of(kind, net.model)
    for _ in range(12):
        yield svi.step()
    yield net.mean.sum()


def appended(kind):
    seen = []

    def model():
        mean = loc()
        seen.append(mean.sum().item())
        normal(mean)

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()
    assert all(type(value) is float for value in seen)
    yield from seen


@functools.lru_cache
def cached():
    return Settings()


def in_a_cache(kind):
    def model():
        normal(loc(), scale=cached().scale)

    svi = svi_of(kind, model)
    for step in range(12):
        cached().scale = 1.0 + step // 6
        yield svi.step()


def by_name_of_a_global(kind):
    global SCALE

    def model():
        normal(loc(), scale=globals()["SCALE"])

    svi = svi_of(kind, model)
    for step in range(12):
        SCALE = 1.0 + step // 6
        yield svi.step()
    SCALE = 1.0


def branching(kind):
    def model():
        mean = loc()
        normal(mean + 1.0 if mean.sum() > -0.05 else mean - 1.0)

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def failing_once(kind):
    net = nn.Linear(3, 3)

    def model():
        pyro.module("net", net)
        normal(torch.as_tensor(net(X).tolist()) + loc())

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


NEVER = {
    "Python's random numbers": (by_python, "it draws Python's random numbers"),
    "NumPy's random numbers": (by_numpy, "it draws NumPy's random numbers"),
    "a generator of NumPy's": (by_a_generator, "it draws from coin, a Generator of its own"),
    "a generator of torch's": (by_torchs_own, "it draws from own, a Generator of its own"),
    "an iterator": (from_an_iterator, "it reads batches, a range_iterator"),
    "a counter": (counted, "it changes count"),
    "an average by assignment": (averaged, "it changes self.mean"),
    "a list that grows": (appended, "it changes seen"),
    "a cache": (in_a_cache, "it calls cached, which keeps its results"),
    "globals by name": (by_name_of_a_global, "it reads globals"),
    "a branch by a value": (branching, r"control flow .*test_state.py, line \d+"),
    "values in Python": (failing_once, r"control flow .*test_state.py, line \d+"),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_no_graph_can_follow_is_never_compiled(name):
    program, reason = NEVER[name]
    outcome = compare(program)
    assert outcome.graphs == 0
    ((step, told),) = outcome.reasons
    assert step == 1
    assert re.search(reason, told)
    assert "\n" not in told


def test_it_prints_at_each_step(capsys):
    def program(kind):
        def model():
            print("here")  # noqa: T201
            normal(loc())

        svi = svi_of(kind, model)
        for _ in range(6):
            yield svi.step()

    outcome = compare(program)
    assert capsys.readouterr().out == "here\n" * 12
    assert outcome.graphs == 0
    assert "it prints" in outcome.reasons[0][1]


def one_tensor_twice(kind):
    def model(inputs, targets):
        normal(inputs @ pyro.param("w", torch.eye(3)), targets)

    svi = svi_of(kind, model)
    for step in range(12):
        yield svi.step(X if step < 5 else X + 3.0, X)


def an_argument_that_is_a_global(kind):
    def model(x):
        normal(loc() + x.mean() - X.mean())

    svi = svi_of(kind, model)
    for step in range(12):
        yield svi.step(X if step < 5 else X + 3.0)


def trees_of_tensors(kind):
    Pair = namedtuple("Pair", ["x", "more"])

    def model(pair, *, flag, options):
        normal(loc() + options["shift"][0] + (1.0 if flag else 0.0), pair.x + pair.more)

    svi = svi_of(kind, model)
    for step in range(12):
        shift = torch.full((3,), float(step))
        options = {"shift": [shift], "name": "a"}
        yield svi.step(Pair(X + step, 0.1 * step), flag=step % 2 == 0, options=options)


def parametrized(kind):
    net = parametrizations.weight_norm(nn.Linear(3, 3))

    def model():
        pyro.module("net", net)
        normal(net(X))

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()


def batch_normalized(kind):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    def model():
        pyro.module("net", net)
        normal(net(X))

    svi = svi_of(kind, model)
    for _ in range(12):
        yield svi.step()
    yield net[1].running_var.sum()


COMPILED = {
    "one tensor for two arguments": one_tensor_twice,
    "an argument that is a global, too": an_argument_that_is_a_global,
    "trees of tensors and flags": trees_of_tensors,
    "weight normalization": parametrized,
    "batch normalization": batch_normalized,
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_a_graph_can_follow_is_compiled(name):
    outcome = compare(COMPILED[name])
    assert outcome.graphs >= 1
    assert outcome.reasons == []


@pytest.mark.parametrize(
    "given", [Settings(), SimpleNamespace(x=X), {1, 2}, np.ones(3), X.to_sparse()]
)
def test_arguments_that_may_change_unseen_are_told(given):
    def program(kind):
        svi = svi_of(kind, lambda given: normal(loc()))
        for _ in range(4):
            yield svi.step(given)

    outcome = compare(program)
    assert outcome.graphs == 0
    assert "an argument" in outcome.reasons[0][1]
