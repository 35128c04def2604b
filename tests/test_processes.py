"""Fits in several processes: the same as in one, whatever ends one of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray

from ppl_vae import InputError, Run
from ppl_vae.storage import arviz_io
from ppl_vae.storage.tensors import read_tensors
from ppl_vae.training.processes import Processes, check_layers

from .resuming import assert_same
from .together import SETTINGS, fitted

ROOT = Path(__file__).parent.parent


def together(*words, count=2, folder=ROOT):
    """Start processes with torchrun; what they print, and its exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launcher, "-m", *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_parameters_are_those_of_one_process(tmp_path):
    code, _, told = together("tests.together", tmp_path, "equal")
    assert code == 0, told
    expected_of = {name: fitted(settings) for name, settings in SETTINGS.items()}
    plain = expected_of["plain"]["losses"]
    assert not torch.equal(expected_of["free bits"]["losses"], plain)  # so that they matter
    for name, alone in expected_of.items():
        both = [read_tensors(tmp_path / f"{name} {rank}.safetensors")[0] for rank in range(2)]
        for key, expected in alone.items():
            assert torch.equal(both[0][key], both[1][key]), (name, key)
            torch.testing.assert_close(both[0][key], expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(alone["unused"], torch.ones(3))


def test_a_process_that_dies_ends_the_fit_which_resumes_to_the_same_bits(tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir()
    stopped.mkdir()
    assert together("tests.together", whole, "run")[0] == 0
    assert together("tests.together", stopped, "die")[0] != 0
    assert 0 < len(Run.open(stopped / "run").metrics()) < 4
    assert together("tests.together", stopped, "resume")[0] == 0
    assert_same(whole / "run", stopped / "run")


def test_one_process_speaks_and_writes(tmp_path):
    (tmp_path / "table.csv").write_text(
        "a,b\n" + "\n".join(f"{i % 7 / 7},{i % 5 / 5}" for i in range(200)) + "\n"
    )
    words = ["train", "--data", "table.csv", "--epochs", "2", "--hidden", "4", "--json"]
    code, out, told = together("ppl_vae", *words, "--output", "run", folder=tmp_path)
    assert code == 0, told
    assert out.count('"elbo"') == 1
    assert told.count("epoch 1/2") == 1
    code, _, told = together("ppl_vae", "sample", "run", folder=tmp_path)
    assert code != 0
    assert told.count("runs in one process") == 1


@pytest.fixture
def by_two_and_by_one(shell, strangers_run):
    """What a command prints as JSON, and its netCDF file, from two processes and from one."""
    folder = strangers_run.parent

    def call(file, *words):
        code, out, told = together("ppl_vae", *words, "--json", folder=folder)
        assert code == 0, told
        shared = json.loads(out), read(folder / file)
        code, out, _ = shell(*words, "--json")
        return shared, (json.loads(out), read(folder / file))

    return call


def read(file):
    """The groups of a netCDF file; results of scores are its root."""
    if (found := arviz_io.read_inference_data(file)).groups():
        return {name: found[name] for name in found.groups()}
    return {"": xarray.load_dataset(file)}


def test_data_are_scored_by_shares(by_two_and_by_one):
    words = ["evaluate", "run", "--estimator", "ais", "--data-points", "60"]
    words += ["--temperatures", "20", "--chains", "2", "--draws", "200"]
    found = by_two_and_by_one("run/results/test-ais.nc", *words)
    (two, shared), (one, alone) = ((printed, groups[""]) for printed, groups in found)
    assert two["elbo"]["n"] == one["elbo"]["n"] == 60
    assert (two["processes"], one.get("processes")) == (2, None)  # for draws depend on it
    assert (shared["row"] == alone["row"]).all()
    # Draws are others, and as good.
    off = (shared["iw_bound"] - alone["iw_bound"]).values
    error = np.hypot(shared["iw_error"], alone["iw_error"]).values
    assert 0.5 < np.mean((off / error) ** 2) < 2
    tightest = max("ais_bound", "iw_bound", key=lambda name: two[name]["mean"])
    gap = shared[tightest] - shared["elbo"]  # of all data by the same bound
    np.testing.assert_allclose(shared["kl_to_posterior"], gap, atol=1e-5)


def test_what_one_process_cannot_do_the_first_one_tells(tmp_path):
    code, out, told = together("tests.together", tmp_path, "odd")
    assert code == 0, told
    assert out == "process 0: datum 70 is odd, fit-again\n"


def test_data_are_encoded_by_shares(by_two_and_by_one):
    words = ["encode", "run", "--method", "guide", "--draws", "5", "--output", "codes.nc"]
    (_, shared), (_, alone) = by_two_and_by_one("codes.nc", *words)
    assert shared["posterior"]["z"].shape == alone["posterior"]["z"].shape == (1, 5, 180, 2)
    assert (shared["inference"]["datum"] == alone["inference"]["datum"]).all()
    off = shared["inference"]["z_mean"] - alone["inference"]["z_mean"]
    assert (abs(off) < 0.5 * alone["inference"]["z_sd"]).all()


def test_a_diagnosis_by_two_is_that_by_one(by_two_and_by_one):
    words = ["diagnose", "run", "--draws", "100", "--simulations", "200", "--gap-points", "5"]
    words += ["--nuts-points", "1", "--data-points", "50"]
    (two, shared), (one, alone) = by_two_and_by_one("run/results/diagnosis.nc", *words)
    for verdicts, groups in ((two["verdicts"], shared), (one["verdicts"], alone)):
        del verdicts["reference"], groups["nuts"]  # chains are shorter in a test's own process
    assert {key: v["grade"] for key, v in two["verdicts"].items()} == {
        key: v["grade"] for key, v in one["verdicts"].items()
    }
    assert shared.keys() == alone.keys()
    for name, group in alone.items():
        assert group.sizes == shared[name].sizes
    for name, values in alone["diagnostics"].items():
        xarray.testing.assert_allclose(shared["diagnostics"][name], values, rtol=1e-3)


def test_normalization_over_the_batch_is_refused():
    program = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    check_layers(Processes(), program)
    with pytest.raises(InputError, match="'1'"):
        check_layers(Processes(1, 2), program)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (7, 2), (7, 3), (2, 5)])
def test_shares_are_the_batch(size, count):
    from ppl_vae.data.batch import Batch

    batch = Batch(x=torch.arange(size))
    shares = [Processes(rank, count).share(batch) for rank in range(count)]
    assert torch.cat([share.x for share, counts in shares if counts]).tolist() == [*range(size)]
    assert all(share.size for share, _ in shares)
