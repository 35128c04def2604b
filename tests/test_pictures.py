"""Pictures: the right ones for the data, with the data in them."""

import matplotlib.image
import numpy as np
import pytest
import torch

from ppl_vae import Settings, fit, make_data
from ppl_vae.models import VAE, Autoencoder
from ppl_vae.plots import figures as plots
from ppl_vae.plots.pictures import draw_pictures

from .programs import Discrete, TwoLayers

ROWS = [{"epoch": i, "loss": 9.0 / i, "elbo": -9.0 / i, "reconstruction": -5.0 / i, "kl": 1.0}
        for i in range(1, 15)]  # fmt: skip


def names(files):
    for file in files:
        assert matplotlib.image.imread(file).std() > 0.01  # not a blank page
    return [file.stem for file in files]


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("kind", [VAE, Autoencoder])
def test_pictures_of_images(digits, tmp_path, kind, latent_dim):
    program = kind(digits.shape, latent_dim, hidden=(16,))
    history = fit(program, digits, Settings(epochs=2), progress=False)
    expected = ["curves", "reconstructions", "samples", "latents"]
    expected += ["manifold"] * (latent_dim == 2)
    assert names(draw_pictures(program, digits, history.epochs, tmp_path)) == expected


@pytest.mark.parametrize("kind", [TwoLayers, Discrete])
def test_pictures_of_tables(tmp_path, kind):
    data = make_data(torch.randn(100, 5))
    expected = ["curves", "reconstructions", "samples"] + ["latents"] * (kind is TwoLayers)
    assert names(draw_pictures(kind(), data, ROWS, tmp_path)) == expected


def picture(figure):
    (axes,) = figure.axes
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_originals_are_above_their_reconstructions():
    white, black = torch.ones(3, 1, 8, 8), torch.zeros(3, 1, 8, 8)
    pixels = picture(plots.reconstruction_pairs(white, black))
    middle = len(pixels) // 2
    assert pixels[:middle].mean() > 0.8
    assert pixels[middle:].mean() < 0.2


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_images_of_any_channels_and_range(channels):
    images = torch.randn(7, channels, 6, 9) * 100
    pixels = picture(plots.sample_overview(images, images))
    assert pixels.shape[2] == 3
    assert pixels.min() == 0.0
    assert pixels.max() == 1.0


def test_the_second_latent_grows_upwards(tmp_path, monkeypatch):
    from ppl_vae.plots import pictures

    seen = []
    monkeypatch.setattr(pictures, "decode", lambda program, latents, *rest: seen.append(latents)
                        or pytest.fail.Exception)  # fmt: skip
    with pytest.raises(AttributeError):
        pictures._draw_manifold(None, "z", torch.zeros(1, 1, 2, 2), 0)
    plane = seen[0]["z"].reshape(pictures.MANIFOLD_SIDE, pictures.MANIFOLD_SIDE, 2)
    assert (plane[:, 1:, 0] > plane[:, :-1, 0]).all()  # first latent: left to right
    assert (plane[1:, :, 1] < plane[:-1, :, 1]).all()  # second: bottom to top


@pytest.mark.parametrize("classes", [3, 15, 30])
def test_the_latent_map_shows_every_datum_in_the_colour_of_its_class(classes):
    labels = torch.arange(600) % classes
    (axes,) = plots.latent_map(torch.randn(600, 4), labels, [str(i) for i in range(classes)]).axes
    assert sum(len(line.get_xdata()) for line in axes.lines) == 600
    assert len({line.get_color() for line in axes.lines}) == classes


def test_the_latent_map_puts_labels_to_their_points():
    points, labels = torch.randn(90, 2), torch.arange(90) % 3
    (axes,) = plots.latent_map(points, labels, ["a", "b", "c"]).axes
    for index, line in enumerate(axes.lines):
        assert line.get_label() == "abc"[index]
        np.testing.assert_allclose(line.get_xydata(), points[labels == index], rtol=1e-6)


def test_curves_of_one_epoch_and_without_an_elbo():
    assert len(plots.training_curves(ROWS[:1]).axes) == 2
    point_mass = [{"epoch": i, "loss": 9.0 / i, "reconstruction": -5.0 / i} for i in range(1, 30)]
    labels = [t.get_text() for t in plots.training_curves(point_mass).axes[0].get_legend().texts]
    assert labels == ["training objective"]


def test_figures_are_not_kept_by_pyplot():
    import matplotlib.pyplot

    plots.training_curves(ROWS)
    assert matplotlib.pyplot.get_fignums() == []
