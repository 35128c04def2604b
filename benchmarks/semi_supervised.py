"""Classify MNIST from 100 labels by two programs: docs/benchmarks.md quotes it.

    python benchmarks/semi_supervised.py --data-dir DIR --seeds 0 1 2

M1+M2 of Kingma et al. (2014): a VAE of all images without labels, and then the semi-supervised
program of draws of its codes. For each seed, 10 labels of each class are drawn and the others
hidden. The labelled images, and they alone, are there 25 times, moved by up to two pixels: small
shifts do not change a class. The test labels are read once, at the end; validation labels serve
the temperature.
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
from torch import Tensor

import ppl_vae
from ppl_vae.data.dataset import DataSet, Split
from ppl_vae.models import VAE, SemiSupervisedVAE
from ppl_vae.programs.batches import match_data
from ppl_vae.programs.references import build_program

LABELS, SHIFT, DRAWS = 100, 2, 3  # DRAWS: of each code
M1 = {"latent_dim": 50}
M2 = {"classes": 10, "latent_dim": 10, "hidden": (500,), "likelihood": "gaussian"}


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


@torch.no_grad()
def codes_of(vae: VAE, split: Split, draws: int, seed: int) -> Tensor:
    """Draws of q(z|x) of all images, one after another; the means for no draws."""
    parts = [vae.encode(x.float() / 255) for x in split.x.split(2000)]
    mean, scale = (torch.cat([getattr(q, name) for q in parts]) for name in ("mean", "stddev"))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(max(draws, 1), *mean.shape, generator=generator)
    return (mean + scale * noise if draws else mean[None]).flatten(0, 1)


def as_codes(vae: VAE, data: DataSet, seed: int) -> DataSet:
    """The same data, as codes with their labels."""
    z = codes_of(vae, data.train, DRAWS, seed)
    validation, test = (codes_of(vae, part, 0, seed) for part in (data.validation, data.test))
    found = ppl_vae.make_data(z, validation=(validation, None), test=(test, None))
    known = data.train.labels
    assert known is not None
    labels = {"train": known.repeat(DRAWS)[found.train.rows]}
    labels |= {name: getattr(data, name).labels for name in ("validation", "test")}
    parts = {name: replace(getattr(found, name), labels=y) for name, y in labels.items()}
    return replace(found, label_names=data.label_names, **parts)


def fit(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fit to one draw of labels; what was found, and what it took."""
    begun = time.perf_counter(), time.process_time()
    data = ppl_vae.load_data("mnist", data_dir=options.data_dir, binarize="dynamic")
    vae: Any = build_program(VAE, data.shape, M1, seed)
    ppl_vae.fit(vae, data, ppl_vae.Settings(epochs=20, seed=seed), progress=False)
    labelled = with_shifts(ppl_vae.keep_labels(data, LABELS, seed), SHIFT)
    codes = as_codes(vae.eval(), labelled, seed)
    program: Any = build_program(
        SemiSupervisedVAE, codes.shape, {**M2, "alpha": options.alpha}, seed
    )
    settings = ppl_vae.Settings(epochs=options.epochs, batch_size=500, seed=seed)

    def tell(row: dict[str, float]) -> None:
        print(json.dumps({"seed": seed, **row}), flush=True)

    history = ppl_vae.fit(program, codes, settings, progress=False, on_epoch=tell)
    wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
    matched = match_data(program, codes)
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
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--alpha", type=float, default=1.0, help="nats for each labelled code")
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
