"""The pictures of a run: a program and its data in, PNG files out."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch.distributions import Normal

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..programs.predictions import Prediction, decode, posterior_predictive, simulate
from ..programs.protocol import Program
from ..storage.files import replacing
from . import figures as plots
from .drawing import literal, png_or_warning

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

    A picture that cannot be drawn is left out, with a ``PictureWarning``.

    Arguments:
        program: The fitted program.
        data: The data set that it was fitted to, with the covariates that it takes. The pictures
            show its test data.
        epochs: Rows of :attr:`ppl_vae.training.history.History.epochs`.
        folder: Where the files go.
        seed: Seed of the draws.

    Returns:
        The files written.

    Raises:
        InputError: If they cannot be written.
    """
    shown = _Shown(program, data, seed)
    drawings: dict[str, Callable[[], Figure | None]] = {
        "curves": lambda: plots.training_curves(epochs),
        "reconstructions": shown.reconstructions,
        "samples": shown.samples,
        "latents": shown.latents,
        "manifold": shown.manifold,
    }
    found = {folder / f"{n}.png": png_or_warning(f"{n}.png", d) for n, d in drawings.items()}
    drawn = {file: png for file, png in found.items() if png is not None}
    if drawn:
        with replacing(*drawn) as temporary:
            for file, png in zip(temporary, drawn.values(), strict=True):
                file.write_bytes(png)
    for stale in found.keys() - drawn.keys():  # of an earlier fit
        stale.unlink(missing_ok=True)
    return [*drawn]


class _Shown:
    """The pictures of a program and the test data, each on its own."""

    def __init__(self, program: Program, data: DataSet, seed: int) -> None:
        self._program, self._data, self._seed = program, data, seed
        self._test, self._image = data.batch("test"), plots.is_image(data.shape)
        self._names = [column.name for column in data.columns]

    @cached_property
    def _encoded(self) -> Prediction:
        return posterior_predictive(self._program, self._test.rows(slice(MAP_POINTS)), self._seed)

    @property
    def _first(self) -> tuple[str, torch.Tensor]:
        """The first latent site, and its means."""
        return next(iter(self._encoded.latent_means.items()))

    def reconstructions(self) -> Figure:
        shown = self._test.rows(slice(RECONSTRUCTIONS if self._image else TABLE_ROWS))
        decoded = posterior_predictive(self._program, shown, self._seed).mean
        return plots.reconstruction_pairs(with_gaps(shown), decoded, self._names)

    def samples(self) -> Figure:
        count = SAMPLES if self._image else TABLE_ROWS
        drawn = simulate(self._program, self._test, count, self._seed)
        x = drawn.mean if self._image else drawn.x
        return plots.sample_overview(x, with_gaps(self._test), self._names)

    def latents(self) -> Figure | None:
        _, means = self._first
        if means.dim() != 2:
            return None
        labels = self._data.test.labels
        labels = None if labels is None else labels[:MAP_POINTS]
        return plots.latent_map(means, labels, self._data.label_names)

    def manifold(self) -> Figure | None:
        site, means = self._first
        if not self._image or len(self._encoded.latents) != 1 or means.shape[1:] != (2,):
            return None
        return _draw_manifold(self._program, site, self._test, self._seed)


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
        title += f", given {', '.join(map(literal, given))} of the first test data point"
    return plots.image_grid(images, MANIFOLD_SIDE, title, plots.value_span(test.x))
