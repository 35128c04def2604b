"""A run directory from a stranger: no code runs, nothing outside it changes, nothing hangs."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ppl_vae
from ppl_vae import InputError
from ppl_vae.diagnostics.diagnosis import write_diagnosis
from ppl_vae.diagnostics.report import write_report

from .strangers import refuses, some_diagnosis

ROOT = Path(__file__).parents[1]
ENOUGH = ["--data-points", "5"]
COMMANDS = {
    "evaluate": ["evaluate", "run", "--draws", "2", *ENOUGH],
    "sample": ["sample", "run", "--count", "4"],
    "reconstruct": ["reconstruct", "run", "--count", "4"],
    "gradients": ["gradients", "run", "--particles", "2", "--repeats", "2", *ENOUGH],
    "report": ["report", "run"],
}


FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def in_a_fork(work):
    """The exit code of work that may hang, or read without end: 1 if it fails, ``None`` if it is
    not done in 10 seconds."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + 2**31,) * 2)
            code = work()
        finally:
            os._exit(code)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def edit_config(run, **changes):
    file = run / "config.json"
    fields = json.loads(file.read_text())
    fields["data"] |= changes
    file.write_text(json.dumps(fields))


# What is not a file


@pytest.mark.parametrize("name", ["diagnosis.nc", "diagnosis.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "loop", "folder", "missing"])
def test_a_diagnosis_of_something_else(name, kind, strangers_run, shell):
    file = strangers_run / "results" / name
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(name)
    elif kind == "folder":
        file.mkdir()
    refuses(shell, ["report", "run"], name)


@FORKS
@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "weights.safetensors"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_run_of_something_else_hangs_nothing(name, kind, strangers_run, shell):
    file = strangers_run / name
    file.unlink()
    os.mkfifo(file) if kind == "fifo" else file.symlink_to("/dev/zero")
    words = COMMANDS["report" if name == "metrics.csv" else "sample"]
    assert in_a_fork(lambda: shell(*words)[0]) == 2
    if name == "config.json":
        assert in_a_fork(lambda: shell("train", "--output", "run", "--overwrite")[0]) == 2


@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "results/diagnosis.json"])
def test_text_without_an_end_is_not_read(name, strangers_run, shell):
    os.truncate(strangers_run / name, 10**12)  # which takes no room on the disk
    refuses(shell, COMMANDS["sample" if name == "config.json" else "report"], name, "50.0 MB")
    if name == "config.json":
        refuses(shell, ["train", "--output", "run", "--overwrite"], "run")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("hidden", [10**6, 10**6], "config.json would take"),
        ("latent_dim", 10**9, "config.json would take"),
        ("latent_dim", 10**18, "more memory than"),
        ("hidden", [1] * 10**5, "hidden"),
    ],
)
def test_a_program_too_large_is_not_built_to_be_resumed(name, value, said, strangers_run, shell):
    file = strangers_run / "config.json"
    fields = json.loads(file.read_text())
    fields["arguments"][name] = value
    file.write_text(json.dumps(fields))
    refuses(shell, ["train", "--resume", "run"], said)


# Code that lies about


PLANTED = [
    *("sitecustomize", "usercustomize", "torch", "numpy", "evil", "conftest", "json", "pickle"),
    *("matplotlib", "h5py", "arviz", "models", "ppl_vae", "__init__", "__main__", "setup"),
]
SETTINGS = "backend: module://evil\ntext.usetex: True\naxes.prop_cycle: cycler('color', ['r'])\n"


@pytest.mark.parametrize("command", ["evaluate", "sample"])
def test_nothing_is_imported_from_the_folder_of_a_run(command, strangers_run, tmp_path):
    witness = tmp_path / "witness"
    code = f"open({str(witness)!r}, 'w')\n"
    for name in PLANTED:
        (strangers_run / f"{name}.py").write_text(code)
    (strangers_run / "evil").mkdir()
    (strangers_run / "evil" / "__init__.py").write_text(code)
    (strangers_run / "matplotlibrc").write_text(SETTINGS)
    (strangers_run / "arvizrc").write_text("plot.backend: evil\nstats.ci_prob: 0.1\n")
    (strangers_run / "pyproject.toml").write_text("[tool.pytest]\naddopts = '-p evil'\n")
    (strangers_run / "setup.cfg").write_text("[build_ext]\ninplace=1\n")
    words = ["." if word == "run" else word for word in COMMANDS[command]]
    # The console script has no folder of the user's in its path, as -P has not; and without PATH
    # there is no LaTeX for the labels of a picture.
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "", "HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ppl_vae", *words],
        cwd=strangers_run, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not witness.exists()


