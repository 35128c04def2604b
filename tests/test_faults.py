"""What a run survives: kills, full disks, folders that cannot be written, files that are gone."""

import os
import resource
import signal
import subprocess
import time
import warnings

import numpy as np
import pytest

import ppl_vae

from .conftest import TRAIN, load_benchmark

FIT = [*TRAIN, "--epochs", 6, "--batch-size", 16, "--engine", "eager"]  # 90 steps an epoch


@pytest.fixture(scope="module")
def faults():
    return load_benchmark("faults")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own; returns a function that mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("only root can mount a file system to fill, or to make read-only")

    mount("size=1m")
    yield folder, lambda *options: mount("remount", *options)
    subprocess.run(["umount", str(folder)], check=True)


def contents(folder):
    return {f: f.read_bytes() for f in folder.rglob("*") if f.is_file() and f.name != ".lock"}


def end(err):
    """The last line of standard error, which a progress bar may come before."""
    return err.strip().splitlines()[-1]


def the_same(faults, one, other):
    """Whether two runs are one fit, but for seconds and what was printed."""
    return faults.result(one, "{}") == faults.result(other, "{}")


def test_fits_that_are_killed_and_resumed_end_as_if_they_had_not_been(faults):
    assert all(same for same, _ in faults.kills(runs=3, epochs=3))


def test_flipped_bits_are_refused_or_harmless(faults, tmp_path):
    run = faults.make_run(tmp_path)
    for name, counts in faults.flips(run, count=80, block=16):
        assert counts.keys() <= {"refused", "harmless"}, name
        assert counts.total() == 16


