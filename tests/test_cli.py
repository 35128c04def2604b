"""The shell, as people and machines use it: what it prints, writes, refuses."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

import ppl_vae

from .conftest import TRAIN


def test_train_prints_figures_and_files(shell, tmp_path):
    code, out, _ = shell(*TRAIN, "--output", "runs/a")
    assert code == 0
    for word in ("180 test data", "ELBO", "KL", "importance-weighted bound", "standard error"):
        assert word in out
    for name in ("curves", "reconstructions", "samples", "latents", "manifold"):
        assert f"runs/a/pictures/{name}.png" in out
        assert (tmp_path / "runs/a/pictures" / f"{name}.png").stat().st_size > 1000


def test_train_as_json(shell):
    code, out, _ = shell(*TRAIN, "--json", "--seed", 3)
    figures = json.loads(out)
    assert code == 0
    assert figures["run"] == "runs/digits-vae"
    assert figures["epochs"] == 2
    for name in ("elbo", "reconstruction", "kl", "iw_bound"):
        assert figures[name].keys() == {"mean", "stderr", "n"}
        assert figures[name]["n"] == 180
    difference = figures["reconstruction"]["mean"] - figures["kl"]["mean"]
    assert figures["elbo"]["mean"] == pytest.approx(difference, abs=1e-4)


CHOOSY = """\
import pyro
import pyro.distributions as dist
import torch


class Choosy(torch.nn.Module):
    def __init__(self, data_shape):
        super().__init__()
        self.loc = torch.nn.Parameter(torch.zeros(2))

    def draw(self, x):
        pyro.module("choosy", self)
        if self.loc.sum() > 100:
            raise RuntimeError
        return pyro.plate("data", len(x))

    def model(self, x):
        with self.draw(x):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            logits = z[..., :1].unsqueeze(-1).unsqueeze(-1).expand(*z.shape[:-1], 1, 8, 8)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(3), obs=x)

    def guide(self, x):
        with self.draw(x):
            pyro.sample("z", dist.Normal(self.loc, 1.0).to_event(1))
