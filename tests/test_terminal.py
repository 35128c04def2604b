"""Terminals, pipes and signals: odd names command nothing, and no end is a traceback."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

import ppl_vae
from ppl_vae import signals
from ppl_vae.cli import app, terminal
from ppl_vae.cli.terminal import LOG, StandardOutput
from ppl_vae.progress import progress_bar

from .conftest import TRAIN

PROGRAM = [sys.executable, "-m", "ppl_vae"]
FULL = "/dev/full"
NAMES = [os.fsdecode(b"bad\xff"), "red\x1b[31m", "line\nfeed", "[bold]", "\u202egnp", "\x9b2J"]
needs_full = pytest.mark.skipif(not os.path.exists(FULL), reason="no /dev/full")


@pytest.mark.parametrize("name", NAMES[:3], ids=range(3))
def test_a_folder_of_any_name_holds_a_run_and_commands_no_terminal(name, strangers_run, shell):
    os.rename(strangers_run, name)
    data = os.path.join(name, "x.npy")
    np.save(data, np.random.default_rng(0).normal(size=(40, 3)))
    fit = ["--hidden", 4, "--epochs", 1, "--likelihood", "gaussian"]
    for words in (
        ["train", "--data", data, *fit, "--output", f"{name}-new"],
        ["evaluate", name, "--draws", 2],
        ["encode", name, "--method", "guide", "--output", f"{name}-new/codes.nc"],
        ["encode", f"{name}-new", "--method", "guide", "--data", data],
        ["score", name],
        ["compare", name, f"{name}-new", "--draws", 2],
        ["report", name],
    ):
        code, out, err = shell(*words)
        odd = words[0] == "compare"  # which is of other data
        assert code == (2 if odd else 0), err
        for line in (out + err).split("\n"):
            assert line.isprintable()
    found = json.loads(shell("evaluate", name, "--draws", 2, "--json")[1])
    assert found["run"] == name


def test_a_command_to_paste_is_one_word_of_a_shell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        os.mkdir(name)
        word = ppl_vae.errors.shell_word(name)
        assert word.isprintable()
        subprocess.run(["bash", "-c", f"test -d {word}"], check=True)


def ppl(*words, **streams):
    """The exit code and standard error of a process of its own."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    done = subprocess.run([*PROGRAM, *map(str, words)], **streams)
    return done.returncode, (done.stderr or b"").decode()


SHOWN = [["--help"], ["evaluate", "--draws", "2", "--json"]]


def of_run(words, run):
    return words if words[0].startswith("-") else [words[0], run, *words[1:]]


@needs_full
@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_a_full_standard_output_is_told_in_one_line(words, strangers_run):
    with open(FULL, "w") as full:
        code, err = ppl(*of_run(words, strangers_run), stdout=full)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: standard output cannot be written (No space left on device)")


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_who_reads_the_output_may_leave(words, strangers_run):
    reader, writer = os.pipe()
    os.close(reader)
    assert ppl(*of_run(words, strangers_run), stdout=writer) == (terminal.PIPE_CLOSED, "")
    os.close(writer)


@needs_full
def test_a_log_that_cannot_be_written_ends_no_fit(tmp_path):
    with open(FULL, "w") as full:
        code, _ = ppl(*TRAIN, "--output", tmp_path / "run", stderr=full)
    assert code == 0
    assert ppl_vae.load(tmp_path / "run") is not None


def test_streams_that_are_closed_are_taken_by_no_file(tmp_path):
    words = " ".join(map(str, [*PROGRAM, *TRAIN, "--output", tmp_path / "run"]))
    assert subprocess.run(["sh", "-c", f"{words} >&- 2>&- <&-"]).returncode == 0
    assert ppl_vae.load(tmp_path / "run") is not None


def test_characters_that_an_encoding_lacks_are_written_as_escapes(tmp_path):
    file = tmp_path / "a.txt"
    with open(file, "w", encoding="latin-1") as stream:
        StandardOutput(stream).write("é \u2502 \udcff")
    assert file.read_bytes() == b"\xe9 \\u2502 \\udcff"


