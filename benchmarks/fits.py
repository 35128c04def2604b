"""Measure the fits of docs/benchmarks.md the way a user meets them: through the command line.

    make bench                                           # MNIST is downloaded at first use
    python benchmarks/fits.py --data-dir DIR   # where it lies already

Seconds depend on the machine and on what else runs there; nats do not.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PPL_VAE = str(Path(sys.executable).with_name("ppl-vae"))
DEMO = ["train", "--data", "digits", "--latent-dim", "2", "--epochs", "60", "--seed", "0"]
MNIST = ["train", "--data", "mnist", "--epochs", "20", "--seed", "1"]


def timed(*words: str) -> tuple[float, str]:
    """Run ``ppl-vae`` and return the seconds it took and its standard output."""
    start = time.perf_counter()
    done = subprocess.run([PPL_VAE, *words], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().splitlines()[-1])
    return time.perf_counter() - start, done.stdout


def fit(words: list[str], folder: str, *more: str) -> dict[str, Any]:
    """Fit in ``folder`` and return what it prints, and the seconds it took."""
    seconds, out = timed(*words, "--json", "--output", f"{folder}/run", *more)
    return {"seconds": seconds, **json.loads(out)}


def nats(estimate: dict[str, float]) -> str:
    return f"{estimate['mean']:.2f} ± {estimate['stderr']:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where MNIST lies, as for ppl-vae train")
    options = parser.parse_args()
    place = ["--data-dir", options.data_dir] if options.data_dir else []

    print("| command | time | test ELBO (nats) | importance-weighted bound, 100 draws |")
    print("| --- | --- | --- | --- |")
    times = [timed("--help")[0] for _ in range(11)]
    spread = f"{min(times):.2f} - {max(times):.2f}"
    print(f"| `ppl-vae --help` | {statistics.median(times):.2f} s ({spread}) | | |", flush=True)
    for words, more in ((DEMO, []), (MNIST, place)):
        with tempfile.TemporaryDirectory() as folder:
            found = fit(words, folder, *more)
        print(
            f"| `ppl-vae {' '.join(words)}` | {found['seconds']:.0f} s | {nats(found['elbo'])} "
            f"| {nats(found['iw_bound'])} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
