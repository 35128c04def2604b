"""What inference from a fitted guide certifies, how long it takes, and whether it is right.

    ppl-vae train --data mnist --output runs/mnist
    python benchmarks/infer.py runs/mnist                          # 1,000 test images
    python benchmarks/infer.py runs/mnist --images 100 --check 10  # and against long NUTS runs
    python benchmarks/infer.py runs/mnist --images 0 --simulated 50  # bounds on log p(x)
    python benchmarks/infer.py runs/mnist --draws 1 --targets refined  # no copies to move
    python benchmarks/infer.py runs/mnist --images 0 --work 200      # where the time goes

Of what is certified, means are compared with those of NUTS in posterior standard deviations, and a
classifier tells its draws from NUTS's (C2ST; 0.5 if it cannot). Beside it stands what it makes of
two of NUTS's chains and the other two, and how many draws differ from all others. On data drawn
from the model, the bound of refined guides lies below that of bidirectional annealing, which is on
average above log p(x); the guide's own bound takes five times as many draws.
"""

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

import ppl_vae
from ppl_vae import Annealing, Posterior
from ppl_vae.cli.opening import open_data
from ppl_vae.evidence.scores import Estimate
from ppl_vae.inference import nuts, refine
from ppl_vae.inference.nuts import sample_posterior
from ppl_vae.inference.weights import weigh
from ppl_vae.programs.scoring import log_mean
from ppl_vae.runs.directory import Run


def timed(call: Any) -> tuple[Any, float, float]:
    """What a call returns, and the seconds on the clock and of the processor that it took."""
    clock, processor = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - clock, time.process_time() - processor


def certify(program: Any, x: torch.Tensor, targets: list[Any], draws: int) -> Any:
    """Infer by refinement alone, and by all methods; what the last one found."""
    found: Any = None
    for target in targets:
        found, clock, processor = timed(
            lambda target=target: ppl_vae.infer(program, x, draws, target)
        )
        share = float(found.inference["certified"].mean())
        evidence = float(found.inference["log_evidence"].mean())
        methods = dict(Counter(found.inference["method"].values.tolist()))
        print(
            f"{target:10} {share:.1%} of {len(x)} certified in {clock:.0f} s ({processor:.0f} s of "
            f"the processor); log p(x) {evidence:.2f}; {methods}"
        )
    return found


def accuracy_between(one: np.ndarray, other: np.ndarray) -> float:
    """Of a classifier that tells draws of shape (S, units) apart, on draws that it has not seen."""
    features = make_pipeline(
        StandardScaler(), PolynomialFeatures(2), StandardScaler(), LogisticRegression(C=0.01)
    )
    labels = np.repeat([0, 1], [len(one), len(other)])
    return float(cross_val_score(features, np.concatenate([one, other]), labels, cv=4).mean())


