"""A program under pyro.infer.SVI and under CompiledSVI, on the same draws."""

import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from ppl_vae import CompiledSVI, EagerWarning

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@dataclass
class Outcome:
    """What CompiledSVI did: how many graphs it had, and why it ran eagerly at which step."""

    graphs: int
    reasons: list[tuple[int, str]]


def svi_of(kind, model, guide=lambda *args, **kwargs: None, lr=0.01, loss=None):
    """An SVI of some kind, with Adam and Trace_ELBO."""
    optim = pyro.optim.Adam({"lr": lr})
    return kind(model, guide, optim, loss or pyro.infer.Trace_ELBO())


def steps(kind, model, guide=lambda *args, **kwargs: None, count=12, change=lambda step: None):
    """The losses of so many steps, before each of which something may be changed."""
    svi = svi_of(kind, model, guide)
    for step in range(count):
        change(step)
        yield svi.step()


def loc():
    """The parameter of most programs here."""
    return pyro.param("loc", torch.zeros(3))


def normal(loc, x=X, scale=1.0):
    """The observed site of most programs here."""
    pyro.sample("x", dist.Normal(loc, scale).expand(x.shape).to_event(x.dim()), obs=x)


def _run(program: Callable[[Any], Iterator[Any]], kind: Any) -> tuple[list, dict, list]:
    pyro.clear_param_store()
    pyro.set_rng_seed(0)  # Python's and NumPy's, too
    losses, told = [], []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, loss in enumerate(program(kind)):
            losses.append(torch.as_tensor(loss, dtype=torch.float64).detach().clone())
            told += [(step, str(w.message)) for w in caught if w.category is EagerWarning]
            caught.clear()
    store = pyro.get_param_store()
    return losses, {name: p.detach().clone() for name, p in store.named_parameters()}, told


def compare(program: Callable[[Any], Iterator[Any]], tolerance: float = 1e-9) -> Outcome:
    """Assert that all losses, and all parameters at the end, are stock SVI's.

    Arguments:
        program: Takes a class of SVI, and yields a loss after each step.
        tolerance: Relative, and absolute, of each number, in double precision.
    """
    made = []

    def ours(*args: Any, **kwargs: Any) -> CompiledSVI:
        made.append(CompiledSVI(*args, **kwargs, engine="compiled"))
        return made[-1]

    python = random.getstate(), np.random.get_state()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        expected, parameters, _ = _run(program, pyro.infer.SVI)
        found, others, told = _run(program, ours)
    finally:
        torch.set_default_dtype(default)
        random.setstate(python[0])
        np.random.set_state(python[1])
    assert len(found) == len(expected)
    near = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
    wrong = [
        i for i, pair in enumerate(zip(expected, found, strict=True)) if not near_to(*pair, near)
    ]
    assert not wrong, f"steps {wrong}: {found[wrong[0]]}, and by SVI {expected[wrong[0]]}"
    assert parameters.keys() == others.keys()
    assert [n for n, p in parameters.items() if not near_to(p, others[n], near)] == []
    graphs = sum(svi.gradients.graphs + svi.losses.graphs for svi in made)
    return Outcome(graphs, told)


def near_to(one, other, near):
    return one.shape == other.shape and torch.allclose(one, other, **near)