def test_checkpoints_take_their_share_of_a_fit_and_no_more(faults, tmp_path, monkeypatch):
    # Not how long they take, but that time is kept: the next is due when a hundred times the time
    # of the last has gone by.
    kept = ppl_vae.runs.checkpoints.Checkpoints(tmp_path / "kept")
    clock = iter([0.0, 2.0, 201.9, 202.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    kept.write(1, {}, {})
    assert not kept.is_due()
    assert kept.is_due()


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_fit_that_is_told_to_stop_saves_and_says_how_to_go_on(
    faults, shell, tmp_path, with_signal
):
    words = [str(word) for word in FIT]
    child, output = faults.start(faults.shell(*words, "--epochs", "500", "--output", "run"))
    while not list(tmp_path.glob("run/checkpoints/*")):
        time.sleep(0.05)
    code, _, err = shell("train", "--resume", "run")
    assert code == 2
    assert end(err) == ("error: run is being fitted by another process: wait for it, or stop it")
    code, _, err = shell(*words, "--output", "run", "--overwrite")
    assert code == 2
    assert "run is being fitted by another process" in end(err)
    os.kill(child, with_signal)
    code, printed = faults.finish(child, output)
    assert code == 130
    assert end(printed) == (
        "interrupted: run holds the best weights up to here; continue with: ppl-vae train --resume "
        "run"
    )
    assert ppl_vae.load("run") is not None
    assert not [f for f in tmp_path.rglob(".*") if f.name != ".lock"]


def test_a_fit_that_is_killed_goes_on(faults, shell, tmp_path):
    words = [str(word) for word in FIT]
    assert shell(*words, "--output", "whole")[0] == 0
    child, output = faults.start(faults.shell(*words, "--output", "run"))
    while len(list(tmp_path.glob("run/checkpoints/step-*"))) < 2:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert faults.finish(child, output)[0] == -signal.SIGKILL
    assert shell("train", "--resume", "run")[0] == 0
    assert the_same(faults, tmp_path / "run", tmp_path / "whole")


def test_an_interrupt_before_the_fit_says_that_nothing_was_written(shell, monkeypatch, tmp_path):
    from ppl_vae.training import fit as training

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "check_split", interrupt)
    code, _, err = shell(*TRAIN, "--output", "run")
    assert (code, err) == (130, "interrupted: nothing was written\n")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_ends_a_fit_that_goes_on_when_there_is_room(faults, shell, small_disk):
    disk, remount = small_disk
    run, whole = disk / "run", disk.parent / "whole"
    words = [*FIT, "--hidden", 64]
    assert shell(*words, "--output", whole)[0] == 0
    # There is room for the first checkpoint, which has no moments, but not for the second.
    first, last = (f.stat().st_size for f in sorted((whole / "checkpoints").iterdir()))
    remount(f"size={(first + last) // 1024 + 40}k")
    code, _, err = shell(*words, "--output", run)
    assert code == 2
    assert "cannot be written (No space left on device): make room" in end(err)
    assert end(err).endswith(f"then continue with ppl-vae train --resume {run}")
    assert ppl_vae.load(run) is not None
    assert not [f for f in run.rglob(".*") if f.name != ".lock"]
    remount("size=8m")
    assert shell("train", "--resume", run)[0] == 0
    assert the_same(faults, run, whole)


def test_a_disk_that_is_full_at_any_moment(faults, tmp_path, shell):
    """No file may grow beyond a limit, whichever file that is: nothing is half-written."""
    words = [*map(str, FIT), "--output"]
    assert shell(*words, "whole")[0] == 0
    sizes = sorted({f.stat().st_size for f in (tmp_path / "whole").rglob("*") if f.is_file()})
    for number, size in enumerate(sizes[:: len(sizes) // 3]):

        def limited(size=size, number=number):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))
            faults.shell(*words, f"run{number}")()

        if size == 0:
            continue
        code, printed = faults.in_child(limited)
        run = tmp_path / f"run{number}"
        assert "Traceback" not in printed
        assert code == 2, printed
        assert "cannot be written (File too large)" in end(printed)
        assert not [f for f in run.rglob(".*") if f.name != ".lock"]
        if (run / "config.json").exists():
            assert shell("train", "--resume", run)[0] == 0
        else:
            assert shell(*words, run)[0] == 0
        assert the_same(faults, run, tmp_path / "whole")


def test_a_folder_that_cannot_be_written(shell, small_disk):
    disk, remount = small_disk
    run = disk / "run"
    assert shell(*TRAIN, "--output", run)[0] == 0
    before = contents(disk)
    remount("ro")
    for words in (
        [*TRAIN, "--output", disk / "new"],
        [*TRAIN, "--output", run, "--overwrite"],
        ["train", "--resume", run],
        ["evaluate", run],
        ["diagnose", run],
        ["sample", run],
        ["reconstruct", run],
        ["gradients", run],
        ["experiment", "gap", "--quick", "--output", disk / "gap"],
    ):
        code, out, err = shell(*words)
        assert (code, out) == (2, ""), words
        assert "(Read-only file system)" in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    assert contents(disk) == before
    # A run that cannot be written can be used.
    assert shell("evaluate", run, "--draws", 2, "--output", "here.nc")[0] == 0
    assert shell("sample", run, "--output", "here.png")[0] == 0


def test_data_that_vanish_midway(shell, faults, tmp_path):
    rows = np.random.default_rng(0).normal(size=(200, 5))
    np.save(tmp_path / "table.npy", rows)
    words = ["train", "--data", "table.npy", "--likelihood", "gaussian", "--hidden", "8"]
    words += ["--batch-size", "2", "--epochs", "40", "--engine", "eager", "--output", "run"]
    child, output = faults.start(faults.shell(*words))
    while not list(tmp_path.glob("run/checkpoints/*")):
        time.sleep(0.05)
    (tmp_path / "table.npy").unlink()  # it is in memory by now
    os.kill(child, signal.SIGINT)
    assert faults.finish(child, output)[0] == 130
    before = contents(tmp_path)
    for command in (["train", "--resume"], ["evaluate"], ["diagnose"], ["reconstruct"]):
        code, out, err = shell(*command, "run")
        assert (code, out) == (2, "")
        assert f"{tmp_path / 'table.npy'} is no longer there" in err
        assert "train --resume run --data NEW" in err
    np.save(tmp_path / "table.npy", rows + 1e-9)
    code, _, err = shell("train", "--resume", "run")
    assert code == 2
    assert "has changed since run was fitted to it" in err
    (tmp_path / "table.npy").unlink()
    assert contents(tmp_path) == before
    np.save(tmp_path / "moved.npy", rows + 1e-9)
    code, _, err = shell("train", "--resume", "run", "--data", "moved.npy")
    assert (code, "has changed since run was fitted to it" in err) == (2, True)
    np.save(tmp_path / "moved.npy", rows)
    code, _, err = shell(
        "train",
        "--resume",
        "run",
        "--data",
        "moved.npy",
    )
    assert code == 0, err
    assert shell("evaluate", "run")[0] == 0
    assert shell("sample", "run", "--output", "x.npy")[0] == 0  # it needs no data


def test_options_do_not_go_with_resume(fitted):
    code, _, err = fitted("train", "--resume", "run", "--hidden", 5, "--seed", 1)
    assert code == 2
    assert err == "error: --resume continues run as it began: leave out --hidden, --seed\n"


def test_a_run_of_ones_own_model_is_resumed_when_it_is_named(shell, tmp_path):
    code = "from tests.programs import Minimal\n\nclass Mine(Minimal):\n    pass\n"
    (tmp_path / "mine.py").write_text(code)
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(size=(200, 5)))
    words = ["--model", "mine.py:Mine"]
    assert shell("train", *words, "--data", "table.npy", "--epochs", 1, "--output", "run")[0] == 0
    code, _, err = shell("train", "--resume", "run")
    assert code == 2
    assert "if you trust that code, say --model mine.py:Mine" in err
    with warnings.catch_warnings():
        assert shell("train", "--resume", "run", *words)[0] == 0
