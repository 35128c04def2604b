"""Every command that writes, stopped at one of its operations on files: is anything lost or torn?

    python benchmarks/operations.py                    # 200 operations, then 500 command lines
    python benchmarks/operations.py files --count 40
    python benchmarks/operations.py lines --count 100

files: a command is run where all that it writes is there from before. At one of its operations on
files (to make a folder, open for writing, sync, rename, remove), chosen at random, the process is
killed just before or just after it; or the operation fails, for the disk is full; or the power
fails just after it, and what was not synced is cut in half. Then each file must be what it was or
what it was to be, pairs must belong together, the user's own files must be untouched, what is
said must be no traceback, and the same command must work again.

lines: random words after `ppl-vae`, half of them sensible. Each ends with exit code 0 or 2 in half
a minute, without a traceback.
"""

import argparse
import errno
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray
from faults import finish, in_child, shell, start

from ppl_vae.cli.app import app
from ppl_vae.storage.tensors import read_tensors

FIT = ["train", "--data", "table.csv", "--likelihood", "gaussian", "--hidden", "4", "--epochs", "2"]
FIT += ["--latent-dim", "1", "--batch-size", "32", "--engine", "eager"]
EFFORT = ["--data-points", "20", "--simulations", "20", "--gap-points", "2", "--nuts-points", "1"]
COMMANDS = {
    "train": [*FIT, "--output", "run", "--overwrite"],
    "resume": ["train", "--resume", "run", "--epochs", "3"],
    "evaluate": ["evaluate", "run", "--draws", "3"],
    "sample": ["sample", "run", "--count", "4", "--output", "drawn.csv"],
    "pictures": ["reconstruct", "run"],
    "encode": ["encode", "run", "--method", "guide", "--output", "codes.csv"],
    "encode-nc": ["encode", "run", "--method", "guide", "--draws", "2", "--output", "codes.nc"],
    "score": ["score", "run", "--output", "scores.parquet"],
    "impute": ["impute", "run", "--method", "guide", "--output", "whole.csv", "--imputations", "1"],
    "inspect": ["inspect", "table.csv", "--write-schema", "schema.toml"],
    "gradients": ["gradients", "run", "--repeats", "2", "--data-points", "4"],
    "diagnose": ["diagnose", "run", *EFFORT, "--draws", "50"],
    "report": ["report", "run"],
    "refit": ["refit", "run", "--epochs", "1", "--output", "other", "--overwrite"],
    "repair": ["repair", "run", *EFFORT, "--epochs", "1", "--output", "mended", "--overwrite"],
}
REPLACED = {"train": "run/", "refit": "other/", "repair": "mended/"}  # by --overwrite
MODES = ("before", "after", "full", "power cut")
OWN = (".run", ".codes.csv", "run/.config.json", "run/notes.txt", "run/results/.test-iw.nc")
LIMIT = 300.0  # seconds: a fit or a diagnosis with its defaults is among the lines
READERS: dict[str, Callable[[Path], Any]] = {
    ".nc": lambda file: xarray.load_dataset(file, engine="h5netcdf"),
    ".json": lambda file: json.loads(file.read_text()),
    ".safetensors": read_tensors,
    ".npz": lambda file: {**np.load(file, allow_pickle=False)},
    ".html": lambda file: file.read_text().index("</html>"),
    ".png": lambda file: file.read_bytes().index(b"IEND"),
}


def make_world(folder: Path) -> None:
    """A table with holes, a run, and all that the commands write, from before."""
    chance = np.random.default_rng(0)
    x = chance.normal(size=(60, 2)).round(3)
    rows = [f"{a},{'' if chance.random() < 0.2 else b}" for a, b in x]
    (folder / "table.csv").write_text("\n".join(["a,b", *rows]) + "\n")
    for words in COMMANDS.values():
        code, printed = in_child(shell(*words))
        assert code == 0, printed
    for name in OWN:
        (folder / name).write_text("the user's own")


class Watch:
    """Counts operations on files, and stops the process at one of them.

    Arguments:
        at: The number of the operation; none at -1.
        mode: What happens there: one of ``MODES``.
        log: Where the inodes of synced files are noted.
    """

    def __init__(self, at: int, mode: str, log: Path) -> None:
        self.at, self.mode, self.log, self.count = at, mode, log, 0
        self.started = time.time()
        for name in ("mkdir", "replace", "rename", "unlink", "rmdir", "fsync", "open"):
            setattr(os, name, self._watched(getattr(os, name), name))

    def _watched(self, operation: Callable[..., Any], name: str) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return operation(*args, **options)
            here, self.count = self.count == self.at, self.count + 1
            if here and self.mode == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if here and self.mode == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            done = operation(*args, **options)
            if name == "fsync":
                with self.log.open("a") as stream:
                    stream.write(f"{os.fstat(args[0]).st_ino}\n")
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return watched


def run_stopped(words: list[str], at: int, mode: str, log: Path) -> tuple[int, str, int]:
    """Run a command in a fork: its exit code, its words, and how many operations it made."""
    counted = log.with_suffix(".count")

    def work() -> None:
        watch = Watch(at, mode, log)
        try:
            shell(*words)()
        finally:
            counted.write_text(str(watch.count))

    counted.unlink(missing_ok=True)
    code, printed = in_child(work)
    return code, printed, int(counted.read_text()) if counted.exists() else -1