def check(program: Any, x: torch.Tensor, found: Any) -> None:
    """Compare certified draws with NUTS's."""
    exact = sample_posterior(Posterior(program, x), seed=1)["z"]
    flat = exact.transpose(0, 1).flatten(0, 1).numpy()
    draws = found.posterior["z"].values[0]
    off, accuracy, alike, unique = [], [], [], []
    for n in range(len(x)):
        if not bool(found.inference["certified"][n]):
            continue
        nuts, ours = flat[:: max(1, len(flat) // 1000), n][:1000], draws[:1000, n]
        off.append(np.sqrt(np.mean(((ours.mean(0) - nuts.mean(0)) / nuts.std(0)) ** 2)))
        accuracy.append(accuracy_between(nuts, ours))
        alike.append(accuracy_between(*np.array_split(flat[:, n], 2)))
        unique.append(len(np.unique(ours, axis=0)))
    print(
        f"beside NUTS, {len(off)} images: means off by {np.mean(off):.3f} sd (root mean square "
        f"over units; at most {max(off):.3f}), C2ST {np.mean(accuracy):.3f} on average, at most "
        f"{max(accuracy):.3f}; between NUTS's own chains {np.mean(alike):.3f}; of {len(ours)} "
        f"draws {np.mean(unique):.0f} differ from all others"
    )


def bound(program: Any, shape: tuple[int, ...], size: int) -> None:
    """Bounds on log p(x) of simulated data."""
    annealing = Annealing(chains=16, temperatures=500, start="guide")
    (x, lower, upper), clock, _ = timed(
        lambda: ppl_vae.bidirectional(program, shape, size, annealing, seed=2)
    )
    posterior = Posterior(program, x)
    refined, fast, _ = timed(lambda: log_mean(posterior.refine("full").log_weight(1000, seed=3))[0])
    amortized, slow, _ = timed(lambda: log_mean(posterior.log_weight(5000, seed=4))[0])
    print(f"{size} simulated images; bidirectional annealing took {clock:.0f} s")
    for name, low in (("refined, 1,000 draws", refined), ("the guide, 5,000", amortized)):
        gap = Estimate.of(-upper.bound - low.double())
        print(f"  {name:22} {gap} nats below the upper bound")
    gap = Estimate.of(-upper.bound - lower.bound)
    print(
        f"  {'annealing, from below':22} {gap}; refined took {fast:.1f} s, the guide {slow:.1f} s"
    )


def products(program: Any, passes: int, rows: int) -> float:
    """Seconds of a decoder's matrix products alone, from the median of some passes."""
    layers = [m for m in program.decoder.modules() if isinstance(m, torch.nn.Linear)]
    seconds = []
    for _ in range(9):
        inputs = [torch.randn(rows, layer.in_features) for layer in layers]
        begun = time.perf_counter()
        for x, layer in zip(inputs, layers, strict=True):
            torch.mm(x, layer.weight.detach().T)
        seconds.append(time.perf_counter() - begun)
    return passes * statistics.median(seconds)


def work(program: Any, x: torch.Tensor) -> None:
    """What refinement, weights and draws take, and what fewer or more steps certify."""
    posterior = Posterior(program, x)
    units = posterior[:1].draw(1)["z"].numel()
    print(
        "| steps of draws | refined in, s | products alone, s | certified | ESS | weighed in, s |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for steps in (refine.STEPS, refine.STEPS // 2, 3 * refine.STEPS):
        found, clock, _ = timed(lambda steps=steps: refine.refine(posterior, "full", steps))
        weighted, weighing, _ = timed(lambda found=found: weigh(found, 1000, seed=1))
        draws = refine.step_draws(units, steps)
        alone = products(program, 3 * steps, draws * len(x))  # forward, and twice backward
        certified = weighted.passes(nuts.LEAST_ESS).double().mean()
        print(
            f"| {steps} of {draws} | {clock:.1f} | {alone:.1f} | {certified:.1%} "
            f"| {weighted.ess.median():.0f} | {weighing:.1f} |"
        )
    for draws in (1, 1000):
        _, clock, _ = timed(
            lambda draws=draws: ppl_vae.infer(program, x, draws=draws, target="refined")
        )
        print(f"infer, {draws} draws, by refinement alone: {clock:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--targets", nargs="+", default=["refined", "certified"])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--check", type=int, default=0, help="images to compare with NUTS")
    parser.add_argument("--simulated", type=int, default=0, help="images to bound log p(x) of")
    parser.add_argument("--work", type=int, default=0, help="images to time the parts of")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = Run.open(arguments.run)
    program, data = run.load(), open_data(run, None)
    x = data.fixed("test")[: arguments.images]
    if arguments.images:
        found = certify(program, x, arguments.targets, arguments.draws)
        if arguments.check:
            check(program, x[: arguments.check], found)
    if arguments.work:
        work(program, data.fixed("test")[: arguments.work])
    if arguments.simulated:
        bound(program, data.shape, arguments.simulated)


if __name__ == "__main__":
    main()
