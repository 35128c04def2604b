"""Arrays in, figures out. No figure is registered with pyplot, so that none needs closing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torchvision.utils import make_grid

from .drawing import literal

MAX_COLUMNS = 6  # of a table, shown side by side
MAX_NAMES = 24  # of ticks


def is_image(data_shape: Sequence[int]) -> bool:
    """Whether a data point is shown as a picture: its shape is (channels, height, width)."""
    return len(data_shape) == 3


def image_grid(images: Tensor, columns: int, title: str = "", span: tuple | None = None) -> Figure:
    """A grid of images, row by row.

    Arguments:
        images: Of shape (N, channels, height, width).
        columns: Images in a row.
        title: The title of the figure.
        span: The values shown as black and as white; by default 0 and 1.
    """
    images = _visible(images)
    padding = max(1, images.shape[-1] // 14)
    span = span or (0.0, 1.0)
    grid = make_grid(
        images.float(), columns, padding=padding, normalize=True, value_range=span, pad_value=0.5
    )
    rows = -(-len(images) // columns)
    size = 7.0 / max(columns, rows)
    figure = Figure(figsize=(columns * size, rows * size + 0.3), layout="constrained")
    axes = figure.subplots()
    axes.imshow(grid.permute(1, 2, 0).numpy(), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    return figure


def reconstruction_pairs(
    originals: Tensor, reconstructions: Tensor, names: Sequence[str] = ()
) -> Figure:
    """Originals above their reconstructions: images as pictures, other data as scatter plots.

    Arguments:
        originals: Of shape (N, *data_shape), NaN where a value is missing.
        reconstructions: Of the same shape.
        names: Of the columns of a table.
    """
    if is_image(originals.shape[1:]):
        columns = len(originals)
        rows = torch.cat([originals.float(), reconstructions.float()])
        title = "originals above, reconstructions below"
        return image_grid(rows, columns, title, value_span(originals))
    figure, panels = _column_panels(originals)
    for column, axes in enumerate(panels):
        true, found = (t.flatten(1)[:, column] for t in (originals, reconstructions))
        true, found = true[~true.isnan()], found[~true.isnan()]
        axes.plot(true, found, ".", markersize=3, alpha=0.5)
        if len(true):
            middle = float(true.mean())
            axes.axline((middle, middle), slope=1, color="0.5", linewidth=0.8)
        axes.set_xlabel(f"original, {_column_name(names, column)}")
        axes.set_ylabel("reconstruction")
    return figure


def sample_overview(samples: Tensor, originals: Tensor, names: Sequence[str] = ()) -> Figure:
    """Draws from the model: images as a grid, other data as histograms beside those of real data.

    Arguments:
        samples: Of shape (N, *data_shape).
        originals: Real data, of shape (M, *data_shape), NaN where a value is missing.
        names: Of the columns of a table.
    """
    if is_image(samples.shape[1:]):
        columns = int(np.ceil(np.sqrt(len(samples))))
        return image_grid(samples, columns, "decoded draws from the prior", value_span(originals))
    figure, panels = _column_panels(originals)
    for column, axes in enumerate(panels):
        drawn, true = (t.flatten(1)[:, column].numpy() for t in (samples, originals))
        true = true[~np.isnan(true)]
        bins = np.histogram_bin_edges(np.concatenate([drawn, true]), bins=30)
        axes.hist(true, bins, density=True, alpha=0.5, label="data")
        axes.hist(drawn, bins, density=True, histtype="step", linewidth=1.5, label="samples")
        axes.set_xlabel(_column_name(names, column))
        axes.set_yticks([])
    panels[0].legend()
    return figure


def training_curves(epochs: Sequence[dict[str, float]]) -> Figure:
    """The ELBO and its two terms over the epochs of a fit, in nats per datum.

    Arguments:
        epochs: Rows of :attr:`ppl_vae.training.history.History.epochs`.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["epoch"] for row in epochs]
    # A line through one point would be invisible.
    style = {"marker": "o", "markersize": 3} if len(steps) < 30 else {}
    left.plot(
        steps, [-row["loss"] for row in epochs], color="0.6", label="training objective", **style
    )
    if "elbo" in epochs[0]:
        left.plot(steps, [row["elbo"] for row in epochs], label="validation ELBO", **style)
        right.plot(steps, [row["kl"] for row in epochs], color="C1", label="KL", **style)
    right.plot(
        steps,
        [-row["reconstruction"] for row in epochs],
        color="C2",
        label="- reconstruction",
        **style,
    )
    for axes in (left, right):
        axes.set(xlabel="epoch", ylabel="nats per datum")
        whole_ticks(axes)
        axes.legend()
    lowest = np.percentile([-row["loss"] for row in epochs], 10)
    highest = max(max(-row["loss"], row.get("elbo", -row["loss"])) for row in epochs)
    if len(steps) > 10 and highest > lowest:
        # The first epochs are far below all others, and would hide what happens in these.
        left.set_ylim(lowest - (highest - lowest), highest + 0.15 * (highest - lowest))
    return figure


