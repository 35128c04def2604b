"""A refit as a run: resumed, continued, and from the command line."""

import copy
import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch

import ppl_vae
from ppl_vae import Config, InputError, Run, Settings, fit, refit_guide

from .conftest import TRAIN
from .resuming import DATA, assert_same, bernoulli, stop_after


def child(path, parent, settings, on):
    config = Config.of("ppl_vae.models.vae:VAE", {}, DATA, settings)
    return Run.create(path, replace(config, parent={**parent, "on": on}))


@pytest.mark.parametrize(
    ("on", "engine"), [("data", "eager"), ("simulations", "compiled"), ("both", "eager")]
)
def test_an_interrupted_refit_goes_on_to_the_same_bits(tmp_path, monkeypatch, on, engine):
    settings = Settings(epochs=3, batch_size=4, engine=engine)
    vae, parent = bernoulli(), {"run": "runs/mnist", "weights": "0"}
    options = {"on": on, "progress": False}
    refit_guide(copy.deepcopy(vae), DATA, settings, run=child(tmp_path / "a", parent, settings, on),
                **options)  # fmt: skip
    stop_after(monkeypatch, 90)
    with pytest.raises(KeyboardInterrupt):
        refit_guide(copy.deepcopy(vae), DATA, settings,
                    run=child(tmp_path / "b", parent, settings, on), **options)  # fmt: skip
    run, again = Run.open(tmp_path / "b"), bernoulli()  # another model: the checkpoint's counts
    refit_guide(again, DATA, settings, run=run, resume=True, **options)
    assert_same(tmp_path / "a", tmp_path / "b")
    for name, tensor in vae.decoder.state_dict().items():
        assert torch.equal(again.decoder.state_dict()[name], tensor)
    assert run.config.parent == {**parent, "on": on}


def test_a_refit_is_resumed_as_what_it_was(tmp_path):
    vae, few = bernoulli(), Settings(epochs=2, batch_size=40, engine="eager")
    run = child(tmp_path / "run", {}, few, "both")
    refit_guide(vae, DATA, few, on="both", run=run, progress=False)
    with pytest.raises(InputError, match="a guide trained on both, not a guide trained on data"):
        refit_guide(vae, DATA, few, run=run, resume=True, progress=False)
    with pytest.raises(InputError, match="a guide trained on both, not model and guide"):
        fit(vae, DATA, few, run=run, resume=True, progress=False)
    for file in run.checkpoints.files():
        file.unlink()
    (run.path / "weights.safetensors").unlink()
    with pytest.raises(InputError, match="no checkpoint to continue from: train the guide"):
        refit_guide(vae, DATA, few, on="both", run=run, resume=True, progress=False)


def test_the_command_line(fitted, tmp_path):
    code, out, err = fitted("refit", "run", "--epochs", 2, "--on", "both", "--engine", "eager")
    assert code == 0, err
    for word in ("before", "after", "difference", "standard error", "ELBO", "run-refit"):
        assert word in out
    config = json.loads((tmp_path / "run-refit" / "config.json").read_text())
    assert config["parent"]["run"] == str(tmp_path / "run")
    weights = (tmp_path / "run" / "weights.safetensors").read_bytes()
    assert config["parent"]["weights"] == hashlib.sha256(weights).hexdigest()
    assert config["parent"]["on"] == "both"
    parent, refitted = ppl_vae.load("run"), ppl_vae.load("run-refit")
    for name, tensor in parent.state_dict().items():
        same = torch.equal(refitted.state_dict()[name], tensor)
        assert same == (not name.startswith("encoder")), name
    code, out, _ = fitted("refit", "run", "--epochs", 2, "--on", "simulations", "--json",
                          "--output", "other")  # fmt: skip
    figures = json.loads(out)
    before, after = (figures[name]["elbo"]["mean"] for name in ("before", "after"))
    assert figures["difference"]["elbo"]["mean"] == pytest.approx(after - before)
    # The same data and draws: a pair says more than two apart.
    apart = math.hypot(*(figures[name]["elbo"]["stderr"] for name in ("before", "after")))
    assert figures["difference"]["elbo"]["stderr"] < apart
    code, out, _ = fitted("evaluate", "run", "--json")
    assert json.loads(out)["elbo"] == figures["before"]["elbo"]
    code, out, _ = fitted("evaluate", "other", "--json")
    assert json.loads(out)["elbo"] == figures["after"]["elbo"]
    assert fitted("train", "--resume", "other", "--json")[0] == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--guide", "full"], "--guide is not an argument of Autoencoder"),
        (["--encoder-hidden", "8,x"], "--encoder-hidden must be whole numbers"),
        (["--output", "run", "--overwrite"], "--output is the run whose model is kept"),
        (["--on", "simulations"], "is a point mass"),
        (["--objective", "stl"], "the guide of Autoencoder is a point mass"),
        (["--on", "dreams"], "'--on'"),
        (["--learning", "1"], "--learning-rate"),
    ],
)
def test_a_refit_that_is_refused_leaves_nothing(shell, tmp_path, words, named):
    code, _, err = shell(*TRAIN, "--model", "autoencoder", "--output", "run")
    assert code == 0, err
    before = sorted(tmp_path.rglob("*"))
    code, out, err = shell("refit", "run", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert named in err
    assert sorted(tmp_path.rglob("*")) == before
