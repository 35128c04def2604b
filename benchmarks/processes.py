"""Scaling: epochs of one process and of several, of one thread each, in turns.

    python benchmarks/processes.py                  # one and two processes, three rounds
    python benchmarks/processes.py --processes 4 --batch-size 1024 --engine eager

The VAE of docs/benchmarks.md, 784-400-(50)-400-784, on random images, binarized anew for each
batch. A round starts ``torchrun`` with one process and then with several; the first epoch, in which
graphs are compiled, is left out.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import torch

import ppl_vae
from ppl_vae.models import VAE

IMAGES, EPOCHS = 12_800, 4


def fit(options: argparse.Namespace) -> None:
    """What each process does; the first prints the seconds of its epochs."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    data = ppl_vae.make_data(torch.rand(IMAGES, 784, generator=generator), binarize="dynamic")
    torch.manual_seed(0)
    vae = VAE((784,), latent_dim=50, hidden=(400,))
    settings = ppl_vae.Settings(epochs=EPOCHS, batch_size=options.batch_size, engine=options.engine)
    history = ppl_vae.fit(vae, data, settings, progress=False)
    if os.environ["RANK"] == "0":
        print(json.dumps([row["seconds"] for row in history.epochs[1:]]))


def measure(count: int, options: argparse.Namespace) -> float:
    """The median of the seconds of an epoch."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    words = ["--worker", "--engine", options.engine, "--batch-size", str(options.batch_size)]
    done = subprocess.run(
        [*launcher, __file__, *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return statistics.median(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--engine", default="compiled", choices=["compiled", "eager"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        fit(options)
        return
    counts = (1, options.processes)
    rounds = [[measure(count, options) for count in counts] for _ in range(options.rounds)]
    ratios = [alone / several for alone, several in rounds]
    for place, count in enumerate(counts):
        seconds = [each[place] for each in rounds]
        print(f"{count} of one thread: {statistics.median(seconds):.2f} s an epoch")
    low, high = min(ratios), max(ratios)
    print(f"speed-up {statistics.median(ratios):.2f} ({low:.2f} - {high:.2f})")


if __name__ == "__main__":
    main()
