"""What the command line says: versions, hints, remedies, what is missing, how far it has come."""

import io
import os
import re
import string
import subprocess
import sys
from dataclasses import fields

import pytest
import typer
from rich.console import Console

import ppl_vae
from ppl_vae import errors
from ppl_vae.cli import app, hints, messages, model_options
from ppl_vae.cli.epoch_log import EpochLog
from ppl_vae.progress import progress_bar, shorten

from .conftest import TRAIN

GROUP = typer.main.get_command(app.app)
FLAGS = {name: app._flags(command) for name, command in GROUP.commands.items()}


def test_the_version_needs_no_torch():
    script = (
        "import sys; from ppl_vae import cli; sys.argv[:] = ['ppl-vae', '--version']\n"
        "try: cli.main()\n"
        "finally: assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ppl_vae.__version__ in done.stdout


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("train --lr 0.1", "--learning-rate"),
        ("train -lr 0.1", "--learning-rate"),
        ("train --lr=0.1", "--learning-rate"),
        ("train --learning 0.1", "--learning-rate"),
        ("train --learnig-rate 0.1", "--learning-rate"),
        ("train --bs 3", "--batch-size"),
        ("train --batchsize 3", "--batch-size"),
        ("train --batch_size 3", "--batch-size"),
        ("train --n-epochs 3", "--epochs"),
        ("train --epoch 3", "--epochs"),
        ("train --out x", "--output"),
        ("train --save-dir x", "--output"),
        ("train --latent 2", "--latent-dim"),
        ("train --z-dim 2", "--latent-dim"),
        ("train --layers 2", "--hidden"),
        ("train --hidden-dim 2", "--hidden"),
        ("train --num-samples 2", "--particles"),
        ("train --dataset x", "--data"),
        ("train --guid full", "--guide"),
        ("train --posterior full", "--guide"),
        ("train --enc-hidden 9", "--encoder-hidden"),
        ("train --n-components 9", "--components"),
        ("train --priors vamp", "--prior"),
        ("evaluate run --num-samples 2", "--draws"),
        ("sample run -n 2", "--count"),
        ("diagnose run --gpu", "--device"),
        ("evaluate run --epochs 3", "ppl-vae train"),
        ("--epochs 3", "ppl-vae train"),
        ("--lr 3", "--learning-rate"),
        ("-V", "--version"),
        ("fit", "train"),
        ("trian", "train"),
        ("eval run", "evaluate"),
        ("generate run", "sample"),
        ("version", "--version"),
        ("xyzzy", "experiment"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_one(line, meant, shell, tmp_path):
    code, out, err = shell(*line.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(rf"(?<![\w-]){re.escape(meant)}(?![\w-])", err), err
    assert "--help" not in err
    assert not list(tmp_path.iterdir())


def test_a_word_like_no_other_leads_to_the_help(shell):
    code, _, err = shell("train", "--zzz", "1")
    assert code == 2
    assert err == "error: No such option: --zzz: see ppl-vae train --help\n"
    assert "see ppl-vae train --help" in shell("train", "--batch-size")[2]


def test_aliases_lead_to_what_there_is():
    known = {flag.removeprefix("--") for flags in FLAGS.values() for flag in flags.values()}
    assert {*hints.ALIASES} <= known | {"version"}
    assert {name for name in hints.COMMANDS if not name.startswith("--")} == {*GROUP.commands}
    for table in (hints.ALIASES, hints.COMMANDS):
        assert not table.keys() & {word for words in table.values() for word in words.split()}


def test_every_remedy_has_words_for_both():
    assert messages.REMEDIES.keys() == errors.REMEDIES.keys()
    for key, words in errors.REMEDIES.items():
        names, ours = (
            {field for _, field, _, _ in string.Formatter().parse(text) if field}
            for text in (words, messages.REMEDIES[key])
        )
        assert names == ours, key
    of_all = " ".join(messages.REMEDIES.values())
    commands = (GROUP, *GROUP.commands.values())
    options = [option for command in commands for option in command.params]
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    assert {*re.findall(r"--[\w-]+", of_all)} <= known
    assert {*re.findall(r"ppl-vae (\w+)", of_all)} <= GROUP.commands.keys()


@pytest.mark.parametrize(
    ("line", "found"), [("ppl-vae tra", "train"), ("ppl-vae nothing --o", ""), ("ppl-vae fit ", "")]
)
def test_completing_a_line_prints_nothing_else(line, found, tmp_path):
    words = len(line.split(" ")) - 1
    completing = {
        "_PPL_VAE_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(words),
    }
    done = subprocess.run(
        [sys.executable, "-m", "ppl_vae"],
        capture_output=True, text=True, cwd=tmp_path, env=os.environ | completing,
    )  # fmt: skip
    assert done.stderr == ""
    assert found in done.stdout


def test_settings_of_an_extra_that_is_missing_are_in_nobodys_way(shell, tmp_path, monkeypatch):
    (tmp_path / "matplotlibrc").write_text("")
    monkeypatch.setitem(sys.modules, "arviz", None)
    code, out, err = shell("--version")
    assert (code, err) == (0, "")
    assert ppl_vae.__version__ in out


def test_an_argument_is_told_as_its_option(shell, tmp_path):
    flags = FLAGS["train"]
    assert {field.name for field in fields(ppl_vae.Settings)} <= flags.keys()
    for name, flag in flags.items():
        error = ppl_vae.InputError(name, "must be another", "resume", run="runs/a")
        words = messages.in_flags(error, flags)
        assert words == f"{flag} must be another: continue with ppl-vae train --resume runs/a"
    error = ppl_vae.InputError("draws=9", "would take 1 TB", "take fewer")
    assert messages.in_flags(error, FLAGS["evaluate"]).startswith("--draws 9 would take 1 TB: ")
    assert messages.in_flags(error, flags).startswith("draws=9 would take")  # no option of train
    assert shell("gradients", "run", "--particles", "x")[2].startswith("error: ")


@pytest.mark.parametrize(
    ("module", "extra"),
    [("sklearn.datasets", "data"), ("arviz", "diagnose"), ("tensorboard", "tensorboard")],
)
def test_a_missing_extra_is_named(module, extra, shell, monkeypatch):
    def load(*_, **__):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(model_options, "find_model", load)
    code, out, err = shell("train", "--output", "run")
    assert (code, out) == (2, "")
    assert f"pip install 'ppl-vae[{extra}]'" in err
    assert err.count("\n") == 1
    module = "other"
    monkeypatch.setattr(sys, "argv", ["ppl-vae", "train", "--output", "run"])
    with pytest.raises(ModuleNotFoundError):
        app.main()


NOTE = "epoch 15/20: loss 232568.12, validation ELBO -232568.22"


@pytest.mark.parametrize("width", [70, 80, 200])
def test_a_narrow_bar_keeps_its_numbers_and_the_time_left(width, monkeypatch):
    screen = io.StringIO()

    def console(**_):
        return Console(file=screen, width=width, force_terminal=True, _environ={})

    monkeypatch.setattr("rich.console.Console", console)
    with progress_bar("fitting") as on_progress:
        on_progress(0.25, NOTE)
        on_progress(0.25, "")
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "\n").split("\n")
    line = next(line for line in reversed(lines) if "left" in line)
    assert len(line) <= width
    assert re.search(r"[\d-]+:[\d-]{2} left", line)
    assert re.findall(r"-?\d[\d./]*\d", line)[:3] == ["15/20", "232568.12", "-232568.22"]
    assert "…" not in line
    assert ("validation" in line) == (width > 70)


def test_shortening_keeps_numbers():
    for width in range(len(NOTE)):
        assert re.findall(r"\d+", shorten(NOTE, width)) == re.findall(r"\d+", NOTE)
    assert shorten(NOTE, len(NOTE)) == NOTE


def test_a_log_has_a_line_for_each_epoch(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ppl_vae", *TRAIN, "--json"],
        capture_output=True, text=True, cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "FORCE_COLOR"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("epoch")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    for line in lines:
        assert re.search(r"ELBO -\d+\.\d\d nats, .* \d+\.\d s, \d+:\d\d left$", line)


def test_the_log_of_an_autoencoder_and_of_long_fits():
    log, row = EpochLog(100), {"epoch": 1, "reconstruction": -232568.221, "loss": 232568.2}
    line = log.line({**row, "seconds": 100.0})
    assert "reconstruction -232568.22 nats" in line
    assert line.endswith("100.0 s, 165:00 left")
