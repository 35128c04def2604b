"""Memory: data are loaded, and first looked at, without a second array of their size."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae import InputError
from ppl_vae.data import blocks
from ppl_vae.programs.conformance import check_program, check_split
from ppl_vae.runs.checkpoints import Checkpoints
from ppl_vae.storage import spilled
from ppl_vae.storage.tensors import TornError

from .programs import Counts

SEED = 0
LOADED, LOOKED_AT = 1.3, 2.0  # times the size of the array
MEASURED = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
import torch
import ppl_vae
from ppl_vae.models import VAE
from ppl_vae.programs.conformance import check_split

torch.set_num_threads(1)

def peak():
    text = Path("/proc/self/status").read_text()
    return int(text[text.index("VmHWM") :].split()[1]) * 1024

def measure(source, size):
    read = ppl_vae.load_data if isinstance(source, str) else ppl_vae.make_data
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = peak()
    data = read(source)
    loaded = (peak() - before) / size
    data.fixed("train")
    program = VAE(data.shape, latent_dim=2, hidden=(4,), likelihood="gaussian")
    check_split(program, data, "train")
    data.digest
    return loaded, (peak() - before) / size

np.save("few.npy", np.ones((20, 3)))
measure("few.npy", 1)  # what is imported on first use is no array's
size, rng = 120_000_000, np.random.default_rng(0)
bytes_ = rng.integers(0, 255, (12_000, 100, 100, 1), "u1")
np.savez_compressed("bytes.npz", x=bytes_)
del bytes_
floats = rng.normal(size=(75_000, 200))
np.save("columns-first.npy", np.asfortranarray(floats))
floats[floats > 3] = np.nan
np.save("missing.npy", floats)
frame = pd.DataFrame(floats)
for source in ("bytes.npz", "columns-first.npy", "missing.npy", frame):
    print(*measure(source, size))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak to be reset")
def test_loading_takes_no_second_array(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = np.array([line.split() for line in done.stdout.splitlines()], float)
    assert found.shape == (4, 2)
    assert (found[:, 0] < LOADED).all(), found
    assert (found[:, 1] < LOOKED_AT).all(), found


def arrays():
    rng = np.random.default_rng(SEED)
    table = rng.normal(size=(60, 9))
    missing = np.where(table > 1, np.nan, table)
    mask = np.where(table < -1, 0, 1)
    images = rng.integers(0, 255, (60, 5, 4, 3), "u1")
    return {
        "numbers": {"x": table},
        "columns first": {"x": np.asfortranarray(table.astype(">f4"))},
        "half precision": {"x": table.astype("f2")},
        "narrow": {"x": table[:, :2].copy()},
        "missing": {"x": missing, "mask": mask, "extra": table[:, 0].astype("f2")},
        "whole numbers": {"x": rng.poisson(5.0, (60, 9))},
        "large whole numbers": {"x": rng.poisson(5.0, (60, 9)) * 2**30},
        "channels last": {"x": images, "y": images[:, 0, 0, 0] % 3},
        "columns first of images": {"x": np.asfortranarray(images)},
        "zeros and ones": {"x": images[..., 0] > 99},
    }


@pytest.mark.parametrize("name", arrays())
def test_blocks_and_memory_used_again_change_nothing(name, tmp_path, monkeypatch):
    given = arrays()[name]
    covariates = {n: a for n, a in given.items() if n not in "xy"}
    binarize = "fixed" if given["x"].ndim > 2 else "none"
    expected = ppl_vae.make_data(
        given["x"], given.get("y"), covariates=covariates, binarize=binarize
    )
    for left, before in zip(given.values(), arrays()[name].values(), strict=True):
        np.testing.assert_array_equal(left, before)  # a user's array is left alone
    monkeypatch.setattr(blocks, "BLOCK", 100)
    monkeypatch.setattr("ppl_vae.data.arrays.BLOCK", 100)
    monkeypatch.setattr(blocks, "LARGE", 1)
    file = tmp_path / "x.npz"
    np.savez(file, **given)
    found = ppl_vae.load_data(file, binarize=binarize)
    assert found.digest == expected.digest
    assert found.columns == expected.columns
    assert torch.equal(found.train.rows, expected.train.rows)
    rows = expected.train.rows
    if binarize == "none":  # and what it should be
        wanted = np.nan_to_num(given["x"].astype("f8"))[rows]
        np.testing.assert_allclose(expected.train.x.double(), wanted, rtol=1e-6)


def test_large_results_in_a_file_are_the_same(monkeypatch, digits):
    expected = digits.fixed("train")
    monkeypatch.setattr(spilled, "LARGE", 1)
    found = digits.fixed("train")
    assert torch.equal(found, expected)
    found += 1  # in memory alone
    assert torch.equal(digits.fixed("train"), expected)


def test_all_of_a_split_is_looked_at(monkeypatch):
    """The least likely datum to be seen: the last in the last piece."""
    monkeypatch.setattr("ppl_vae.data.dataset.BLOCK", 10)
    monkeypatch.setattr("ppl_vae.programs.conformance.PIECE", 10)
    x = np.full((50, 5), 2.0)
    data = ppl_vae.make_data(x)
    row = int(data.train.rows[-1])
    x[row, 3] = 1.5
    data, program = ppl_vae.make_data(x), Counts((5,))
    for check in (
        lambda: check_split(program, data, "train"),
        lambda: check_program(program, data.fixed("train"), data.train.rows),
    ):
        with pytest.raises(InputError, match=rf"datum {row}\b"):
            check()


LACKS = {
    "python": MemoryError(),
    "torch": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 B"),
    "system": OSError(errno.ENOMEM, "Cannot allocate memory"),
}


@pytest.mark.parametrize("name", LACKS)
def test_lack_of_memory_is_not_damage(name, tmp_path, monkeypatch):
    kept = Checkpoints(tmp_path)
    for step in (1, 2):
        kept.write(step, {"weight": torch.ones(1)}, {})
    np.save(tmp_path / "x.npy", np.ones((20, 3)))

    def fail(*args, **kwargs):
        raise LACKS[name]

    monkeypatch.setattr("ppl_vae.storage.tensors.load", fail)
    monkeypatch.setattr("ppl_vae.data.arrays._read_array", fail)
    for read in (kept.newest, lambda: ppl_vae.load_data(tmp_path / "x.npy")):
        with pytest.raises(InputError, match="does not fit into the memory") as raised:
            read()
        assert not isinstance(raised.value, TornError)
    assert len(kept.files()) == 2  # nothing is taken for broken, and removed
