"""What all tests share: seeds, an empty parameter store, small data."""

import importlib.util
import os
import sys
from pathlib import Path

import pyro
import pytest
import torch

import ppl_vae
from ppl_vae import cli

TRAIN = ["train", "--epochs", "2", "--hidden", "16", "--latent-dim", "2"]
SHARED_MNIST = Path(__file__).parents[2] / "shared" / "data"


def load_benchmark(name):
    """A file of benchmarks/, as a module."""
    file = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Two workers share two cores, and sums must not depend on how work is split.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> ppl_vae.DataSet:
    return ppl_vae.load_data("digits", binarize="dynamic")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    folder = Path(os.environ.get("PPL_VAE_DATA", SHARED_MNIST))
    if not (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip(f"no MNIST in torchvision's layout in {folder}: set PPL_VAE_DATA")
    return folder


@pytest.fixture
def shell(monkeypatch, capsys, tmp_path):
    """Run a command line in an empty folder; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["ppl-vae", *map(str, words)])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        return exit_.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def fitted(shell):
    code, _, _ = shell(*TRAIN, "--output", "run")
    assert code == 0
    return shell