@pytest.mark.parametrize("name", ["nonsense", "cuda:-1", "", "meta", "privateuseone", "\x1b[2J"])
def test_no_device_of_any_name_is_a_traceback(name, strangers_run, shell):
    for words in (["evaluate", "run"], ["train", "--output", "new"]):
        code, out, err = shell(*words, "--device", name)
        assert (code, out) == (2, "")
        assert err.startswith(f"error: --device {name!a} cannot be used here (")
        assert err.count("\n") == 1
    assert not os.path.exists("new")


def test_an_interrupt_while_modules_are_imported_is_one_line(tmp_path):
    # Of a module that would lose it, as some do.
    (tmp_path / "slow.py").write_text(
        "import os, signal\n"
        "try: os.kill(os.getpid(), signal.SIGINT)\n"
        "except BaseException: pass\n"
        "class Slow: pass\n"
    )
    words = ["train", "--model", f"{tmp_path / 'slow.py'}:Slow", "--output", tmp_path / "run"]
    assert ppl(*words) == (130, "interrupted\n")
    assert not (tmp_path / "run").exists()


def test_an_interrupt_outside_of_commands_is_one_line(tmp_path):
    script = (
        "import os, signal, typer\n"
        "from ppl_vae import cli\n"
        "typer.main.get_command = lambda _: os.kill(os.getpid(), signal.SIGTERM)\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_command_that_is_interrupted_says_so(shell, monkeypatch, strangers_run):
    def interrupt(*_, **__):
        os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr("ppl_vae.inference.estimate.estimate", interrupt)
    assert shell("-q", "evaluate", "run") == (130, "", "interrupted\n")
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_signals_that_are_ignored_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as by nohup
    try:
        with signals.handled(signals.leave_or_raise):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_ends_no_call(monkeypatch):
    class Dead:
        encoding = "utf-8"

        def isatty(self):
            return True

        def write(self, text):
            raise OSError(5, "Input/output error")

        def flush(self):
            self.write("")

    monkeypatch.setattr(sys, "stderr", Dead())
    with progress_bar("fitting") as on_progress:
        on_progress(0.5, "half")
    with terminal.speaking():
        LOG.warning("nobody hears")


def test_verbose_says_more_and_quiet_less(shell, tmp_path):
    said = {}
    for flag in ("-v", "", "-q"):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        code, out, said[flag] = shell(*filter(None, [flag]), *TRAIN, "--output", "run")
        assert code == 0
        assert "ELBO" in out
    assert "fitting VAE to digits on cpu in 24 steps\n" in said["-v"]
    assert "wrote run/weights.safetensors" in said["-v"]
    for flag, lines in said.items():
        epochs = [line for line in lines.splitlines() if line.startswith("epoch 1/2: ELBO")]
        assert len(epochs) == (flag != "-q")
        assert "warning: the fit is worse" in lines
    assert all(line.startswith("warning: ") for line in said["-q"].splitlines())
    assert "wrote" not in said[""]
    assert (LOG.level, LOG.handlers) == (logging.NOTSET, [])
    code, _, err = shell("-q", "-v", "train")
    assert (code, err) == (2, "error: --quiet was given with --verbose: choose one\n")
    code, _, err = shell("train", "-q")
    assert err == "error: No such option: -q: it comes before the command: ppl-vae -q train\n"
    code, _, err = shell("-q", "evaluate", "run", "--draws", 0)
    assert err.startswith("error: --draws must be")


def test_a_bar_is_not_shown_where_the_logger_is_quiet(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    for level, shown in ((logging.WARNING, False), (logging.NOTSET, True)):
        LOG.setLevel(level)
        with progress_bar("fitting") as on_progress:
            on_progress(0.5, "half")
        assert bool(capsys.readouterr().err) == shown


def test_a_library_says_nothing_by_itself(digits, capfd):
    from ppl_vae.models import VAE

    vae = VAE(digits.shape, 2, hidden=(8,))
    ppl_vae.fit(vae, digits, ppl_vae.Settings(epochs=1), progress=False)
    assert capfd.readouterr() == ("", "")


def test_every_text_of_commands_goes_through_one_console():
    folder = os.path.dirname(app.__file__)
    for name in os.listdir(folder):
        if name.endswith(".py") and name != "terminal.py":
            with open(os.path.join(folder, name), encoding="utf-8") as source:
                text = source.read()
            assert "rich.console" not in text, name
            assert "typer.echo" not in text, name
