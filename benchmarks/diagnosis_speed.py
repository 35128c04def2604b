"""Time the costly questions on a fitted run of MNIST, each in a process of its own.

    ppl-vae train --data mnist --data-dir DIR --epochs 20 --seed 1 --output runs/mnist
    python benchmarks/diagnosis_speed.py runs/mnist --data-dir DIR

It prints seconds and the highest memory of each process, imports and data included: k-hat of 10,000
images with 1,000 draws each; the gaps of 500 images; `ppl-vae diagnose` with its defaults.
"""

import argparse
import multiprocessing
import resource
import subprocess
import sys
import time
from pathlib import Path

import ppl_vae
from ppl_vae.cli.opening import open_data
from ppl_vae.diagnostics.coverage import ask_coverage
from ppl_vae.diagnostics.gaps import ask_gaps

IMAGES, DRAWS, GAP_IMAGES = 10000, 1000, 500


def measured(name: str, run: str, data_dir: Path | None) -> tuple[float, float, str]:
    """Seconds, GiB and verdict of one question."""
    opened = ppl_vae.Run.open(run)
    program, x = opened.load(), open_data(opened, data_dir).fixed("test")
    start = time.perf_counter()
    if name == "k-hat":
        answer = ask_coverage(ppl_vae.Posterior(program, x[:IMAGES]), DRAWS, 0)
    else:
        answer = ask_gaps(ppl_vae.Posterior(program, x[:GAP_IMAGES]), DRAWS, 0)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return seconds, peak, f"{answer.verdict.statistic_text}, {answer.verdict.meaning}"


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    for name, what in (
        ("k-hat", f"k-hat of {IMAGES} images, {DRAWS} draws each"),
        ("gaps", f"gaps of {GAP_IMAGES} images"),
    ):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak, verdict = pool.apply(measured, (name, options.run, options.data_dir))
        print(f"{what}: {seconds:.0f} s, {peak:.1f} GiB: {verdict}", flush=True)
    words = [sys.executable, "-m", "ppl_vae", "diagnose", options.run]
    words += ["--data-dir", str(options.data_dir)] if options.data_dir else []
    start = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"ppl-vae diagnose: {time.perf_counter() - start:.0f} s, at most {peak:.1f} GiB")


if __name__ == "__main__":
    main()
