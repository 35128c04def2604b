"""The plan of docs/scale.md: its simulation is the sum that one writes down, where it is exact."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks/scale.py"


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module  # where dataclasses look
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


@pytest.mark.parametrize("from_disk", [False, True])
@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_without_jitter_all_wait_for_the_same(scale, count, from_disk):
    machines = scale.Machines(jitter=0.0)
    expected = scale.written_down(count, 4096, machines, from_disk)
    assert scale.simulate(count, 4096, machines, from_disk) == pytest.approx(expected, rel=0.01)


def test_all_wait_for_the_slowest(scale):
    ready = [0.0] * 16
    ready[5] = 1.0
    ends = scale.exchange(ready, scale.Machines(), 1e6)
    assert min(ends) > 1.0
    assert max(ends) < 1.0 + 2 * scale.exchange_seconds(16, scale.Machines(), 1e6)
