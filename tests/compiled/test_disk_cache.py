"""What was compiled is found by the next process, in a folder that is the user's alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ppl_vae.compiled import disk_cache

SCRIPT = """
import torch
from ppl_vae.compiled.capture import capture
from ppl_vae.compiled.kernels import compile_graph

def draw(x):
    return torch.nn.functional.softplus(x + torch.randn(3)).sum()

x = torch.ones(3)
torch.manual_seed(1)
expected = draw(x)
run = compile_graph(capture(draw, x).graph, [x])
torch.manual_seed(1)
torch.testing.assert_close(run(x)[0], expected)
print(torch._dynamo.utils.counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(disk_cache.VARIABLE, raising=False)
    disk_cache.cache_folder.cache_clear()
    yield tmp_path
    disk_cache.cache_folder.cache_clear()


def test_the_next_process_finds_it(home):
    command = [sys.executable, "-c", SCRIPT]
    first, second = (subprocess.check_output(command, text=True) for _ in range(2))
    assert (int(first), int(second)) == (0, 1)
    assert [*(home / "ppl-vae" / "kernels").rglob("*.so")]


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_the_folder_is_private_whatever_the_umask(home, umask):
    before = os.umask(umask)
    try:
        with disk_cache.kept():
            assert os.environ[disk_cache.VARIABLE] == str(home / "ppl-vae" / "kernels")
    finally:
        os.umask(before)
    assert disk_cache.is_private(home / "ppl-vae" / "kernels")


def test_a_folder_that_others_may_write_to_is_left_alone(home):
    shared = home / "ppl-vae" / "kernels"
    shared.mkdir(parents=True)
    os.chmod(shared, 0o777)
    with disk_cache.kept():
        used = Path(os.environ[disk_cache.VARIABLE])
    assert used != shared
    assert disk_cache.is_private(used)


def test_a_place_that_the_user_names_stays(home, tmp_path, monkeypatch):
    monkeypatch.setenv(disk_cache.VARIABLE, str(tmp_path / "own"))
    with disk_cache.kept():
        assert os.environ[disk_cache.VARIABLE] == str(tmp_path / "own")


def test_a_cache_that_cannot_be_written_is_done_without(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    with disk_cache.kept():
        assert disk_cache.is_private(Path(os.environ[disk_cache.VARIABLE]))
