"""What all tests share: seeds, an empty parameter store, small data."""

import copy
import importlib.util
import os
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pyro
import pytest
import torch
from hypothesis import settings

import ppl_vae
from ppl_vae import cli
from ppl_vae.diagnostics.diagnosis import write_diagnosis
from ppl_vae.inference import nuts
from ppl_vae.models import VAE
from ppl_vae.runs import checkpoints

from .resuming import DATA, SHORT, bernoulli, new, stop_after
from .strangers import some_diagnosis

TRAIN = ["train", "--epochs", "2", "--hidden", "16", "--latent-dim", "2"]
# Every run tries the same examples: a change is judged by what it changed.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")
SHARED_MNIST = Path(__file__).parents[2] / "shared" / "data"


def load_benchmark(name):
    """A file of benchmarks/, as a module."""
    file = Path(__file__).parents[1] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.parent))  # they import each other, as scripts do
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module


@pytest.fixture(autouse=True)
def _seeded():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


@pytest.fixture(scope="session", autouse=True)
def _signals():
    # nohup, and shells that start jobs, ignore some, and so would all that is started here.
    for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # Two workers share two cores, and sums must not depend on how work is split.
    torch.set_num_threads(1)


WHOLE = {"WARMUP": nuts.WARMUP, "DRAWS": nuts.DRAWS}
WHOLE |= {"MOST_R_HAT": nuts.MOST_R_HAT, "LEAST_ESS": nuts.LEAST_ESS}


@contextmanager
def _chains(**settings):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setattr(nuts, name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_chains():
    """Most tests do not ask whether NUTS has mixed, and it takes longer than all else."""
    with _chains(WARMUP=60, DRAWS=60, MOST_R_HAT=10.0, LEAST_ESS=1):
        yield


@pytest.fixture(scope="module")
def whole_chains():
    """NUTS as users have it, for a module."""
    with _chains(**WHOLE):
        yield


@pytest.fixture
def whole_chains_once():
    """NUTS as users have it, for a test."""
    with _chains(**WHOLE):
        yield


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


@pytest.fixture(scope="session")
def made_by_a_stranger(tmp_path_factory, digits) -> Path:
    arguments, settings = {"latent_dim": 2, "hidden": [8]}, ppl_vae.Settings(epochs=1)
    pyro.set_rng_seed(0)
    vae = VAE(digits.shape, **arguments)
    config = ppl_vae.Config.of("ppl_vae.models:VAE", arguments, digits, settings)
    run = ppl_vae.Run.create(tmp_path_factory.mktemp("made") / "run", config)
    ppl_vae.fit(vae, digits, settings, run=run, progress=False)
    write_diagnosis(run.results, some_diagnosis())
    return run.path


@pytest.fixture
def strangers_run(made_by_a_stranger, tmp_path) -> Path:
    """A stranger's run, in the folder that the shell is in."""
    shutil.copytree(made_by_a_stranger, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="session")
def _stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    pyro.set_rng_seed(0)
    program = bernoulli()
    ppl_vae.fit(
        copy.deepcopy(program), DATA, SHORT, run=new(folder / "whole", program), progress=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "SHARE", 1e9)
        stop_after(patch, 310)
        run = new(folder / "run", program)
        with pytest.raises(KeyboardInterrupt):
            ppl_vae.fit(program, DATA, SHORT, run=run, progress=False)
    assert [int(f.name[5:14]) for f in run.checkpoints.files()] == [307, 256]
    return folder


@pytest.fixture
def stopped(_stopped, tmp_path, monkeypatch):
    """A run that was stopped in its third epoch, and one with the same start that was not."""
    shutil.copytree(_stopped, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    return tuple(ppl_vae.Run.open(tmp_path / name) for name in ("run", "whole"))
