"""Classify MNIST from 100 labels by the semi-supervised program: docs/benchmarks.md quotes it.

    python benchmarks/semi_supervised.py --data-dir DIR --seeds 0 1 2

For each seed, 10 labels of each class are drawn and the others hidden. The labelled images, and
they alone, are there 25 times, moved by up to two pixels: small shifts do not change a class. The
classifier is a convolutional network; model and guide are otherwise those of the command line. The
test labels are read once, at the end; validation labels serve the choice of the epoch and the
temperature.
"""

import argparse
import itertools
import json
import statistics
import time
from dataclasses import asdict, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ppl_vae
from ppl_vae.data.dataset import DataSet
from ppl_vae.models import SemiSupervisedVAE
from ppl_vae.programs.batches import match_data
from ppl_vae.programs.references import build_program

LABELS, SHIFT = 100, 2
ARGUMENTS = {"classes": 10, "latent_dim": 8, "hidden": (256, 256), "encoder_hidden": (256,)}


def classifier() -> nn.Module:
    """From images to logits of classes: two convolutions and a hidden layer."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 5, 2, 2), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.5), nn.LazyLinear(128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
    )


def with_shifts(data: DataSet, shift: int) -> DataSet:
    """The same training data, with shifted copies of the labelled ones behind them."""
    train = data.train
    assert train.labels is not None
    seen = train.labels >= 0
    copies = list(itertools.product(range(2 * shift + 1), repeat=2))
    copies.remove((shift, shift))  # the image itself
    x = torch.cat([train.x, *(moved(train.x[seen], shift, *place) for place in copies)])
    labels = torch.cat([train.labels, train.labels[seen].repeat(len(copies))])
    rows = torch.cat([train.rows, train.rows[seen].repeat(len(copies))])
    return replace(data, train=replace(train, x=x, labels=labels, rows=rows))


def moved(x: Tensor, shift: int, down: int, right: int) -> Tensor:
    """Images (N, channels, height, width) moved, and filled with black."""
    height, width = x.shape[-2:]
    return F.pad(x, (shift,) * 4)[..., down : down + height, right : right + width]


def fit(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fit to one draw of labels; what was found, and what it took."""
    data = ppl_vae.load_data("mnist", data_dir=options.data_dir, binarize="dynamic")
    data = with_shifts(ppl_vae.keep_labels(data, LABELS, seed), SHIFT)
    torch.manual_seed(seed)
    network = classifier()
    network(torch.zeros(2, *data.shape))  # makes the lazy layer
    arguments = {**ARGUMENTS, "alpha": options.alpha, "classifier": network}
    program: Any = build_program(SemiSupervisedVAE, data.shape, arguments, seed)
    settings = ppl_vae.Settings(epochs=options.epochs, learning_rate=1e-3, seed=seed)
    begun = time.perf_counter(), time.process_time()
    matched = match_data(program, data)

    def tell(row: dict[str, float]) -> None:
        print(json.dumps({"seed": seed, **row}), flush=True)

    history = ppl_vae.fit(program, data, settings, progress=False, on_epoch=tell)
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    found = ppl_vae.classify(program, matched.batch("test"), matched.batch("validation"))
    assert found is not None
    estimates = {name: asdict(estimate) for name, estimate in found.estimates().items()}
    return {
        "seed": seed,
        "epochs": len(history.epochs),
        "best_epoch": history.best_epoch,
        "seconds": wall,
        "cpu_seconds": cpu,
        **estimates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="where MNIST lies, as for ppl-vae train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--alpha", type=float, default=40.0, help="nats for each labelled image")
    options = parser.parse_args()
    results = []
    for seed in options.seeds:
        results.append(fit(seed, options))
        print(json.dumps(results[-1]), flush=True)
    print("| seed | accuracy | Brier score, at the temperature | ECE, at the temperature | CPU s |")
    print("| --- | --- | --- | --- | --- |")
    for found in results:
        cells = [
            f"{found[name]['mean']:.4f} ± {found[name]['stderr']:.4f}"
            for name in ("accuracy", "brier_calibrated", "ece_calibrated")
        ]
        print(f"| {found['seed']} | {' | '.join(cells)} | {found['cpu_seconds']:.0f} |")
    accuracy = [found["accuracy"]["mean"] for found in results]
    print(f"mean accuracy {statistics.mean(accuracy):.4f} over {len(accuracy)} draws of labels")


if __name__ == "__main__":
    main()
