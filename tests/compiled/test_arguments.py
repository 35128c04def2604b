"""Arguments that hold others, and programs that change what they hold."""

import argparse
import types
from dataclasses import dataclass, field

import pytest
import torch

from .both import X, compare, loc, normal, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


@dataclass
class Plain:
    x: torch.Tensor
    scale: float = 1.0
    on: bool = True
    factor = 2.0  # of the class, not a field

    def scaled(self):
        return self.scale * self.factor


@dataclass(frozen=True)
class Frozen:
    x: torch.Tensor
    scale: float = 1.0
    on: bool = True

    def scaled(self):
        return 2.0 * self.scale


@dataclass
class Outer:
    inner: Plain
    others: list = field(default_factory=list)


def model(batch):
    scale = batch.scaled() if hasattr(batch, "scaled") else 2.0 * batch.scale
    normal(loc() if batch.on else 2 * loc(), batch.x, scale)


def calls(kind, make, of=model, change=lambda step: None):
    """The losses of steps on arguments that are made anew for each, some of them unlike others."""
    svi = svi_of(kind, of, lambda batch: None)
    for step in range(12):
        change(step)
        yield svi.step(make(x=X + step, scale=1.0 + step / 10, on=step % 2 == 0))


@pytest.mark.parametrize(
    "make",
    [Plain, Frozen, types.SimpleNamespace, argparse.Namespace],
    ids=lambda make: make.__name__,
)
def test_what_an_argument_holds_is_an_argument(make):
    outcome = compare(lambda kind: calls(kind, make))
    assert outcome.graphs == 1
    assert not outcome.reasons


def test_what_an_argument_holds_may_hold_more():
    outcome = compare(
        lambda kind: calls(
            kind,
            lambda **given: Outer(Plain(**given), [{"x": X}]),
            lambda batch: normal(loc() + batch.others[0]["x"].mean(0), batch.inner.x),
        )
    )
    assert outcome.graphs == 1
    assert not outcome.reasons


def test_what_the_class_of_an_argument_holds_is_seen(monkeypatch):
    def change(step):
        monkeypatch.setattr(Plain, "factor", 2.0 if step < 8 else 3.0)

    outcome = compare(lambda kind: calls(kind, Plain, change=change))
    assert any("factor" in reason for _, reason in outcome.reasons)


CHANGES = {
    "list": ([], lambda seen: seen.append(1)),
    "dict": ({}, lambda seen: seen.update(count=seen.get("count", 0) + 1)),
    "namespace": (types.SimpleNamespace(n=0), lambda seen: setattr(seen, "n", seen.n + 1)),
    "tensor of a dict": ({"x": X}, lambda seen: seen.update(x=seen["x"] + 1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_a_program_does_to_its_arguments_is_done(name):
    empty, change = CHANGES[name]
    kept = []

    def changing(seen):
        change(seen)
        normal(loc())

    def program(kind):
        seen = type(empty)(**vars(empty)) if name == "namespace" else type(empty)(empty)
        kept.append(seen)
        svi = svi_of(kind, changing, lambda seen: None)
        for _ in range(8):
            yield svi.step(seen)

    outcome = compare(program)
    assert outcome.graphs == 0
    stock, ours = kept
    if name == "tensor of a dict":
        stock, ours = stock["x"].tolist(), ours["x"].tolist()
    assert stock == ours