"""


def test_every_option_of_train_reaches_the_fit(shell, tmp_path):
    given = {
        "epochs": 1, "batch_size": 64, "learning_rate": 0.003, "warmup_epochs": 0.5,
        "objective": "analytic-kl", "particles": 2, "kl_warmup_epochs": 1.5, "free_bits": 0.25,
        "clip_norm": 100.0, "patience": 7, "seed": 9, "device": "cpu",
        "engine": "eager",
    }  # fmt: skip
    arguments = {
        "latent_dim": 3, "hidden": [16, 8], "channels": [2], "activation": "tanh",
        "likelihood": "gaussian",
        "likelihood_scale": 0.5,
        "guide": "flow", "prior": "mixture", "encoder_hidden": [24], "components": 4,
    }  # fmt: skip
    words = ["--output", "run", "--binarize", "fixed", "--tensorboard"]
    for name, value in (given | arguments).items():
        text = ",".join(map(str, value)) if isinstance(value, list) else value
        words += [f"--{name.replace('_', '-')}", text]
    code, _, err = shell("train", *words)
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"] == given
    assert config["arguments"] == arguments
    assert config["data"]["binarize"] == "fixed"
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_the_defaults_are_those_of_settings(shell, tmp_path):
    assert shell("train", "--hidden", "4", "--output", "run")[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    # 84 epochs of 1,437 digits are 1,000 steps.
    assert config["settings"] == asdict(ppl_vae.Settings()) | {"epochs": 84}


@pytest.mark.filterwarnings("always::ppl_vae.compiled.engine.EagerWarning")
def test_a_program_that_runs_eagerly_says_so_in_one_line(shell, tmp_path):
    (tmp_path / "mine.py").write_text(CHOOSY)
    words = ["--model", "mine.py:Choosy", "--engine", "compiled", "--output", "run"]
    code, _, err = shell("train", "--binarize", "dynamic", "--epochs", "1", *words)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "eagerly" in line]
    assert line.startswith("warning: Choosy runs eagerly: control flow depends on the value of a")
    assert line.endswith("(mine.py, line 13)")


def test_a_run_made_in_python_is_known_to_the_shell(shell, digits):
    from ppl_vae.models import VAE

    arguments = {"latent_dim": 2, "hidden": [8]}
    config = ppl_vae.Config.of("ppl_vae.models:VAE", arguments, digits)
    run = ppl_vae.Run.create("run", config)
    ppl_vae.fit(
        VAE(digits.shape, **arguments), digits, ppl_vae.Settings(epochs=1), run=run, progress=False
    )
    assert shell("evaluate", "run")[0] == 0
    config.data.pop("source")
    run = ppl_vae.Run.create("bare", config)
    run.start()
    run.save_weights(VAE(digits.shape, **arguments).state_dict())
    code, _, err = shell("evaluate", "bare")
    assert code == 2
    assert "does not say what it was fitted to" in err


def test_data_too_few_for_every_picture(shell, tmp_path):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(12, 5)))
    words = ["--data", "t.npy", "--likelihood", "gaussian", "--hidden", 8, "--batch-size", 4]
    code, _, err = shell("train", *words, "--epochs", 1)
    assert code == 0, err


@pytest.mark.filterwarnings("always::ppl_vae.data.inspection.DataWarning")
def test_data_that_are_all_alike(shell, tmp_path):
    np.save(tmp_path / "t.npy", np.full((40, 5), 3.0))
    words = ["--data", "t.npy", "--likelihood", "gaussian", "--hidden", 8, "--batch-size", 4]
    code, out, err = shell("train", *words, "--epochs", 1)
    assert code == 0, err
    assert "constant" in err
    assert "nan" not in out.split("bits")[0]


def test_initial_weights_follow_the_seed():
    from ppl_vae.models import VAE
    from ppl_vae.programs.references import build_program

    first, same, other = (build_program(VAE, (5,), {}, seed).encoder.mlp[0] for seed in (1, 1, 2))
    assert (first.weight == same.weight).all()
    assert (first.weight != other.weight).any()


def test_reconstruct_takes_the_split_it_is_told(fitted, tmp_path):
    for split in ("train", "test"):
        words = ["reconstruct", "run", "--output", f"{split}.npy", "--split", split]
        assert fitted(*words)[0] == 0
    assert (np.load(tmp_path / "train.npy") != np.load(tmp_path / "test.npy")).any()


def test_evaluate_gives_back_what_train_printed(shell):
    _, trained, _ = shell(*TRAIN, "--json", "--seed", 3, "--output", "run")
    code, out, _ = shell("evaluate", "run", "--json", "--seed", 3)
    assert code == 0
    for name in ("elbo", "reconstruction", "kl", "iw_bound"):
        assert json.loads(out)[name] == json.loads(trained)[name]


def test_evaluate_options(fitted):
    _, out, _ = fitted("evaluate", "run", "--json", "--draws", 7, "--split", "validation")
    figures = json.loads(out)
    assert (figures["draws"], figures["split"], figures["elbo"]["n"]) == (7, "validation", 180)
    assert fitted("evaluate", "run")[1].count("│ ELBO  ") == 1


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_pictures_and_arrays(fitted, tmp_path, command):
    code, out, _ = fitted(command, "run", "--count", 5, "--json")
    assert code == 0
    assert json.loads(out)["output"].endswith(".png")
    code, _, _ = fitted(command, "run", "--count", 5, "--output", "x.npy")
    assert code == 0
    assert np.load(tmp_path / "x.npy").shape == (5, 1, 8, 8)
    assert not list(tmp_path.glob(".*"))


def test_sample_is_the_mean_or_a_draw(fitted, tmp_path):
    fitted("sample", "run", "--output", "mean.npy", "--seed", 1)
    fitted("sample", "run", "--output", "draw.npy", "--seed", 1, "--noise")
    mean, draw = (np.load(tmp_path / f"{name}.npy") for name in ("mean", "draw"))
    assert set(np.unique(draw)) == {0.0, 1.0}
    assert len(np.unique(mean)) > 100


def test_the_autoencoder_says_why_it_has_no_elbo(shell):
    code, out, _ = shell(*TRAIN, "--model", "autoencoder")
    assert code == 0
    assert "point mass" in out
    assert "ELBO" not in out.split("point mass")[0]


def test_a_model_and_data_of_ones_own(shell, tmp_path):
    code = "from tests.programs import Minimal\n\nclass Mine(Minimal):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(200, 5)))
    code, _, err = shell("train", "--model", "mine.py:Mine", "--data", "table.npy", "--epochs", 1)
    assert code == 0, err
    code, _, err = shell("evaluate", "runs/table-mine")
    assert code == 2
    assert "--model mine.py:Mine" in err
    code, out, _ = shell("evaluate", "runs/table-mine", "--model", "mine.py:Mine", "--json")
    assert code == 0
    assert json.loads(out)["elbo"]["n"] == 20
    for command in ("sample", "reconstruct"):
        assert shell(command, "runs/table-mine", "--model", "mine.py:Mine")[0] == 0
    assert (tmp_path / "runs/table-mine/pictures/samples.npy").is_file()


def test_a_run_finds_its_data_from_any_folder(shell, tmp_path, monkeypatch):
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(200, 5)))
    shell("train", "--data", "table.npy", "--likelihood", "gaussian", "--hidden", 8, "--epochs", 1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert shell("evaluate", "../runs/table-vae")[0] == 0
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(200, 4)))
    code, _, err = shell("evaluate", "../runs/table-vae")
    assert code == 2
    assert "has changed since" in err


@pytest.mark.filterwarnings("always::ppl_vae.training.trainer.DivergenceWarning")
def test_a_diverged_fit_exits_with_2_and_leaves_a_run_that_loads(shell, tmp_path):
    np.save(tmp_path / "t.npy", np.random.default_rng(0).normal(size=(200, 5)))
    code, _, err = shell(
        "train", "--data", "t.npy", "--likelihood", "gaussian", "--learning-rate", "1e20",
        "--warmup-epochs", "0", "--hidden", "8", "--output", "run",
    )  # fmt: skip
    assert code == 2
    warned = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == 2
    assert "rolled back to step 0, learning rate scaled by 0.1" in warned[0]
    assert "or try a learning rate of 1e+17" in err.splitlines()[-1]
    assert ppl_vae.load(tmp_path / "run") is not None


def test_overwrite_replaces_a_run(fitted, tmp_path):
    before = (tmp_path / "run/weights.safetensors").read_bytes()
    assert fitted(*TRAIN, "--output", "run", "--overwrite", "--seed", 1)[0] == 0
    assert (tmp_path / "run/weights.safetensors").read_bytes() != before
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["sample"], ["reconstruct"]])
def test_help_shows_an_example_and_does_not_import_torch(command):
    script = (
        "import sys; from ppl_vae import cli; sys.argv[0] = 'ppl-vae'\n"
        "try: cli.main()\n"
        "except SystemExit as exit_: assert not exit_.code\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Example: ppl-vae" in done.stdout
    assert done.stderr == ""


def test_a_fresh_process_prints_no_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ppl_vae", *TRAIN, "--json"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert json.loads(done.stdout)["epochs"] == 2


def test_an_interrupted_fit_keeps_its_weights(shell, monkeypatch, tmp_path):
    from ppl_vae.training.trainer import Trainer

    epoch = Trainer.epoch

    def interrupted(trainer, progress):
        if trainer.counters.steps > 0:
            raise KeyboardInterrupt
        return epoch(trainer, progress)

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    code, _, err = shell(*TRAIN, "--output", "run")
    assert code == 130
    assert "interrupted: run holds the best weights" in err
    assert "continue with: ppl-vae train --resume run" in err
    assert ppl_vae.load(tmp_path / "run") is not None
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, resumed, err = shell("train", "--resume", "run", "--json")
    assert code == 0, err
    code, whole, _ = shell(*TRAIN, "--output", "whole", "--json")
    ours, theirs = json.loads(resumed), json.loads(whole)
    assert {**ours, "run": 0, "pictures": 0} == {**theirs, "run": 0, "pictures": 0}


LARGE = {"channels": [32, 64], "latent_dim": 64}


@pytest.mark.parametrize(
    ("shape", "words", "expected"),
    [
        ((40, 32, 32), [], LARGE),
        ((40, 33, 33, 3), [], {"channels": [32, 64, 128], "latent_dim": 96}),
        ((40, 32, 32), ["--channels", ""], {"channels": [], "latent_dim": 64}),
        ((40, 32, 32), ["--hidden", "8"], {"hidden": [8], "latent_dim": 64}),
        ((40, 32, 32), ["--latent-dim", "2"], {"channels": [32, 64], "latent_dim": 2}),
        ((40, 32, 32), ["--model", "autoencoder"], LARGE),
        ((40, 32, 32), ["--model", "linear-gaussian"], {}),
        ((40, 28, 28), [], {}),
        ((40, 64), [], {"latent_dim": 32}),
        ((40, 640), [], {"latent_dim": 50}),
        ((40, 64), ["--latent-dim", "3"], {"latent_dim": 3}),
    ],
    ids=str,
)
def test_arguments_go_by_the_shape_of_a_datum(shape, words, expected, shell, tmp_path, monkeypatch):
    # Which arguments the fit is given: it need not take place.
    monkeypatch.setattr("ppl_vae.cli.train._fit_and_show", lambda run, *_, **__: run.start())
    x = np.random.default_rng(0).normal(size=shape)
    np.save(tmp_path / "x.npy", x)
    gaussian = [] if "linear-gaussian" in words else ["--likelihood", "gaussian"]
    assert shell("train", "--data", "x.npy", *words, *gaussian, "--output", "run")[0] == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    likelihood = {"likelihood": "gaussian"} if gaussian else {}
    config["arguments"].pop("columns", None)  # of what is no image
    assert config["arguments"] == likelihood | expected
