"""How long the default fit to MNIST takes to start, in the first process and in the next.

    python benchmarks/compile_time.py
    python benchmarks/compile_time.py --rounds 5 --latent-dim 50

Each start is a process of its own, on random images of MNIST's shape: seconds until the third step
of a fit is done, which is the first after the graph was made, less those of an eager fit. Cold
starts have an empty folder for what is compiled, warm ones that of the cold start before.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import torch


def start(latent_dim: int, engine: Any) -> None:
    """Fit for a few steps; print seconds of the import, and of the fit."""
    begin = time.perf_counter()
    import ppl_vae
    from ppl_vae.models import VAE

    imported = time.perf_counter()
    images = torch.rand(1200, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    data = ppl_vae.make_data(images, binarize="dynamic")
    torch.manual_seed(0)
    vae = VAE((1, 28, 28), latent_dim=latent_dim)
    settings = ppl_vae.Settings(epochs=1, engine=engine)
    made = time.perf_counter()
    ppl_vae.fit(vae, data, settings, progress=False)
    print(json.dumps([imported - begin, time.perf_counter() - made]))


def seconds(folder: str, engine: str, latent_dim: int) -> float:
    command = [sys.executable, __file__, "--latent-dim", str(latent_dim), "--start", engine]
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": folder}
    return json.loads(subprocess.check_output(command, env=environment, text=True))[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latent-dim", type=int, default=20)
    parser.add_argument("--start", choices=["eager", "compiled"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        start(options.latent_dim, options.start)
        return
    found: dict[str, list[float]] = {"eager": [], "cold": [], "warm": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name in found:
                engine = "eager" if name == "eager" else "compiled"
                found[name].append(seconds(folder, engine, options.latent_dim))
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.rounds} rounds\n"
    )
    print("| start | seconds of a short fit | more than eager |\n| --- | --- | --- |")
    for name, values in found.items():
        more = [a - b for a, b in zip(values, found["eager"], strict=True)]
        print(f"| {name} | {_spread(values)} | {_spread(more)} |")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} - {max(values):.1f})"


if __name__ == "__main__":
    main()
