"""What only a GPU can show, in one command of at most 8 minutes: is it right, and how fast is it?

    python benchmarks/gpu.py --data-dir DIR --output gpu.json
    python benchmarks/gpu.py --data-dir DIR --output gpu.json --only tests
    python benchmarks/gpu.py --dry-run  # all of it on a CPU, at a small size

Runs the tests that go to the GPU where there is one; times steps of one VAE under this engine,
stock SVI and PyTorch by hand, in turns; fits the default program to MNIST for 20 epochs; and
evaluates 5,000 draws for each of 10,000 images. What fails is written down, and the rest goes on.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
from peers import PEERS, Task
from svi_speed import load_images, race

import ppl_vae
from ppl_vae.models import VAE
from ppl_vae.runtime import pick_device
from ppl_vae.storage.files import replacing

ROOT = Path(__file__).parents[1]
TESTS = [f"tests/test_{name}.py" for name in ("devices", "resume", "trainer")]
OURS, BY_HAND = "ppl_vae.CompiledSVI", "PyTorch by hand, CUDA graph"
RACERS = [
    "pyro.infer.SVI, in memory",
    OURS,
    "PyTorch by hand, eager",
    "PyTorch by hand, compiled",
    BY_HAND,
]
STEPS = {20: 400, 256: 200, 4096: 14}


def tests(options: argparse.Namespace) -> dict[str, Any]:
    """Run the tests; how many passed, and the last lines of what pytest prints."""
    chosen = ["tests/test_devices.py", "-k", "draws"] if options.dry_run else TESTS
    plugins = ["-p", "no:cacheprovider", "-p", "no:benchmark"]  # one is at odds with workers
    words = ["-q", *plugins, "-n", str(options.workers), "-m", "slow or not slow"]
    command = [sys.executable, "-m", "pytest", *words, *chosen]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=options.test_seconds
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"took over {error.timeout:.0f} s") from None
    lines = done.stdout.splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if failed:
        print(done.stdout)
    return {"exit": done.returncode, "summary": lines[-1] if lines else "", "failed": failed}


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Steps a second at several batch sizes, as medians over rounds with their ranges."""
    images, found = _images(options), {}
    for batch_size, steps in ({20: 5} if options.dry_run else STEPS).items():
        task = Task(images[: batch_size * steps], batch_size, options.width)
        epochs, missing = {}, {}
        for name in RACERS:
            try:
                epochs[name] = PEERS[name](task)
                epochs[name]()
            except Exception as error:  # of one library, which is no reason to lose the others
                missing[name] = f"{type(error).__name__}: {error}"
                epochs.pop(name, None)
        seconds = race(epochs, 2 if options.dry_run else 7)
        rates = {name: [task.steps / s for s in values] for name, values in seconds.items()}
        shown = {name: _range(values) for name, values in rates.items()}
        shares = {
            name: _range([a / b for a, b in zip(rates[OURS], values, strict=True)])
            for name, values in rates.items()
            if OURS in rates
        }
        found[str(batch_size)] = {"steps_per_second": shown, "ours_over": shares, **missing}
        pyro.clear_param_store()
    return found


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Fit the default program; seconds of all of it, and of the epochs without compilation."""
    data = _data(options)
    pyro.set_rng_seed(0)
    program = VAE(data.shape)
    epochs = 2 if options.dry_run else 20
    settings = ppl_vae.Settings(epochs=epochs, engine="eager" if options.dry_run else "compiled")
    start = time.perf_counter()
    history = ppl_vae.fit(program, data, settings, progress=False)
    whole = time.perf_counter() - start
    each = [row["seconds"] for row in history.epochs]
    options.program = program
    return {
        "seconds": round(whole, 2),
        "seconds_of_first_epoch": round(each[0], 2),
        "seconds_of_20_epochs_once_compiled": round(20 * statistics.median(each[1:]), 2),
        "validation_elbo": history.epochs[-1]["elbo"],
    }


def evidence(options: argparse.Namespace) -> dict[str, Any]:
    """The bound on log p(x) by importance weighting."""
    batch, draws = _data(options).batch("test"), 20 if options.dry_run else 5000
    start = time.perf_counter()
    found = ppl_vae.evaluate(options.program, batch, draws=draws)["iw_bound"]
    seconds = time.perf_counter() - start
    return {"draws": draws, "images": batch.size, "seconds": round(seconds, 2), **found.as_dict()}


def _images(options: argparse.Namespace) -> torch.Tensor:
    if options.dry_run:
        return (torch.rand(400, 784) * 255).byte()
    return load_images(options.data_dir, None)


def _data(options: argparse.Namespace) -> ppl_vae.DataSet:
    if options.dry_run:
        return ppl_vae.load_data("digits", binarize="dynamic")
    return ppl_vae.load_data("mnist", data_dir=options.data_dir, binarize="dynamic")


def _range(values: list[float]) -> dict[str, float]:
    digits = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: float(f"{value:.4g}") for name, value in digits.items()}


def _where() -> dict[str, Any]:
    device = pick_device()
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else "none"
    versions = {"torch": torch.__version__, "pyro": pyro.__version__}
    return {"gpu": gpu, "python": platform.python_version(), **versions}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speed": speed,
    "training": training,
    "evidence": evidence,
    "tests": tests,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, help="MNIST in torchvision's layout")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"))
    parser.add_argument("--width", type=int, default=400)
    parser.add_argument("--workers", type=int, default=8, help="processes that run tests")
    parser.add_argument("--test-seconds", type=float, default=240)
    parser.add_argument(
        "--only",
        choices=PARTS,
        action="append",
        help="run this part; the others stay in the file",
    )
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu.py: there is no CUDA device; try --dry-run", file=sys.stderr)
        return 2
    torch.set_num_threads(min(8, torch.get_num_threads()))
    found: dict[str, Any] = {}
    if options.only and options.output.is_file():
        found = json.loads(options.output.read_text())
    found |= {"where": _where(), "date": time.strftime("%Y-%m-%d")}
    for name in options.only or PARTS:
        start = time.perf_counter()
        try:
            found[name] = PARTS[name](options)
        except Exception as error:
            traceback.print_exc()
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        found[name]["wall_seconds"] = round(time.perf_counter() - start, 1)
        print(name, json.dumps(found[name], indent=2), flush=True)
        with replacing(options.output) as (temporary,):
            temporary.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if any(found[name].get("failed") for name in options.only or PARTS) else 0


if __name__ == "__main__":
    sys.exit(main())
