"""A plugin of pytest: Pyro's tests under another SVI, each of whose steps is recorded.

It is for pyro_suite.py, which says by the environment which SVI, how long a test may take, and
where the records go, one line of JSON for each test. All tests begin with the same seed. Graphs
run one operation after the other, as those of more than 1,000 operations always do: compiling
hundreds of them for a few steps each would take hours, and test Inductor.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro_suite import put_in_place

RUN, OUTPUT = "PYRO_SUITE", "PYRO_SUITE_OUTPUT"
SECONDS, ONLY = "PYRO_SUITE_SECONDS", "PYRO_SUITE_ONLY"
LOSSES = 500  # of each test
AGAIN = 5.0  # seconds until a test that goes on is ended again
NOW: dict[str, Any] = {}


class TooLong(BaseException):
    """A test has had its time."""


def pytest_configure() -> None:
    from ppl_vae import CompiledSVI
    from ppl_vae.compiled import engine

    ours, stock = os.environ[RUN] == "ours", pyro.infer.SVI
    engine.compile_graph = lambda graph, inputs: torch.no_grad()(graph.forward)
    base: Any = CompiledSVI if ours else stock
    NOW["options"] = {"engine": "compiled"} if ours else {}

    class Recorded(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs, **NOW["options"])
            NOW["svis"].append(self)

        def step(self, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            loss = super().step(*args, **kwargs)
            NOW["seconds"].append(time.perf_counter() - start)
            return note(loss)

        def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
            return note(super().evaluate_loss(*args, **kwargs))

    put_in_place(Recorded)
    warn = engine.Compiled._warn

    def warn_and_note(self: Any, reason: str, cause: str = "") -> None:
        NOW["reasons"].append(reason)
        warn(self, reason, cause)

    setattr(engine.Compiled, "_warn", warn_and_note)  # noqa: B010


def note(loss: Any) -> Any:
    """Record a loss, and return it."""
    if len(NOW["losses"]) < LOSSES:
        values = loss if isinstance(loss, tuple) else (loss,)
        NOW["losses"].append([float(value) for value in values])
    return loss


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out all tests but some, if any are named."""
    if only := set(Path(os.environ[ONLY]).read_text().splitlines()):
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in only])
        items[:] = [item for item in items if item.nodeid in only]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    NOW.update(svis=[], losses=[], seconds=[], reasons=[])
    pyro.set_rng_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    def end(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, float(os.environ[SECONDS]), AGAIN)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        NOW["parameters"] = sizes()


def sizes() -> dict[str, float]:
    """How large each parameter is."""
    found = {}
    with contextlib.suppress(Exception):  # such as one whose constraint is no longer met
        for name, value in pyro.get_param_store().named_parameters():
            found[name] = value.detach().double().abs().sum().item()
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    report = yield
    if call.when == "call" or (call.when == "setup" and report.outcome != "passed"):
        late = call.excinfo is not None and call.excinfo.errisinstance(TooLong)
        svis = NOW.pop("svis", [])
        graphs = [s.gradients.graphs + s.losses.graphs for s in svis if hasattr(s, "gradients")]
        record = {
            "test": item.nodeid,
            "outcome": "too long" if late else getattr(report, "wasxfail", "") or report.outcome,
            "error": "" if call.excinfo is None else str(call.excinfo.value)[:300],
            "took": call.duration,
            "svis": len(svis),
            "compiled": sum(map(bool, graphs)),
            **{key: NOW.pop(key, []) for key in ("losses", "seconds", "reasons", "parameters")},
        }
        with Path(os.environ[OUTPUT]).open("a") as lines:
            print(json.dumps(record), file=lines)
    return report
