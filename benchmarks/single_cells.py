"""Counts of simulated cells: log p(x) on held-out ones, beside the SCVI of scvi-tools.

    pip install scvi-tools                       # the peer; without it, only ours is measured
    python benchmarks/single_cells.py
    python benchmarks/single_cells.py --seeds 0 1 2 --cells 3000

The counts are those of notebooks/05_counts.ipynb, split into training, validation and test cells
alike for both. Both have 10 latent variables, one hidden layer of 128, a negative binomial with one
dispersion for each gene, the depth of a cell as its exposure (SCVI: `use_observed_lib_size`), and
the batch as a covariate; both stop by the validation cells. The figure is the importance-weighted
bound with 1,000 draws (SCVI: `get_marginal_ll`), in nats per cell.
"""

import argparse
import json
import time
import warnings
from dataclasses import asdict
from typing import Any

import numpy as np
import pyro
import torch

import ppl_vae
from ppl_vae.models import ConditionalVAE

LATENTS, WIDTH, DRAWS, BATCH = 10, 128, 1000, 128
EPOCHS, PATIENCE = 400, 45


def simulate(cells: int, genes: int = 100, seed: int = 0) -> tuple[np.ndarray, ...]:
    # Counts (cells, genes), kind and batch of each cell, log shares as they were in batch 0.
    chance = np.random.default_rng(seed)
    kind, batch = chance.integers(4, size=cells), chance.integers(2, size=cells)
    place = 1.5 * chance.normal(size=(4, 3))[kind] + 0.5 * chance.normal(size=(cells, 3))
    usual, bias = chance.normal(size=genes), 0.4 * chance.normal(size=(2, genes))
    activity = usual + bias[0] + place @ (0.6 * chance.normal(size=(3, genes)))
    weight = np.exp(activity + np.where(batch[:, None], bias[1] - bias[0], 0))
    mean = weight / weight.sum(1, keepdims=True) * 200 * chance.lognormal(0, 0.4, size=(cells, 1))
    r = chance.gamma(4, size=genes)
    counts = chance.poisson(chance.gamma(r, mean / r))
    return counts, kind, batch, activity - np.logaddexp.reduce(activity, axis=1, keepdims=True)


def split(cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, validation and test cells: 70, 10 and 20 %."""
    train, validation, test = np.split(np.arange(cells), [int(0.7 * cells), int(0.8 * cells)])
    return train, validation, test


def ours(counts: np.ndarray, batch: np.ndarray, seed: int) -> np.ndarray:
    """The bound on log p(x) of each test cell, of the conditional VAE."""
    depth = counts.sum(1)

    def rows(chosen: np.ndarray) -> tuple[Any, ...]:
        known = {"exposure": depth[chosen] / depth.mean(), "batch": batch[chosen].astype(float)}
        return counts[chosen], None, known

    train, validation, test = map(rows, split(len(counts)))
    data = ppl_vae.make_data(train[0], covariates=train[2], validation=validation, test=test)
    pyro.clear_param_store()
    pyro.set_rng_seed(seed)
    vae = ConditionalVAE(
        data.shape,
        LATENTS,
        (WIDTH,),
        likelihood="negative-binomial",
        covariates={"batch": (0.5, 0.5)},
        columns=[asdict(column) for column in data.columns],
    )
    settings = ppl_vae.Settings(
        epochs=EPOCHS, batch_size=BATCH, learning_rate=1e-3, patience=PATIENCE, seed=seed
    )
    ppl_vae.fit(vae, data, settings, progress=False)
    return ppl_vae.score(vae, data.batch("test"), draws=DRAWS).per_datum["iw_bound"].numpy()


def theirs(counts: np.ndarray, batch: np.ndarray, seed: int) -> np.ndarray | None:
    """The bound on log p(x) of each test cell, of SCVI; ``None`` where it is not installed."""
    try:
        import anndata
        import scvi
    except ImportError:
        return None
    scvi.settings.seed = seed
    table = anndata.AnnData(counts.astype(np.float32))
    table.obs["batch"] = batch.astype(str)
    scvi.model.SCVI.setup_anndata(table, batch_key="batch")
    model = scvi.model.SCVI(
        table, n_hidden=WIDTH, n_latent=LATENTS, n_layers=1, gene_likelihood="nb"
    )
    # External indices keep the split of the other program.
    model.train(
        max_epochs=EPOCHS,
        batch_size=BATCH,
        early_stopping=True,
        accelerator="cpu",
        enable_progress_bar=False,
        datasplitter_kwargs={"external_indexing": list(split(len(counts)))},
    )
    test = split(len(counts))[2]
    found = model.get_marginal_ll(table, test, n_mc_samples=DRAWS, return_mean=False)
    return np.asarray(found)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cells", type=int, default=3000)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the peer's
    for seed in args.seeds:
        counts, _, batch, _ = simulate(args.cells, seed=seed)
        line: dict[str, Any] = {"seed": seed, "cells": args.cells}
        bounds = []
        for name, method in (("ConditionalVAE", ours), ("SCVI", theirs)):
            start = time.perf_counter()
            bound = method(counts, batch, seed)
            if bound is None:
                print("SCVI is not installed: pip install scvi-tools")
                continue
            bounds.append(bound)
            line[name] = str(ppl_vae.Estimate.of(torch.as_tensor(bound)))
            line[f"{name}, s"] = round(time.perf_counter() - start)
        if len(bounds) == 2:
            line["difference"] = str(ppl_vae.Estimate.of(torch.as_tensor(bounds[0] - bounds[1])))
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
