"""Objects that hold what decides about a step, of all kinds that users have."""

import argparse
import collections
import functools
import importlib
import os
from dataclasses import dataclass, field

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn

from .both import X, compare, loc, normal, steps, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


class Derived(list):
    scale = 1.0


class ADropout(nn.Dropout):
    pass


class AScale(pyro.poutine.scale_messenger.ScaleMessenger):
    pass


@dataclass
class Inner:
    scale: float = 1.0


@dataclass
class Outer:
    inner: Inner = field(default_factory=Inner)


class Delegating:
    def __init__(self):
        self.__dict__["store"] = {"scale": 1.0}

    def __getattr__(self, name):
        return self.store[name]


def decorated(holder):
    def decorator(function):
        @functools.wraps(function)
        def wrapper():
            with pyro.poutine.scale(scale=holder["scale"]):
                function()

        return wrapper

    return decorator


def of_user_dict():
    holder = collections.UserDict(scale=1.0)
    return lambda: normal(loc(), scale=holder["scale"]), lambda v: holder.update(scale=v)


def of_derived_list():
    holder = Derived([1.0])
    return lambda: normal(loc(), scale=holder.scale), lambda v: setattr(holder, "scale", v)


def of_derived_module():
    net = nn.Sequential(nn.Linear(3, 3), ADropout(0.5))

    def model():
        pyro.module("net", net)
        normal(net(X))

    return model, lambda v: setattr(net[1], "p", 0.5 / v)


def of_derived_handler():
    holder = AScale(1.0)

    def model():
        with holder:
            normal(loc())

    return model, lambda v: setattr(holder, "scale", v)


def of_conditioned_data():
    data = {"shift": torch.tensor(1.0)}

    def model():
        shift = pyro.sample("shift", dist.Normal(0.0, 1.0))
        normal(loc() + shift)

    return pyro.poutine.condition(model, data=data), lambda v: data.update(shift=torch.tensor(v))


def of_dataclasses():
    holder = Outer()
    return (
        lambda: normal(loc(), scale=holder.inner.scale),
        lambda v: setattr(holder.inner, "scale", v),
    )


def of_delegation():
    holder = Delegating()
    return lambda: normal(loc(), scale=holder.scale), lambda v: holder.store.update(scale=v)


def of_decorator():
    holder = {"scale": 1.0}
    return decorated(holder)(lambda: normal(loc())), lambda v: holder.update(scale=v)


def of_options():
    holder = argparse.Namespace(scale=1.0, other=[1])
    return lambda: normal(loc(), scale=holder.scale), lambda v: setattr(holder, "scale", v)


def of_objects_in_a_dictionary():
    holders = {"a": Inner()}

    def all_of_them():
        return holders

    def model():
        all_of_them()
        normal(loc(), scale=holders["a"].scale)

    return model, lambda v: setattr(holders["a"], "scale", v)


def of_a_tensor():
    holder = torch.ones(3)
    holder.scale = 1.0
    return lambda: normal(loc() * holder, scale=holder.scale), lambda v: setattr(holder, "scale", v)


def of_a_pyro_module():
    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.scale = PyroParam(torch.tensor(1.0), dist.constraints.positive)
            self.factor = 1.0

        def forward(self):
            normal(loc() * self.factor, scale=self.scale)

    holder = Model()
    return holder, lambda v: setattr(holder, "factor", v)


def of_a_list_of_modules():
    nets, chosen = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)]), Inner(scale=0)

    def model():
        pyro.module("nets", nets)
        normal(nets[chosen.scale](X))

    return model, lambda v: setattr(chosen, "scale", int(v) - 1)


HOLDERS = [
    of_user_dict,
    of_derived_list,
    of_derived_module,
    of_derived_handler,
    of_conditioned_data,
    of_dataclasses,
    of_delegation,
    of_decorator,
    of_options,
    of_objects_in_a_dictionary,
    of_a_tensor,
    of_a_pyro_module,
    of_a_list_of_modules,
]


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_number_that_an_object_holds_is_followed(holder):
    def program(kind):
        model, change = holder()
        svi = svi_of(kind, model)
        for step in range(12):
            if step == 6:
                change(2.0)
            yield svi.step()

    outcome = compare(program)
    assert outcome.graphs == 1
    ((step, reason),) = outcome.reasons
    assert step == 6
    assert "since it was compiled" in reason


class Counter:
    count, bad = 0, False


def counting(kind):
    Counter.count = 0

    def model():
        Counter.count += 1
        normal(loc() + Counter.count)

    yield from steps(kind, model, count=6)
    yield Counter.count


