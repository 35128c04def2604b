"""What no graph can follow runs as it is, once a step, and is told."""

import argparse
import functools
import importlib
import random
import re
import sys
from types import SimpleNamespace

import numpy as np
import pyro
import pytest
import torch
from torch import nn

from .both import X, compare, loc, normal, steps, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


def by_python(kind):
    def model():
        normal(loc() + (random.random() < 0.3))

    yield from steps(kind, model)


def by_numpy(kind):
    def model():
        normal(loc() + np.random.normal())

    yield from steps(kind, model)


def by_a_generator(kind):
    coin = np.random.default_rng(0)

    def model():
        normal(loc() + coin.random())

    yield from steps(kind, model)


def by_torchs_own(kind):
    own = torch.Generator().manual_seed(1)

    def model():
        normal(loc() + torch.rand(3, generator=own))

    yield from steps(kind, model)


def from_an_iterator(kind):
    batches = iter(range(100))

    def model():
        normal(loc() + next(batches))

    yield from steps(kind, model)


def counted(kind):
    count = [0]

    def model():
        count[0] += 1
        normal(loc() + count[0])

    yield from steps(kind, model)
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
    yield from steps(kind, net.model)
    yield net.mean.sum()


def appended(kind):
    seen = []

    def model():
        mean = loc()
        seen.append(mean.sum().item())
        normal(mean)

    yield from steps(kind, model)
    assert all(type(value) is float for value in seen)
    yield from seen


@functools.lru_cache
def cached():
    return SimpleNamespace(scale=1.0)


def in_a_cache(kind):
    def model():
        normal(loc(), scale=cached().scale)

    svi = svi_of(kind, model)
    for step in range(12):
        cached().scale = 1.0 + step // 6
        yield svi.step()


SCALE = 1.0


def by_name_of_a_global(kind):
    global SCALE

    def model():
        normal(loc(), scale=globals()["SCALE"])

    svi = svi_of(kind, model)
    for step in range(12):
        SCALE = 1.0 + step // 6
        yield svi.step()
    SCALE = 1.0


def imported(kind):
    def model():
        normal(loc(), scale=importlib.import_module("math").e)

    yield from steps(kind, model)


def branching(kind):
    def model():
        mean = loc()
        normal(mean + 1.0 if mean.sum() > -0.05 else mean - 1.0)

    yield from steps(kind, model)


def failing_once(kind):
    net = nn.Linear(3, 3)

    def model():
        pyro.module("net", net)
        normal(torch.as_tensor(net(X).tolist()) + loc())

    yield from steps(kind, model)


def from_one_made_anew(kind):
    def model():
        generator = torch.Generator().manual_seed(3)
        normal(loc() + torch.rand(3, generator=generator))

    yield from steps(kind, model)


def from_the_caller(kind):
    def model():
        frame = sys._getframe()
        while "number_of_step" not in frame.f_locals:
            frame = frame.f_back
        normal(loc(), scale=1.0 + frame.f_locals["number_of_step"])

    svi = svi_of(kind, model)
    for number_of_step in range(6):  # noqa: B007
        yield svi.step()


NEVER = {
    "Python's random numbers": (by_python, "it draws Python's random numbers"),
    "NumPy's random numbers": (by_numpy, "it draws NumPy's random numbers"),
    "a generator of NumPy's": (by_a_generator, "it draws from coin, a Generator of its own"),
    "a generator of torch's": (by_torchs_own, "it draws from own, a Generator of its own"),
    "a generator made anew": (from_one_made_anew, "it draws from a generator of its own"),
    "an iterator": (from_an_iterator, "it reads batches, a range_iterator"),
    "a counter": (counted, "it changes count"),
    "an average by assignment": (averaged, "it changes self.mean"),
    "a list that grows": (appended, "it changes seen"),
    "a cache": (in_a_cache, "it calls cached, which keeps its results"),
    "globals by name": (by_name_of_a_global, "it reads globals"),
    "a module by name": (imported, "it calls import_module"),
    "a branch by a value": (branching, r"control flow .*test_refusals.py, line \d+"),
    "what its caller holds": (from_the_caller, "it reads (f_back|_getframe)"),
    "values in Python": (failing_once, r"control flow .*test_refusals.py, line \d+"),
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


@pytest.mark.parametrize(
    "given", [object(), argparse.ArgumentParser(), {1, 2}, np.ones(3), X.to_sparse()]
)
def test_arguments_that_may_change_unseen_are_told(given):
    def program(kind):
        svi = svi_of(kind, lambda given: normal(loc()))
        for _ in range(4):
            yield svi.step(given)

    outcome = compare(program)
    assert outcome.graphs == 0
    assert "an argument" in outcome.reasons[0][1]