def cut_power(folder: Path, since: float, log: Path) -> None:
    """Cut what was written since, and not synced, in half."""
    synced = {*log.read_text().split()} if log.exists() else set()
    for file in folder.rglob("*"):
        about = file.lstat()
        if file.is_file() and about.st_mtime >= since and str(about.st_ino) not in synced:
            os.truncate(file, about.st_size // 2)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def faults_of(folder: Path, before: dict[str, bytes], replaced: str) -> Iterator[str]:
    """What is wrong after a command was stopped, which was to replace a run, or none."""
    for name in (*OWN, "table.csv"):
        gone = replaced == "run/" and name.startswith("run/results/")
        if not gone and (folder / name).read_bytes() != before[name]:
            yield f"lost: {name} of the user's"
    for name in before:
        # A fit removes all but its newest two checkpoints.
        may_go = name.startswith(replaced or "run/checkpoints/")
        if not may_go and not (folder / name).exists():
            yield f"lost: {name}"
    for file in folder.rglob("*"):
        reader = READERS.get(file.suffix)
        if reader is None or file.name.startswith(".") or not file.is_file():
            continue
        try:
            reader(file)
        except Exception as error:
            yield f"torn: {file.relative_to(folder)} ({type(error).__name__})"
    pair = folder / "run/results/test-iw.nc", folder / "run/results/test-iw.json"
    if all(file.exists() for file in pair):
        digest = hashlib.sha256(pair[0].read_bytes()).hexdigest()
        if digest not in pair[1].read_text():
            yield "pair: results of two evaluations"


def operations(count: int, seed: int = 0) -> Iterator[tuple[str, str, list[str]]]:
    """Stop commands; yields the command, the mode, and what was wrong."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as place:
        world, folder, log = (Path(place) / name for name in ("world", "here", "log"))
        world.mkdir()
        os.chdir(world)
        make_world(world)
        before: dict[str, bytes] = contents(world)
        sizes: dict[str, int] = {}
        for number in range(count):
            command, mode = [*COMMANDS][number % len(COMMANDS)], MODES[number % len(MODES)]
            words = [*COMMANDS[command][:-1], "4"] if command == "resume" else COMMANDS[command]
            for at in [-1] * (command not in sizes) + [None]:
                log.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(world, folder)
                _point_to(folder, world)
                os.chdir(folder)
                at = chance.randrange(sizes[command]) if at is None else at
                begun = time.time()
                code, printed, made = run_stopped(words, at, mode, log)
                sizes.setdefault(command, made)
            if mode == "power cut":
                cut_power(folder, begun, log)
            found = [*faults_of(folder, before, REPLACED.get(command, ""))]
            if "Traceback" in printed or (mode == "full" and code not in (0, 2)):
                found.append(f"traceback: exit code {code}: {printed.strip()[-200:]}")
            again = words if command != "resume" else [*words[:3]]
            code, printed = in_child(shell(*again))
            if code and not (command == "resume" and "fit again" in printed):
                found.append(f"again: exit code {code}: {printed.strip()[-200:]}")
            yield command, mode, found


def _point_to(folder: Path, world: Path) -> None:
    """The copied run's data are the copied table."""
    file = folder / "run/config.json"
    file.write_text(file.read_text().replace(str(world), str(folder)))


def random_line(chance: random.Random, flags: dict[str, list[str]]) -> list[str]:
    """A command, options that it has or has not, and values that may or may not make sense."""
    everything = sorted({flag for known in flags.values() for flag in known} - {"--help"})
    values = ["1", "2", "0", "-1", "nan", "1e400", "", "run", "table.csv", "none.npy", "x" * 300]
    values += [
        "$HOME",
        "a\nb",
        "\x1b[2J",
        "--",
        "-",
        "digits",
        "vae",
        "gaussian",
        "/",
        ".",
        "..",
        "é",
    ]
    command = chance.choice([*flags, "", "trian", "--version"])
    words = [command] if command else []
    if chance.random() < 0.7:
        words.append(chance.choice(["run", "run", "run", *values]))
    for _ in range(chance.randrange(5)):
        known = flags.get(command) or everything
        words.append(chance.choice(known if chance.random() < 0.8 else everything))
        if chance.random() < 0.8:
            words.append(chance.choice(values))
    return words


def lines(count: int, seed: int = 0) -> Iterator[tuple[list[str], str]]:
    """Random command lines, and what was wrong with how each ended."""
    import typer

    chance = random.Random(seed)
    group: Any = typer.main.get_command(app)
    flags = {
        name: [option for p in command.params for option in p.opts if option.startswith("--")]
        for name, command in group.commands.items()
        if name != "experiment"
    }
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        make_world(Path(place))
        for _ in range(count):
            words = random_line(chance, flags)
            child, output = start(shell(*words))
            deadline, done = time.monotonic() + LIMIT, 0
            while not done and time.monotonic() < deadline:
                time.sleep(0.05)
                done = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
            if not done:
                os.kill(child, signal.SIGKILL)
            code, printed = finish(child, output)
            wrong = "" if done else "hangs"
            if "Traceback" in printed or (done and code not in (0, 2)):
                wrong = f"exit code {code}: {printed.strip()[-300:]}"
            yield words, wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=["files", "lines"])
    parser.add_argument("--count", type=int, help="operations (200), or command lines (500)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part in (None, "files"):
        wrong: Counter[str] = Counter()
        count = options.count or 200
        for command, mode, found in operations(count, options.seed):
            for fault in found:
                print(f"{command}, {mode}: {fault}", file=sys.stderr)
                wrong[fault.partition(":")[0]] += 1
        print(f"{count} operations: {dict(wrong) or 'nothing lost, torn or said by a traceback'}")
    if options.part in (None, "lines"):
        bad = [
            (words, wrong) for words, wrong in lines(options.count or 500, options.seed) if wrong
        ]
        for words, said in bad:
            print(words, said, file=sys.stderr)
        print(f"{options.count or 500} command lines: {len(bad)} ended otherwise than with 0 or 2")


if __name__ == "__main__":
    main()