def failing_at_times(kind):
    Counter.count = 0

    def model():
        Counter.count += 1
        if Counter.bad:
            raise ValueError("a bad step")
        normal(loc())

    svi = svi_of(kind, model)
    for step in range(10):
        Counter.bad = step in (1, 7)
        try:
            yield svi.step()
        except ValueError:
            yield -1.0
    Counter.bad = False
    yield Counter.count


def seeded_inside(kind):
    def model():
        torch.manual_seed(3)
        normal(loc() + torch.rand(3))

    yield from steps(kind, model, count=6)


def forked(kind):
    def model():
        with torch.random.fork_rng(devices=[]):
            noise = torch.rand(3)
        normal(loc() + noise + torch.rand(3))

    yield from steps(kind, model, count=6)


def of_the_environment(kind):
    def model():
        normal(loc(), scale=float(os.environ["PPL_VAE_TEST_SCALE"]))

    svi = svi_of(kind, model)
    for step in range(8):
        os.environ["PPL_VAE_TEST_SCALE"] = str(1 + step // 4)
        yield svi.step()
    del os.environ["PPL_VAE_TEST_SCALE"]


def appending_by_a_method(kind):
    seen = []
    add = seen.append

    def model():
        add(1)
        normal(loc() + len(seen))

    yield from steps(kind, model, count=6)


@pytest.mark.parametrize(
    "program",
    [
        counting,
        failing_at_times,
        seeded_inside,
        forked,
        of_the_environment,
        appending_by_a_method,
    ],
)
def test_what_a_step_does_beside_tensors_is_done_once_a_step(program):
    outcome = compare(program)
    assert outcome.graphs == 0
    assert outcome.reasons


def gradients_of_a_stranger(kind):
    net = nn.Linear(3, 3)
    for loss in steps(kind, lambda: normal(net(X) + loc()), count=8):
        yield loss
        yield net.weight.grad.sum()


def gradients_set_to_zero_by_a_loss(kind):
    net = nn.Linear(3, 3)

    def model():
        pyro.module("net", net)
        normal(net(X))

    def loss_and_grads(model, guide):
        net.zero_grad()
        return pyro.infer.Trace_ELBO().loss_and_grads(model, guide)

    loss = pyro.infer.Trace_ELBO().loss
    svi = kind(model, lambda: None, pyro.optim.Adam({"lr": 0.01}), loss, loss_and_grads)
    for step in range(8):
        if step == 5:
            net.weight.grad = torch.ones(3, 3)
        yield svi.step()


def stores_in_turns(kind):
    svi = svi_of(kind, lambda: normal(loc()))
    for _ in range(4):
        yield svi.step()
    with pyro.get_param_store().scope():
        for _ in range(4):
            yield svi.step()
    for _ in range(4):
        yield svi.step()


def weights_as_random_variables(kind):
    net = PyroModule[nn.Linear](3, 3)
    net.weight = PyroSample(dist.Normal(0.0, torch.ones(3, 3)).to_event(2))

    def model():
        normal(net(X))

    yield from steps(kind, model, AutoNormal(model), count=8)


def an_easy_guide(kind):
    def model():
        normal(pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1)))

    class Guide(EasyGuide):
        def guide(self):
            return self.map_estimate("z")

    yield from steps(kind, model, Guide(model), count=8)


def a_plate_that_is_kept(kind):
    plate = pyro.plate("data", 20, subsample_size=5)

    def model():
        center = loc()
        with plate as rows:
            pyro.sample("x", dist.Normal(center, 1.0).to_event(1), obs=X[rows])

    yield from steps(kind, model, count=8)


@pytest.mark.parametrize(
    "program",
    [
        gradients_of_a_stranger,
        gradients_set_to_zero_by_a_loss,
        stores_in_turns,
        weights_as_random_variables,
        an_easy_guide,
        a_plate_that_is_kept,
    ],
)
def test_programs_are_compiled_without_a_word(program):
    outcome = compare(program)
    assert outcome.graphs >= 1
    assert outcome.reasons == []


MODULES = {}


def test_a_module_that_was_imported_before_is_kept():
    def scale(name):
        try:
            module = MODULES[name]
        except KeyError:
            module = MODULES[name] = importlib.import_module(name)
        return module.e

    def program(kind):
        MODULES.clear()
        yield from steps(kind, lambda: normal(loc(), scale=scale("math")))

    assert compare(program).graphs == 1
