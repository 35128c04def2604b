"""Python state that decides about a step: seen when it changes, or the program is not compiled."""

import functools
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from .both import X, compare, loc, normal, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")

SCALE = 1.0
TABLE = {"scale": 1.0}


class Settings:
    scale = 1.0


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


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


def number_made_zero(kind):
    net = nn.GRU(3, 3, num_layers=2, dropout=0.5)

    def model():
        pyro.module("net", net)
        normal(net(X)[0])

    svi = svi_of(kind, model)
    for step in range(12):
        net.dropout = 0.5 if step < 6 else 0.0
        yield svi.step()


def list_of_hidden_sites(kind):
    hidden = ["one"]

    def model():
        for name in ("one", "two"):
            pyro.sample(name, dist.Normal(loc(), 1.0).to_event(1), obs=torch.full((3,), len(name)))
        pyro.sample("three", dist.Normal(loc(), 1.0).to_event(1), obs=torch.ones(3))

    svi = svi_of(kind, pyro.poutine.block(model, hide=hidden))
    for step in range(12):
        hidden[:] = ["one"] if step < 6 else ["three"]
        yield svi.step()


def function_of_a_library(kind):
    def model():
        normal(nn.functional.softplus(loc()))

    svi, before = svi_of(kind, model), nn.functional.softplus
    try:
        for step in range(12):
            if step == 6:
                nn.functional.softplus = lambda x: 2 * x
            yield svi.step()
    finally:
        nn.functional.softplus = before


CHANGES = {
    "a closure's cell": (changed_cell, "weight in model was 1.0, and now is 2.0"),
    "an argument of a partial": (changed_partial, "['scale'] was 1.0, and now is 2.0"),
    "a mode behind a handler": (mode_behind_a_handler, "net.training was True, and now is False"),
    "the rate of dropout": (dropout_changed, ".p was 0.5, and now is 0.1"),
    "a buffer given another tensor": (buffer_reassigned, "['scale'] is another object now"),
    "a module in another's place": (module_replaced, "['body'] is another object now"),
    "a number that becomes zero": (number_made_zero, "net.dropout was 0.5, and now is 0.0"),
    "a list in a function of a handler": (list_of_hidden_sites, "hide_fn[2] has other items"),
    "a function of a library": (function_of_a_library, "softplus is another object now"),
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


def test_an_argument_that_is_what_the_program_holds_is_told_from_others():
    def program(kind):
        special = SimpleNamespace(x=X.clone())

        def model(x):
            normal(loc(), x, scale=2.0 if x is special.x else 1.0)

        svi = svi_of(kind, model)
        for step in range(12):
            yield svi.step(X if step < 6 else special.x)

    assert compare(program).graphs == 1