# Escapes


def contents(folder):
    """Every path below a folder, with what it holds and what it is."""
    return {
        str(path): path.read_bytes() if path.is_file() else path.stat().st_mode
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    (folder / "results").mkdir(parents=True)
    for name in ("victim", "results/diagnosis.nc", "results/test-iw.nc", "results/test-iw.json"):
        (folder / name).write_text("mine")
    return folder


FOLDERS = {
    **dict.fromkeys(("evaluate", "diagnose"), "results"),
    **dict.fromkeys(("sample", "reconstruct", "gradients"), "pictures"),
}
TARGETS = {
    "evaluate": ["results/test-iw.nc", "results/test-iw.json"],
    "sample": ["pictures/samples.png"],
    "reconstruct": ["pictures/reconstructions.png"],
    "gradients": ["pictures/gradients.png"],
    "report": ["report.html"],
    "diagnose": ["results/diagnosis.nc", "results/diagnosis.json", "report.html"],
}


def perform(command, run, shell):
    """A command, or what ``diagnose`` does once it has found its answers."""
    if command != "diagnose":
        return shell(*COMMANDS[command])[0]
    opened = ppl_vae.Run.open(run)
    try:
        write_diagnosis(opened.results, some_diagnosis())
        write_report(opened.report, some_diagnosis(), opened)
    except InputError:
        return 2
    return 0


@pytest.mark.parametrize("command", FOLDERS)
@pytest.mark.parametrize("target", ["outside/results", "outside", "outside/not-there"])
def test_a_folder_that_is_a_link_leads_nowhere(command, target, strangers_run, outside, shell):
    folder = strangers_run / FOLDERS[command]
    shutil.rmtree(folder)
    folder.symlink_to(strangers_run.parent / target)
    before = contents(outside)
    assert perform(command, strangers_run, shell) == 2
    assert contents(outside) == before


@pytest.mark.parametrize("command", TARGETS)
def test_a_file_that_is_a_link_leads_nowhere(command, strangers_run, outside, shell):
    before = contents(outside)
    for name in TARGETS[command]:
        file = strangers_run / name
        file.unlink(missing_ok=True)
        file.symlink_to(outside / "victim")
        file.with_name(f".{file.name}").write_text("a hidden file of the user's")
    assert perform(command, strangers_run, shell) in (0, 2)
    assert contents(outside) == before
    hidden = {file.name for file in strangers_run.rglob(".*")} - {".lock"}
    assert hidden == {f".{Path(name).name}" for name in TARGETS[command]}


# Where data are looked for


def test_nothing_is_downloaded_to_where_a_stranger_says(strangers_run, outside, shell, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", [(outside / "no-mirror").as_uri() + "/"])
    monkeypatch.setenv("PPL_VAE_DATA", str(strangers_run.parent / "mine"))
    edit_config(strangers_run, source="mnist", data_dir=str(outside / "downloads"))
    before = contents(outside)
    line = refuses(shell, COMMANDS["evaluate"], "mnist is not in", "cannot be downloaded")
    assert str(strangers_run.parent / "mine") in line
    assert contents(outside) == before


@pytest.mark.parametrize(
    "changes",
    [
        *({"source": value} for value in (None, 5, [], {}, "", "\x1b[2J", "a\nb", "x" * 5000)),
        *({"source": value} for value in ("/dev/zero", "fifo.npy", "/proc/self/mem", "~nobody-/x")),
        *({"data_dir": value, "source": "mnist"} for value in (5, [], {"a": 1}, "\x00", "/dev")),
        *({"binarize": value} for value in (None, 5, [], {}, "maybe")),
        *({"levels": value} for value in (0, 256, True, "255", [16], 1.5)),
        *({"digest": value} for value in (None, 5, [], "0" * 64)),
    ],
    ids=lambda changes: "-".join(f"{k}={str(v)[:9]!r}" for k, v in changes.items()),
)
def test_a_garbled_recipe_is_refused_in_one_line(changes, strangers_run, shell, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["file:///nonexistent/"])
    monkeypatch.setenv("PPL_VAE_DATA", str(strangers_run.parent / "mine"))
    os.mkfifo(strangers_run.parent / "fifo.npy")
    edit_config(strangers_run, **changes)
    refuses(shell, COMMANDS["evaluate"])
