"""The pictures of a run: a program and its data in, PNG files out."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.distributions import Normal

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..programs.predictions import decode, posterior_predictive, simulate
from ..programs.protocol import Program
from ..storage.files import replacing
from . import figures as plots

RECONSTRUCTIONS, SAMPLES, MANIFOLD_SIDE, MAP_POINTS = 10, 64, 20, 5000
TABLE_ROWS = 1000  # instead of RECONSTRUCTIONS and SAMPLES, of data that are not images


def draw_pictures(
    program: Program,
    data: DataSet,
    epochs: Sequence[dict[str, float]],
    folder: Path,
    seed: int = 0,
) -> list[Path]:
    """Draw training curves, reconstructions, samples, and the latent space.

    Arguments:
        program: The fitted program.
        data: The data set that it was fitted to, with the covariates that it takes. The pictures
            show its test data.
        epochs: Rows of :attr:`ppl_vae.training.history.History.epochs`.
        folder: Where the files go.
        seed: Seed of the draws.

    Returns:
        The files written.
    """
    figures = {"curves": plots.training_curves(epochs)}
    test, image = data.batch("test"), plots.is_image(data.shape)
    shown = test.rows(slice(RECONSTRUCTIONS if image else TABLE_ROWS))
    decoded = posterior_predictive(program, shown, seed).mean
    names = [column.name for column in data.columns]
    figures["reconstructions"] = plots.reconstruction_pairs(with_gaps(shown), decoded, names)
    drawn = simulate(program, test, SAMPLES if image else TABLE_ROWS, seed)
    figures["samples"] = plots.sample_overview(
        drawn.mean if image else drawn.x, with_gaps(test), names
    )
    encoded = posterior_predictive(program, test.rows(slice(MAP_POINTS)), seed)
    site, means = next(iter(encoded.latent_means.items()))
    if means.dim() == 2:
        labels = data.test.labels
        labels = None if labels is None else labels[:MAP_POINTS]
        figures["latents"] = plots.latent_map(means, labels, data.label_names)
        if means.shape[1] == 2 and image and len(encoded.latents) == 1:
            figures["manifold"] = _draw_manifold(program, site, test, seed)
    files = [folder / f"{name}.png" for name in figures]
    with replacing(*files) as temporary:
        for file, figure in zip(temporary, figures.values(), strict=True):
            figure.savefig(file, dpi=120)
    return files


def with_gaps(batch: Batch) -> torch.Tensor:
    """``x``, of a table NaN where a mask says that it was not observed."""
    mask = batch.get("mask")
    if mask is None or mask.shape != batch.x.shape or plots.is_image(batch.x.shape[1:]):
        return batch.x
    return batch.x.masked_fill(~mask.bool(), torch.nan)


def _draw_manifold(program: Program, site: str, test: Batch, seed: int) -> Figure:
    """Images over the plane of two latents, at the quantiles of N(0, 1) (Kingma & Welling 2014,
    appendix A), given the covariates of the first test data point."""
    quantiles = Normal(0.0, 1.0).icdf(torch.linspace(0.02, 0.98, MANIFOLD_SIDE))
    # Rows go down, as images do, and the second latent goes up.
    plane = torch.cartesian_prod(quantiles.flip(0), quantiles).flip(1)
    given = test.rows(torch.zeros(len(plane), dtype=torch.long)).covariates
    images = decode(program, {site: plane}, test.x.shape[1:], len(plane), seed, given).mean
    title = "decoded plane of z, at quantiles of N(0, 1)"
    if given:
        title += f", given {', '.join(given)} of the first test data point"
    return plots.image_grid(images, MANIFOLD_SIDE, title, plots.value_span(test.x))
