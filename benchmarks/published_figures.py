"""The network of Burda et al. (2015): fit it as docs/benchmarks.md says, and bound its evidence.

    python benchmarks/published_figures.py --data-dir DIR             # some 40 minutes
    python benchmarks/published_figures.py --data-dir DIR --run RUN   # a run that is there already

Prints the test NLL by 5,000 draws (their table 1 has 86.76 for one layer and k = 1), active units,
time and memory; then the bidirectional gap on 50 images drawn from the model. Everything goes
through the command line, as a user meets it; peak memory is that of the command's own process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ppl_vae
from ppl_vae.programs.predictions import posterior_predictive

PPL_VAE = str(Path(sys.executable).with_name("ppl-vae"))
FIT = ["--objective", "stl", "--batch-size", "200", "--learning-rate", "3e-3", "--epochs", "380"]
RECIPE = ["train", "--data", "mnist", "--hidden", "200,200", "--activation", "tanh", *FIT]
DRAWS, SIMULATED = 5000, 50
ACTIVE = 0.01  # variance over data of the posterior mean (Burda et al. 2015, section 5)


def shell(*words: str) -> tuple[dict[str, Any], float, float]:
    """Run ``ppl-vae ... --json``; returns what it prints, the seconds it took, and its peak GiB."""
    start = time.perf_counter()
    process = subprocess.Popen([PPL_VAE, *words, "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"ppl-vae {' '.join(words)} failed")
    return json.loads(out), time.perf_counter() - start, usage.ru_maxrss / 2**20  # KiB on Linux


def active_units(run: str, data_dir: str | None) -> tuple[int, int]:
    """Units whose posterior mean varies over the test images, and all units."""
    data = ppl_vae.load_data("mnist", data_dir=data_dir, binarize="dynamic")
    drawn = posterior_predictive(ppl_vae.load(run), data.fixed("test"))
    (means,) = drawn.latent_means.values()
    return int((means.var(0) > ACTIVE).sum()), means.shape[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where MNIST lies, as for ppl-vae train")
    parser.add_argument("--run", help="evaluate this run, and fit none")
    options = parser.parse_args()
    place = ["--data-dir", options.data_dir] if options.data_dir else []
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or f"{folder}/run"
        if not options.run:
            _, seconds, _ = shell(*RECIPE, "--output", run, *place)
            print(f"ppl-vae {' '.join(RECIPE)}: {seconds / 60:.1f} min", flush=True)
        results = ["--output", f"{folder}/results.nc"]
        found, seconds, peak = shell("evaluate", run, "--draws", str(DRAWS), *results, *place)
        bound, active = found["iw_bound"], active_units(run, options.data_dir)
        print(
            f"NLL {-bound['mean']:.2f} ± {bound['stderr']:.2f} nats, "
            f"ELBO {found['elbo']['mean']:.2f}, {active[0]} of {active[1]} units active; "
            f"{DRAWS} draws for {bound['n']} images in {seconds / 60:.1f} min and {peak:.2f} GiB",
            flush=True,
        )
        words = ["--estimator", "bdmc", "--data-points", str(SIMULATED)]
        found, seconds, _ = shell("evaluate", run, *words, *results, *place)
        lower, upper, gap = (found[name] for name in ("ais_bound", "upper_bound", "gap"))
        print(
            f"log p(x) of {SIMULATED} simulated images between {lower['mean']:.2f} and "
            f"{upper['mean']:.2f}: a gap of {gap['mean']:.2f} ± {gap['stderr']:.2f} nats, in "
            f"{seconds / 60:.1f} min"
        )


if __name__ == "__main__":
    main()