def gradient_variances(variances: dict[str, dict[str, float]]) -> Figure:
    """The variance of each estimator of a gradient, one panel for each target.

    Arguments:
        variances: For each target, the total variance by the name of the estimator.
    """
    heights = [len(group) for group in variances.values()]
    figure = Figure(figsize=(8, 1.2 + 0.5 * sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)
    for axes, (target, group) in zip(panels[:, 0], variances.items(), strict=True):
        axes.plot(list(group.values()), list(group), "o")
        for name, variance in group.items():
            axes.annotate(
                f"{variance:.3g}", (variance, name), (8, 0), textcoords="offset points", va="center"
            )
        axes.invert_yaxis()
        axes.grid(axis="y", alpha=0.3)
        axes.set(xscale="log", title=f"gradient of the {target}")
        axes.margins(x=0.25, y=0.3)
    panels[-1, 0].set_xlabel("total variance over the guide's parameters, (nats per datum)²")
    return figure


def latent_map(latents: Tensor, labels: Tensor | None, label_names: Sequence[str]) -> Figure:
    """Posterior means in the plane, coloured by class; of more than two latents, their PCA.

    Arguments:
        latents: Of shape (N, L).
        labels: Class indices of shape (N,), or ``None``.
        label_names: The names of the classes.
    """
    points = latents.numpy().astype(np.float64)
    names = ["z, unit 1", "z, unit 2"]
    if points.shape[1] > 2 and not np.ptp(points, axis=0).any():
        points = points[:, :2]  # points that do not vary have no principal components
    elif points.shape[1] > 2:
        from sklearn.decomposition import PCA

        pca = PCA(2).fit(points)
        points = pca.transform(points)
        names = [
            f"principal component {i + 1} of z ({share:.0%} of its variance)"
            for i, share in enumerate(pca.explained_variance_ratio_)
        ]
    elif points.shape[1] == 1:
        points = np.column_stack(
            [points[:, 0], np.random.default_rng(0).uniform(-1, 1, len(points))]
        )
        names = ["z", "random height"]
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    if labels is None:
        axes.plot(*points.T, ".", markersize=3)
    else:
        palette = colormaps["tab10" if len(label_names) <= 10 else "tab20"]
        if len(label_names) > 20:
            palette = colormaps["turbo"].resampled(len(label_names))
        for index, name in enumerate(label_names):
            chosen = (labels == index).numpy()
            style: Any = {"markersize": 3, "color": palette(index), "label": literal(name)}
            axes.plot(*points[chosen].T, ".", **style)
        if len(label_names) <= 20:
            axes.legend(markerscale=4, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel=names[0], ylabel=names[1], title="means of q(z|x)")
    return figure


def whole_ticks(axes: Axes, names: Sequence[str] = ()) -> None:
    """Ticks of an x axis that counts: at whole numbers, with the names of 0, 1, ... if few."""
    if not 0 < len(names) <= MAX_NAMES:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return
    shown = [*map(literal, names)]
    axes.set_xticks(range(len(shown)), shown, rotation=90 if sum(map(len, shown)) > 40 else 0)


def value_span(data: Tensor) -> tuple[float, float]:
    """The values to show as black and as white: 0 and 1 if the data lie between them."""
    shown = _visible(data)
    low, high = float(shown.min()), float(shown.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def _column_name(names: Sequence[str], place: int) -> str:
    return literal(names[place] if names else f"column {place}")


def _visible(images: Tensor) -> Tensor:
    """The channels to show: three as colours, or the first as grey."""
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1]


def _column_panels(data: Tensor) -> tuple[Figure, np.ndarray]:
    count = min(data[0].numel(), MAX_COLUMNS)
    figure = Figure(figsize=(3 * min(count, 3), 2.6 * -(-count // 3)), layout="constrained")
    panels = figure.subplots(-(-count // 3), min(count, 3), squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]
