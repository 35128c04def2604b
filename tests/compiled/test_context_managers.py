"""Context managers made of generators: each use makes another, which is none of Python's state."""

import contextlib

import pyro
import pytest
import torch

from .both import compare, loc, normal, steps, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")
SCALE = 1.0


@contextlib.contextmanager
def scaled(by=None):
    with pyro.poutine.scale(scale=SCALE if by is None else by):
        yield


@scaled()
def decorated():
    normal(loc())


def entering():
    with scaled(), scaled(2.0):
        normal(loc())


@pytest.mark.parametrize("model", [decorated, entering])
def test_what_a_generator_reads_is_followed(model):
    def program(kind):
        global SCALE
        svi = svi_of(kind, model)
        for step in range(12):
            SCALE = 1.0 + step // 6
            yield svi.step()
        SCALE = 1.0

    outcome = compare(program)
    assert outcome.graphs == 1
    ((step, told),) = outcome.reasons
    assert step == 6
    assert "SCALE was 1.0, and now is 2.0" in told


def test_arguments_of_a_decorator_are_guarded():
    def program(kind):
        factors = [2.0]

        @contextlib.contextmanager
        def times(factors):
            with pyro.poutine.scale(scale=factors[0]):
                yield

        model = times(factors)(lambda: normal(loc()))
        yield from steps(kind, model, change=lambda step: factors.__setitem__(0, 1.0 + step // 6))

    outcome = compare(program)
    assert outcome.graphs == 1
    assert [step for step, _ in outcome.reasons] == [6]


def test_one_that_was_made_before_is_entered_but_once():
    def program(kind):
        managers = [scaled(2.0) for _ in range(12)]
        count = torch.zeros((), dtype=torch.long)

        def model():
            with managers[int(count)]:
                count.add_(1)
                normal(loc())

        yield from steps(kind, model)

    outcome = compare(program)
    assert outcome.graphs == 0
    assert "it enters a context manager that was made before" in outcome.reasons[0][1]
