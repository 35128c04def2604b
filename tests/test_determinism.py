"""The same seed gives the same bits, in every command, whatever else the process does."""

import json
import subprocess
import sys

import numpy as np
import pytest

from .conftest import TRAIN
from .resuming import assert_same

COMMANDS = [
    ["evaluate", "run", "--draws", "20"],
    ["evaluate", "run", "--estimator", "bdmc", "--data-points", "3", "--temperatures", "20"],
    ["diagnose", "run", "--data-points", "50", "--draws", "100", "--simulations", "50",
     "--gap-points", "5", "--nuts-points", "1"],
    ["gradients", "run", "--repeats", "5", "--data-points", "10"],
    ["sample", "run", "--output", "sample.npy"],
    ["sample", "run", "--noise", "--output", "noise.npy"],
    ["reconstruct", "run", "--output", "pairs.npy"],
]  # fmt: skip
SCRIPT = """
import random, sys
import numpy, torch
from ppl_vae import cli
from ppl_vae.inference import nuts

nuts.WARMUP = nuts.DRAWS = 60
nuts.MOST_R_HAT, nuts.LEAST_ESS = 10.0, 1
torch.set_num_threads(1)
random.seed({seed}), numpy.random.seed({seed}), torch.manual_seed({seed})
for words in {commands}:
    sys.argv = ["ppl-vae", *words]
    try:
        cli.main()
    except SystemExit as exit_:
        assert not exit_.code, words
"""


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """All commands in two processes, whose hashes and global random states differ."""
    commands = [[*TRAIN, "--seed", "3", "--output", "run"], *COMMANDS]
    folders, printed = [], []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp(str(seed))
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(seed=seed, commands=commands)],
            capture_output=True, text=True, cwd=folder, env={"PYTHONHASHSEED": str(seed)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        folders.append(folder)
        printed.append(done.stdout)
    return folders, printed


def test_what_is_printed_is_the_same(twice):
    _, (one, other) = twice
    assert one == other


def test_what_is_written_is_the_same(twice):
    (one, other), _ = twice
    files = sorted(file.relative_to(one) for file in one.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(other) for file in other.rglob("*") if file.is_file())
    for file in files:
        # Which have seconds.
        if file.name != "metrics.csv" and file.parent.name != "checkpoints":
            assert (one / file).read_bytes() == (other / file).read_bytes(), file
    assert_same(one / "run", other / "run")


def test_another_seed_gives_other_bits(fitted):
    for seed in (0, 1):
        assert fitted("sample", "run", "--seed", seed, "--output", f"{seed}.npy")[0] == 0
    assert (np.load("0.npy") != np.load("1.npy")).any()
    _, one, _ = fitted("evaluate", "run", "--json", "--seed", 0)
    _, two, _ = fitted("evaluate", "run", "--json", "--seed", 1)
    assert json.loads(one)["elbo"] != json.loads(two)["elbo"]
