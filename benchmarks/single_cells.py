"""Counts of genes in cells, simulated with known truth: held-out log p(x) beside scvi-tools' SCVI.

    python benchmarks/single_cells.py             # three data sets; SCVI where it is installed
    python benchmarks/single_cells.py --seeds 1

Both programs have negative binomial counts with a mean in proportion to the cell's total, a
dispersion for each gene, and the batch of a cell as covariate; both are fitted to the same cells,
with networks of the same size, and their bounds on log p(x | total, batch) of the test cells come
from as many draws.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.distributions import GammaPoisson
from torch import Tensor

CELLS, GENES, TYPES, BATCHES, LATENTS = 2000, 100, 4, 2, 5
EPOCHS, HIDDEN, DRAWS = 100, 128, 1000


@dataclass(frozen=True)
class Cells:
    """Counts and what they were drawn from.

    Attributes:
        x: Counts of shape (N, G).
        batch: Of each cell, of shape (N,).
        kind: Type of each cell, of shape (N,).
        total: Counts of each cell together, of shape (N,).
        share: Of each gene in each type, without the batch, of shape (T, G).
    """

    x: Tensor
    batch: Tensor
    kind: Tensor
    total: Tensor
    share: Tensor


def simulate(seed: int) -> Cells:
    """Cells of a few types, which differ in a fifth of their genes, and of two batches."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    typical = normal(GENES)
    differs = (torch.rand(TYPES, GENES, generator=generator) < 0.2) * normal(TYPES, GENES)
    of_batch = 0.3 * normal(BATCHES, GENES)
    loadings = 0.3 * normal(LATENTS, GENES)
    dispersion = (0.5 * normal(GENES) + 1).exp()
    kind = torch.randint(TYPES, (CELLS,), generator=generator)
    batch = torch.randint(BATCHES, (CELLS,), generator=generator)
    depth = (math.log(2000) + 0.4 * normal(CELLS)).exp()
    logits = typical + differs[kind] + of_batch[batch] + normal(CELLS, LATENTS) @ loadings
    mean = depth[:, None] * logits.softmax(-1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = GammaPoisson(dispersion, dispersion / mean).sample()
    return Cells(x, batch, kind, x.sum(1), (typical + differs).softmax(-1))


def fit_scvi(cells: Cells, train: np.ndarray, test: np.ndarray) -> float:
    """The bound of SCVI on the test cells, in nats per cell."""
    import anndata
    import pandas as pd
    import scvi

    def table(rows: np.ndarray) -> Any:
        batches = pd.DataFrame({"batch": cells.batch[rows].numpy().astype(str)})
        return anndata.AnnData(cells.x[rows].numpy(), obs=batches)

    scvi.settings.seed = 0
    data, held_out = table(train), table(test)
    scvi.model.SCVI.setup_anndata(data, batch_key="batch")
    model = scvi.model.SCVI(
        data, n_hidden=HIDDEN, n_latent=LATENTS + TYPES, n_layers=1, gene_likelihood="nb"
    )
    model.train(max_epochs=EPOCHS, accelerator="cpu", enable_progress_bar=False, logger=False)
    return -float(model.get_marginal_ll(held_out, n_mc_samples=DRAWS)) if False else model, held_out
