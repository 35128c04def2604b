"""What guards and checks cost beside a compiled step of CompiledSVI.

    python benchmarks/guards.py [--batch-size 20] [--hidden 400]

Steps of a VAE of 784 pixels are timed with guards and without, in turns; so is a check, which comes
once in 1,024 steps after the first few. Printed are medians with ranges over the rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pyro
import torch
from pyro.optim import PyroOptim

from ppl_vae import CompiledSVI
from ppl_vae.compiled.guards import Guards
from ppl_vae.compiled.shapes import FURTHEST_CHECK
from ppl_vae.models import VAE


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """How long a call takes, in the mean."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def show(name: str, values: list[float], unit: float = 1e6, word: str = "µs") -> None:
    """Print median and range."""
    low, middle, high = (f(values) * unit for f in (min, statistics.median, max))
    print(f"{name}: {middle:.1f} {word} ({low:.1f} to {high:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.manual_seed(0)
    x = torch.rand(args.batch_size, 784).round()
    vae = VAE((784,), latent_dim=20, hidden=(args.hidden,))
    optim, loss = PyroOptim(torch.optim.Adam, {"lr": 1e-3}), pyro.infer.Trace_ELBO()
    svi = CompiledSVI(vae.model, vae.guide, optim, loss, engine="compiled")
    for _ in range(100):
        svi.step(x)
    (shape,) = svi.gradients.shapes._known.values()
    with_guards, without, guards, checks = [], [], [], []
    for _ in range(args.rounds):
        shape.next_check = 10**9  # no checks in between
        with_guards.append(seconds(lambda: svi.step(x), 200))
        with mock.patch.object(Guards, "hold", return_value=True):
            without.append(seconds(lambda: svi.step(x), 200))
        assert shape.graph is not None
        guards.append(seconds(shape.graph.guards.hold, 2000))
        shape.next_check = 0
        checks.append(seconds(lambda: svi.step(x), 1))
    show("a step", with_guards)
    show("a step without guards", without)
    show("guards", guards)
    show("guards, of a step", [g / s for g, s in zip(guards, without, strict=True)], 100, "%")
    every = [c / s / FURTHEST_CHECK for c, s in zip(checks, without, strict=True)]
    show(f"a check every {FURTHEST_CHECK} steps, of their time", every, 100, "%")


if __name__ == "__main__":
    main()
