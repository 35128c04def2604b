"""Pictures: the right ones for the data, with the data in them."""

import io
from dataclasses import replace

import matplotlib.figure
import matplotlib.image
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray

from ppl_vae import Batch, Settings, fit, make_data
from ppl_vae.diagnostics.plots import gap_decomposition, predictive_checks, unit_activity
from ppl_vae.models import VAE, Autoencoder
from ppl_vae.plots import figures as plots
from ppl_vae.plots.drawing import PictureWarning, as_png, literal, png_or_warning
from ppl_vae.plots.pictures import draw_pictures

from .programs import Discrete, Minimal, TwoLayers
from .tables import Conditional, Labelled

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


@pytest.mark.parametrize("kind", [Conditional, Labelled])
def test_pictures_given_covariates(tmp_path, kind):
    data = make_data(torch.randn(100, 5), covariates={"y": torch.arange(100) % 3})
    expected = ["curves", "reconstructions", "samples", "latents"]
    assert names(draw_pictures(kind(), data, ROWS, tmp_path)) == expected


def test_the_manifold_is_drawn_given_the_first_test_data_point(monkeypatch):
    from ppl_vae.plots import pictures

    class Shifted(Minimal):
        """Images whose grey is their class."""

        def model(self, x, y):
            pyro.module(f"shifted-{id(self)}", self)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                mean = y.to(x)[:, None, None, None].expand(-1, 1, 2, 2)
                pyro.sample(
                    "x", dist.Normal(mean + 0 * self.decoder.bias[0], 1.0).to_event(3), obs=x
                )

        def guide(self, x, y):
            pyro.module(f"shifted-{id(self)}", self)
            with pyro.plate("data", len(x)):
                loc, scale = self.encoder(x.flatten(-3)).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, scale.exp()).to_event(1))

    seen = []
    monkeypatch.setattr(pictures.plots, "image_grid", lambda images, *rest: seen.append(images))
    test = Batch(x=torch.rand(5, 1, 2, 2), y=torch.tensor([2, 0, 1, 0, 1]))
    pictures._draw_manifold(Shifted((4,)), "z", test, 0)
    assert (seen[0] == 2).all()


def test_what_is_counted_has_ticks_at_whole_numbers():
    found = {"kl": (("datum", "unit"), np.ones((5, 2))), "activity": ("unit", np.ones(2))}
    units = unit_activity(xarray.Dataset(found, {"unit": ["z$[0]", "z$[1]"]}))
    generation = {"pit_p_value": ("x_dim_0", np.array([0.1, 0.2, 0.3]))}
    generation |= {f"{source}_total": ("datum", np.arange(5.0)) for source in ("test", "prior")}
    checks = predictive_checks(xarray.Dataset(generation, {"quantity": ["total"]}))
    curves = plots.training_curves(ROWS[:3])
    for figure, kind in ((units, "unit"), (checks, "column"), (curves, "epoch")):
        figure.canvas.draw()
        counted = [axes for axes in figure.axes if kind in axes.get_xlabel()]
        assert counted
        for axes in counted:
            assert all(tick == round(tick) for tick in axes.get_xticks())
    assert [t.get_text() for t in units.axes[0].get_xticklabels()] == [
        literal("z$[0]"),
        literal("z$[1]"),
    ]


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
        pictures._draw_manifold(None, "z", Batch(x=torch.zeros(1, 1, 2, 2)), 0)
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


def test_a_gap_that_is_not_split_is_one_bar():
    gaps = xarray.Dataset({"gap": ("datum", np.array([0.1, 0.2, 0.4]))})
    bars, _ = gap_decomposition(gaps).axes
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["total: 0.23"]


NAMES = [
    "$x^$",
    r"$\frac{$",
    r"a\$b$",
    "100 %",
    "{",
    r"\frac",
    "_a",
    "",
    "a\n\x1b[2J",
    "\udcff",
    "x" * 99,
]


def pixels(text, **options):
    figure = matplotlib.figure.Figure((4, 1))
    figure.text(0, 0.5, text, **options)
    return matplotlib.image.imread(io.BytesIO(as_png(lambda: figure)))


@pytest.mark.parametrize("name", NAMES[:6])
def test_a_name_is_shown_as_it_is_written(name):
    np.testing.assert_array_equal(pixels(literal(name)), pixels(name, parse_math=False))


def test_pictures_of_data_whose_names_mean_something_to_matplotlib(tmp_path):
    data = make_data(torch.randn(330, 3), [NAMES[i % 11] for i in range(330)])
    columns = [replace(column, name=n) for column, n in zip(data.columns, NAMES, strict=False)]
    data = replace(data, columns=columns)
    assert len(draw_pictures(Minimal((3,)), data, ROWS, tmp_path)) == 4
    (axes,) = plots.latent_map(torch.randn(11, 2), torch.arange(11), NAMES).axes
    shown = [text.get_text() for text in axes.get_legend().get_texts()]
    assert shown == [literal(name) for name in NAMES]


def test_names_are_set_by_matplotlib_even_where_its_settings_say_latex():
    with matplotlib.rc_context({"text.usetex": True}):
        assert png_or_warning("a.png", lambda: plots.training_curves(ROWS))


def test_what_the_font_lacks_is_said_once_for_all_characters():
    points, labels = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    with pytest.warns(PictureWarning) as told:
        as_png(lambda: plots.latent_map(points, labels, ["\u65e5\u672c", "\u8a9e"]))
    assert len(told) == 1


def test_a_picture_that_fails_is_left_out_and_said(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no curves\ntoday")

    monkeypatch.setattr(plots, "training_curves", fail)
    (tmp_path / "curves.png").write_text("of an earlier fit")
    data = make_data(torch.randn(100, 5))
    with pytest.warns(
        PictureWarning, match=r"^curves.png was not drawn \(ValueError: no curves\)$"
    ):
        found = draw_pictures(Minimal(), data, ROWS, tmp_path)
    assert names(found) == ["reconstructions", "samples", "latents"]
    assert not (tmp_path / "curves.png").exists()
