"""Whatever is wrong, one line names the culprit, and nothing changes."""

import hashlib
import random
import shutil
import sys

import numpy as np
import pyro
import pytest
import torch

import ppl_vae
from ppl_vae import cli
from ppl_vae.cli.app import app
from ppl_vae.models import VAE, Autoencoder

from .bad_inputs import World, arrays, calls, data_files, fitted_calls, run_files, words

LINES = [*data_files.LINES, *words.LINES, *run_files.LINES]
CALLS = [*calls.CALLS, *fitted_calls.CALLS, *arrays.CALLS]
RESULTS = {"InputError", "EagerWarning", "Classification"}  # nothing is asked of them
MODELS = {"VAE", "Autoencoder", "LinearGaussian"}
PREPARATION = [
    "train --data t.npy --likelihood gaussian --hidden 4 --latent-dim 2 --epochs 1 "
    "--batch-size 16 --engine eager --output run",
    "diagnose run --draws 20 --simulations 20 --gap-points 2 --nuts-points 1",
    "evaluate run --draws 2",
]


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with data and a run fitted to them, diagnosed, for each case to copy."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "t.npy", data_files.TABLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in PREPARATION:
            patch.setattr(sys, "argv", ["ppl-vae", *line.split()])
            with pytest.raises(SystemExit) as exit_:
                cli.main()
            assert not exit_.value.code
    config = folder / "run" / "config.json"
    text = config.read_text().replace(str(folder), "FOLDER")
    config.write_text(text)
    return folder


def copy(made, folder):
    shutil.copytree(made, folder, dirs_exist_ok=True)
    config = folder / "run" / "config.json"
    config.write_text(config.read_text().replace("FOLDER", str(folder)))


def snapshot(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", LINES, ids=lambda case: f"{case.command}-{case.id}")
def test_a_bad_command_line_is_refused(case, shell, made, tmp_path):
    copy(made, tmp_path)
    case.spoil(tmp_path)
    before = snapshot(tmp_path)
    code, out, err = shell(*case.words)
    assert code == 2, out + err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert case.culprit in err or case.culprit.replace("_", "-") in err, err
    assert snapshot(tmp_path) == before


@pytest.fixture(scope="session")
def world(made, tmp_path_factory):
    torch.manual_seed(0)
    data = ppl_vae.make_data(data_files.TABLE)
    vae, autoencoder = (
        kind((4,), latent_dim=2, hidden=(4,), likelihood="gaussian") for kind in (VAE, Autoencoder)
    )
    run = tmp_path_factory.mktemp("world")
    copy(made, run)
    folder = tmp_path_factory.mktemp("empty")
    return World(vae, autoencoder, data, data.fixed("test"), run / "run", folder)


def trace(world, case):
    """All that a call might leave a trace in."""
    programs = [p for name in ("vae", "autoencoder") for p in getattr(world, name).parameters()]
    return (
        [p.tolist() for p in programs],
        case.of in MODELS or torch.get_rng_state().tolist(),  # which draw their weights
        str(np.random.get_state()),
        random.getstate(),
        sorted(pyro.get_param_store().keys()),
        torch.get_default_dtype(),
        snapshot(world.run),
        snapshot(world.folder),
    )


@pytest.mark.parametrize("case", CALLS, ids=lambda case: f"{case.of}-{case.id}")
def test_a_bad_call_is_refused(case, world):
    before = trace(world, case)
    # What imports torch and pyro only raises a ValueError.
    kind = ValueError if case.of in MODELS else ppl_vae.InputError
    with pytest.raises(kind) as caught:
        case.call(world)
    message = str(caught.value)
    assert "\n" not in message
    culprit = getattr(caught.value, "culprit", message.partition(" ")[0])
    assert case.culprit in culprit, message
    assert culprit != message
    assert trace(world, case) == before


def test_every_command_and_every_public_name_is_in_the_tables():
    commands = {
        c.name or c.callback.__name__
        for g in app.registered_groups
        for c in g.typer_instance.registered_commands
    }
    assert commands <= {case.command for case in LINES}
    assert {*ppl_vae.__all__} - RESULTS <= {case.of for case in CALLS}
    assert {case.of for case in CALLS} >= MODELS
    names = [(case.command, case.id) for case in LINES] + [(case.of, case.id) for case in CALLS]
    assert len({*names}) == len(names) >= 150


def test_a_message_is_one_line_whatever_it_quotes():
    for text in ("a\nb", "a\r\x00b", "\u2028", "\x1b[31m", "\udc80"):
        message = str(ppl_vae.InputError(f"file {text!s}", "is missing"))
        assert message.isprintable()
        assert len(message.splitlines()) == 1
    assert str(ppl_vae.InputError("дані 数", "is missing")) == "дані 数 is missing"
