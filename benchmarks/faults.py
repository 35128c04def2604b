"""What does a run survive, and what does surviving cost?

    python benchmarks/faults.py                             # all of it, some 20 minutes
    python benchmarks/faults.py kills --runs 10
    python benchmarks/faults.py flips --flips 1000
    python benchmarks/faults.py inputs                      # tests/test_bad_input.py
    python benchmarks/faults.py cost --data-dir DIR         # of MNIST

kills: fits are killed by SIGKILL at random moments, once or several times, and resumed; in the end
weights, optimizer, random states, metrics and the printed numbers are those of an undisturbed
fit, bit for bit. flips: one bit of a checkpoint, of weights, a config or a diagnosis is
flipped; what reads it refuses it, or reads what was written. cost: seconds spent on checkpoints, as
a share of a fit.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from unittest import mock

import torch

import ppl_vae
from ppl_vae import cli
from ppl_vae.cli.opening import reopen
from ppl_vae.diagnostics.diagnosis import diagnose, read_diagnosis, write_diagnosis
from ppl_vae.diagnostics.questions import Effort
from ppl_vae.runs.checkpoints import Checkpoints
from ppl_vae.storage.files import make_folder
from ppl_vae.storage.tensors import read_tensors
from ppl_vae.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
FIT = ["train", "--data", "digits", "--hidden", "32", "--latent-dim", "2", "--batch-size", "16"]
EPOCHS, COMPILED = 20, 10  # of a fit; one in so many is compiled
OUTCOMES = ("refused", "harmless")


def start(work: Callable[[], Any]) -> tuple[int, IO[str]]:
    """Do work in a process of its own: returns its process id, and a file with what it prints.

    The process is a fork, so that a fit begins without the seconds that imports take.
    """
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115, for finish closes it
    sys.stdout.flush()
    if child := os.fork():
        return child, output
    code = 70
    try:
        sys.stdout = sys.stderr = output
        work()
        code = 0
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        output.flush()
        os._exit(code)


def finish(child: int, output: IO[str]) -> tuple[int, str]:
    """Wait for a process: returns its exit code, minus the signal that killed it, and its words."""
    status = os.waitpid(child, 0)[1]
    with output:
        output.seek(0)
        return os.waitstatus_to_exitcode(status), output.read()


def in_child(work: Callable[[], Any], kill_after: float | None = None) -> tuple[int, str]:
    """Do work in a process of its own to its end, or until it is killed."""
    child, output = start(work)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return finish(child, output)


def shell(*words: str) -> Callable[[], None]:
    def work() -> None:
        sys.argv = ["ppl-vae", *words]
        cli.main()

    return work


def result(run: Path, printed: str) -> Any:
    """All that a fit leaves, but for seconds, which no two have in common."""
    tensors, about = read_tensors(ppl_vae.Run.open(run).checkpoints.files()[0])
    rows = about["history"]["epochs"]
    for place in (*rows, about["state"]):
        place["seconds"] = 0
    metrics = [{**row, "seconds": 0} for row in ppl_vae.Run.open(run).metrics()]
    bits = {name: tensor.reshape(-1).view(torch.uint8).tolist() for name, tensor in tensors.items()}
    # Between what the progress bar says, and warnings.
    shown, _ = json.JSONDecoder().raw_decode(printed[printed.index("{") :])
    printed_numbers = {k: v for k, v in shown.items() if k not in ("run", "pictures")}
    return (run / "weights.safetensors").read_bytes(), bits, about, metrics, printed_numbers


def kills(runs: int, epochs: int = EPOCHS) -> Iterator[tuple[bool, int]]:
    """Kill fits and resume them; yields whether one ended as the undisturbed, and its kills."""
    for seed in range(runs):
        chance = random.Random(seed)
        engine = "compiled" if seed % COMPILED == COMPILED - 1 else "eager"
        words = [*FIT, "--epochs", str(epochs), "--seed", str(seed), "--engine", engine, "--json"]
        with tempfile.TemporaryDirectory() as folder:
            whole, run = Path(folder) / "whole", Path(folder) / "run"
            start = time.perf_counter()
            code, printed = in_child(shell(*words, "--output", str(whole)))
            seconds = time.perf_counter() - start
            assert code == 0
            expected, times = result(whole, printed), 0
            while True:
                begun = (run / "config.json").exists()
                more = ["train", "--resume", str(run), "--json"]
                work = shell(*more) if begun else shell(*words, "--output", str(run))
                killing = times == 0 or chance.random() < 0.5
                code, printed = in_child(work, chance.uniform(0, seconds) if killing else None)
                times += code == -signal.SIGKILL
                if code == 0:
                    break
                assert code == -signal.SIGKILL, f"seed {seed}: exit code {code}"
            yield result(run, printed) == expected, times


def make_run(folder: Path) -> Path:
    """A run with checkpoints, weights, config and a diagnosis, all of them small."""
    run = folder / "run"
    code, _ = in_child(shell(*FIT, "--epochs", "2", "--hidden", "4", "--output", str(run)))
    assert code == 0
    opened, program, data, _ = reopen(run, None, None)
    make_folder(opened.results)
    effort = Effort(data_points=20, draws=50, simulations=20, gap_points=2, nuts_points=1)
    write_diagnosis(opened.results, diagnose(opened.load(program), data, effort))
    return run


def of_checkpoint(run: Path) -> Any:
    return plain(*read_tensors(ppl_vae.Run.open(run).checkpoints.files()[0]))


def of_weights(run: Path) -> Any:
    return plain(ppl_vae.load(run).state_dict(), {})


def of_config(run: Path) -> Any:
    """What a config decides, as fit compares it with the checkpoint when it resumes."""
    opened, _, data, settings = reopen(run, None, None)
    _, about = read_tensors(opened.checkpoints.files()[0])
    if about["settings"] != json.loads(json.dumps(asdict(settings))):
        raise ppl_vae.InputError("settings", "are not those that it was begun with")
    return data.digest, settings, of_weights(run)


def of_diagnosis(run: Path) -> Any:
    found = read_diagnosis(ppl_vae.Run.open(run).results)
    groups = {name: found.inference_data[name].to_dict() for name in found.inference_data.groups()}
    return found.as_dict(), groups


def plain(tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> Any:
    bits = {name: tensor.reshape(-1).view(torch.uint8).tolist() for name, tensor in tensors.items()}
    return bits, about


READERS: dict[str, Callable[[Path], Any]] = {
    "checkpoints/step-000000180.safetensors": of_checkpoint,
    "weights.safetensors": of_weights,
    "config.json": of_config,
    "results/diagnosis.nc": of_diagnosis,
    "results/diagnosis.json": of_diagnosis,
}


def flip(run: Path, name: str, expected: str, chance: random.Random) -> str:
    """Flip one bit of a file, see what reading it comes to, and put the file back."""
    file, read = run / name, READERS[name]
    content = file.read_bytes()
    place = chance.randrange(len(content))
    altered = bytes([content[place] ^ (1 << chance.randrange(8))])
    file.write_bytes(content[:place] + altered + content[place + 1 :])
    try:
        found = repr(read(run))
    except ppl_vae.InputError as error:
        return "refused" if "\n" not in str(error) else f"several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        file.write_bytes(content)
    return "harmless" if found == expected else f"altered at byte {place}, and read"


def flips(run: Path, count: int, block: int = 100) -> Iterator[tuple[str, Counter[str]]]:
    """Flip bits of each file in turn; yields what they came to, block by block.

    Each block has a process of its own, so that one that crashes is counted.
    """
    for number in range(-(-count // block)):
        name = list(READERS)[number % len(READERS)]

        def work(name: str = name, number: int = number) -> None:
            warnings.simplefilter("ignore")
            chance = random.Random(number)
            left, expected = min(block, count - number * block), repr(READERS[name](run))
            print(json.dumps(Counter(flip(run, name, expected, chance) for _ in range(left))))

        code, printed = in_child(work)
        yield name, Counter(json.loads(printed) if code == 0 else {f"crashed, {code}": 1})


def cost(words: list[str]) -> tuple[float, float, int, float]:
    """Seconds spent on writing checkpoints, and on keeping states in memory; their number; all."""
    spent, counts = defaultdict[str, float](float), Counter[str]()

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            returned = method(*args, **kwargs)
            spent[method.__name__] += time.perf_counter() - start
            counts[method.__name__] += 1
            return returned

        return call

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(Checkpoints, "write", timed(Checkpoints.write)),
        mock.patch.object(Trainer, "snapshot", timed(Trainer.snapshot)),
    ):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            shell(*words, "--output", f"{folder}/run")()
        seconds = time.perf_counter() - start
    # All checkpoints but the last are written where a state is kept.
    return spent["write"], spent["snapshot"] - spent["write"], counts["write"], seconds


def show_kills(runs: int) -> None:
    torch.set_num_threads(1)
    same, times, start = 0, 0, time.perf_counter()
    for number, (is_same, killed) in enumerate(kills(runs), start=1):
        same, times = same + is_same, times + killed
        print(f"\rkills: {same} of {number} runs, killed {times} times, are the same", end="")
    print(f"; {time.perf_counter() - start:.0f} s")


def show_flips(count: int) -> None:
    torch.set_num_threads(1)
    found: dict[str, Counter[str]] = {name: Counter() for name in READERS}
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder))
        for name, counts in flips(run, count):
            found[name] += counts
    print("| file | flips | " + " | ".join(OUTCOMES) + " | anything else |")
    print("| --- " * (len(OUTCOMES) + 3) + "|")
    for name, counts in found.items():
        rest = {k: v for k, v in counts.items() if k not in OUTCOMES}
        cells = [counts.total(), *(counts[outcome] for outcome in OUTCOMES), rest or 0]
        print(f"| {name} | " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["kills", "flips", "inputs", "cost"])
    parser.add_argument("--runs", type=int, default=100, help="fits to kill")
    parser.add_argument("--flips", type=int, default=10_000, help="bits to flip")
    parser.add_argument("--data-dir", help="where MNIST lies, as for ppl-vae train")
    options = parser.parse_args()
    if options.part in (None, "inputs"):
        tests = ["-q", "-p", "no:cacheprovider", "tests/test_bad_input.py"]
        subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=ROOT, check=True)
    if options.part in (None, "cost"):
        place = ["--data-dir", options.data_dir] if options.data_dir else []
        writing, keeping, count, seconds = cost(["train", "--data", "mnist", *place])
        for what, spent in ((f"{count} checkpoints", writing), ("states in memory", keeping)):
            print(f"cost: {what} in {spent:.2f} of {seconds:.0f} s, {100 * spent / seconds:.2f} %")
    if options.part in (None, "flips"):
        show_flips(options.flips)
    if options.part in (None, "kills"):
        show_kills(options.runs)


if __name__ == "__main__":
    main()
