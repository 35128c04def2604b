"""The pictures of a run: a program and its data in, files in the run directory out."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.distributions import Normal

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..programs.posterior import Data
from ..programs.predictions import decode, posterior_predictive, simulate
from ..programs.protocol import Program
from ..storage.files import replacing
from . import figures as plots

RECONSTRUCTIONS, SAMPLES, MANIFOLD_SIDE, MAP_POINTS = 10, 64, 20, 5000
TABLE_ROWS = 1000  # in the place of RECONSTRUCTIONS and SAMPLES where data are no images


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
        data: The data it was fitted to, with what it takes; the pictures show the test split.
        epochs: Rows of :attr:`ppl_vae.training.fit.History.epochs`.
        folder: Where the files go.
        seed: Seed of the draws.

    Returns:
        The files written.
    """
    figures = {"curves": plots.training_curves(epochs)}
    batch = data.batch("test")
    rows = RECONSTRUCTIONS if plots.is_image(data.shape) else TABLE_ROWS
    figures["reconstructions"] = draw_reconstructions(program, batch.rows(slice(rows)), seed)
    figures["samples"] = draw_samples(program, batch, seed)
    posterior = posterior_predictive(program, batch.rows(slice(MAP_POINTS)), seed)
    site, means = next(iter(posterior.latent_means.items()))
    if means.dim() == 2:
        labels = data.test.labels
        shown = None if labels is None else labels[:MAP_POINTS]
        figures["latents"] = plots.latent_map(means, shown, data.label_names)
        if means.shape[1] == 2 and plots.is_image(data.shape) and len(posterior.latents) == 1:
            figures["manifold"] = _draw_manifold(program, site, batch, seed)
    files = [folder / f"{name}.png" for name in figures]
    with replacing(*files) as temporary:
        for file, figure in zip(temporary, figures.values(), strict=True):
            figure.savefig(file, dpi=120)
    return files


def draw_reconstructions(program: Program, data: Data, seed: int = 0) -> Figure:
    """Data beside the mean of p(x | z) at one draw z ~ q(z | x)."""
    mean = posterior_predictive(program, data, seed).mean
    return plots.reconstruction_pairs(Batch.of(data).x, mean)


def draw_samples(program: Program, data: Data, seed: int = 0) -> Figure:
    """Draws from the prior: for images the mean of p(x | z), for tables x itself."""
    batch = Batch.of(data)
    if plots.is_image(batch.x.shape[1:]):
        drawn = simulate(program, batch, SAMPLES, seed).mean
    else:
        drawn = simulate(program, batch, TABLE_ROWS, seed).x
    return plots.sample_overview(drawn, batch.x)


def _draw_manifold(program: Program, site: str, batch: Batch, seed: int) -> Figure:
    """Images over the plane of two latents, at the quantiles of N(0, 1) (Kingma & Welling 2014,
    appendix A)."""
    quantiles = Normal(0.0, 1.0).icdf(torch.linspace(0.02, 0.98, MANIFOLD_SIDE))
    # Rows go down, as images do, and the second latent goes up.
    plane = torch.cartesian_prod(quantiles.flip(0), quantiles).flip(1)
    x = batch.x
    first = batch.rows(torch.zeros(len(plane), dtype=torch.int64)).covariates
    images = decode(program, {site: plane}, x.shape[1:], len(plane), seed, first).mean
    title = "decoded plane of z, at quantiles of N(0, 1)"
    if first:
        title += ", given the first covariates"
    return plots.image_grid(images, MANIFOLD_SIDE, title, plots.value_span(x))
