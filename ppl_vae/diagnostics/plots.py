"""The figures of a diagnosis: groups of InferenceData in, figures out."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..plots.drawing import literal
from ..plots.figures import (
    image_grid,
    is_image,
    reconstruction_pairs,
    value_span,
    whole_ticks,
)
from .latents import ACTIVE
from .uniformity import band, ecdf, uniform

SCATTERS, OVERLAID = 6, 400
SMALL: dict[str, Any] = {"fontsize": 9}


def k_hats(diagnostics: xarray.Dataset) -> Figure:
    """k-hat of each data point with its threshold, and by class where there are labels."""
    k_hat = diagnostics["k_hat"].values
    threshold = diagnostics.attrs["k_hat_threshold"]
    labelled = "label" in diagnostics
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, squeeze=False)[0] if labelled else [figure.subplots()]
    finite = np.where(np.isfinite(k_hat), k_hat, np.nan)
    high = ~(k_hat <= threshold)
    index = np.arange(len(k_hat))
    panels[0].plot(index[~high], finite[~high], ".", markersize=3, color="C0")
    panels[0].plot(index[high], finite[high], ".", markersize=4, color="C3")
    panels[0].set(xlabel="test data point", ylabel="Pareto k-hat")
    whole_ticks(panels[0])
    if labelled:
        labels, names = diagnostics["label"].values, json.loads(diagnostics.attrs["label_names"])
        groups = [finite[(labels == i) & np.isfinite(finite)] for i in range(len(names))]
        kept = [(name, group) for name, group in zip(names, groups, strict=True) if len(group)]
        places, few = range(len(kept)), {"markersize": 2}
        panels[1].boxplot([group for _, group in kept], positions=places, flierprops=few)
        panels[1].set(xlabel="class", ylabel="Pareto k-hat")
        whole_ticks(panels[1], [name for name, _ in kept])
    for axes in panels:
        axes.axhline(threshold, color="C1", label=f"reliable below {threshold:.2f}")
        axes.axhline(1.0, color="C3", linestyle="--", label="no finite mean above 1")
    panels[0].legend(**SMALL)
    return figure


def rank_bands(calibration: xarray.Dataset) -> Figure:
    """ECDF of ranks less the uniform one, with simultaneous bands; and expected coverage."""
    draws, size = int(calibration.attrs["draws"]), calibration.sizes["simulation"]
    names = [literal(name) for name in calibration["quantity"].values]
    level = float(calibration.attrs["level"]) / len(names)
    low, high = band(size, draws, level)
    expected = uniform(draws)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.fill_between(expected, low - expected, high - expected, color="0.88", step="post")
    ranks, p = calibration["rank"].values, calibration["p_value"].values
    nominal = calibration["level"].values
    coverage = calibration["expected_coverage"].values
    named = set(np.argsort(p, kind="stable")[:5]) | set(range(len(names))[-2:])
    right.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    for i, name in enumerate(names):
        found = ecdf(ranks[:, i], draws)
        outside = p[i] < level
        shown = i in named and (outside or i >= len(names) - 2)
        style = {"linewidth": 1.4 if shown else 0.6, "color": None if shown else "0.6"}
        left.step(expected, found - expected, where="post", label=name if shown else None, **style)
        right.plot(nominal, coverage[i], label=name if shown else None, **style)
    left.set(xlabel="rank of the true value among draws / (S + 1)", ylabel="ECDF - uniform")
    left.set_title("inside the band if calibrated", **SMALL)
    right.set(xlabel="probability of the region", ylabel="share of true values inside")
    right.set_title("above the diagonal: too wide; below: too narrow", **SMALL)
    left.legend(**SMALL)
    return figure


def gap_decomposition(gaps: xarray.Dataset) -> Figure:
    """The means of both gaps, or of their sum alone, and their distributions over data."""
    parts = {
        "approximation (family)": "approximation_gap",
        "amortization (network)": "amortization_gap",
    }
    if "approximation_gap" not in gaps:
        parts = {"total": "gap"}
    found = {name: gaps[key].values for name, key in parts.items()}
    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    start = 0.0
    edges = np.histogram_bin_edges(np.concatenate(list(found.values())), bins=30)
    for index, (name, values) in enumerate(found.items()):
        mean, error = values.mean(), values.std() / len(values) ** 0.5
        left.barh(
            [0], [mean], left=start, xerr=error, color=f"C{index}", label=f"{name}: {mean:.2f}"
        )
        right.hist(values, edges, alpha=0.6, color=f"C{index}")
        start += mean
    left.set(yticks=[], xlabel="nats per datum between ELBO and log p(x)", ylim=(-0.6, 1.3))
    left.legend(**SMALL, loc="upper left")
    right.set(xlabel="gap of a data point, nats", ylabel="data points")
    return figure


def nuts_overlay(nuts: xarray.Dataset) -> Figure:
    """Draws by NUTS and from the guide, in the two units with the narrowest posterior."""
    z, guide = (nuts[name].values.reshape(-1, *nuts[name].shape[2:]) for name in ("z", "guide"))
    names = [literal(name) for name in nuts["unit"].values]
    first = np.argsort(z.std(0).mean(0), kind="stable")[: min(2, len(names))]
    count = min(SCATTERS, z.shape[1])
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    for n, axes in enumerate(panels[:count]):
        _overlay(axes, z[:, n][:, first], guide[:, n][:, first], [names[i] for i in first])
        accuracy = float(nuts["c2st"][n])
        mixed = "" if bool(nuts["mixed"][n]) else ", not mixed"
        axes.set_title(f"data point {n}: told apart in {accuracy:.0%}{mixed}", **SMALL)
    panels[0].legend(**SMALL)
    return figure


def _overlay(axes: Axes, z: np.ndarray, guide: np.ndarray, names: Sequence[str]) -> None:
    if z.shape[1] == 1:
        edges = np.histogram_bin_edges(np.concatenate([z, guide]), bins=30).tolist()
        axes.hist(z[:, 0], edges, color="0.6", label="NUTS")
        axes.hist(guide[:, 0], edges, histtype="step", color="C3", label="q(z|x)")
        axes.set(xlabel=names[0])
        return
    step = max(1, len(z) // OVERLAID)
    axes.plot(*z[::step].T, ".", markersize=3, color="0.5", label="NUTS")
    axes.plot(*guide[::step].T, ".", markersize=2, color="C3", alpha=0.6, label="q(z|x)")
    axes.set(xlabel=names[0], ylabel=names[1])


def unit_activity(latents: xarray.Dataset) -> Figure:
    """Mean KL and activity of each unit, by falling KL."""
    kl, activity = latents["kl"].mean("datum").values, latents["activity"].values
    order = np.argsort(-kl, kind="stable")
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    place, names = np.arange(len(order)), [str(latents["unit"].values[i]) for i in order]
    left.bar(place, kl[order], color="C0")
    left.set(xlabel="unit, by falling KL", ylabel="KL(q || p), nats per datum")
    right.plot(place, np.maximum(activity[order], 1e-6), "o", markersize=3)
    right.axhline(ACTIVE, color="C3", linestyle="--", label="active above")
    right.set(yscale="log", xlabel="unit, by falling KL", ylabel="Var E_q[s] / Var s")
    for axes in (left, right):
        whole_ticks(axes, names)
    right.legend(**SMALL)
    return figure


def predictive_checks(generation: xarray.Dataset) -> Figure:
    """Test quantities of held-out data, of draws from the model, and of replications."""
    names = [str(name) for name in generation["quantity"].values]
    cells = generation["pit_p_value"]
    pictured = cells.ndim == 3
    count = len(names) + 1 + pictured
    columns = 3 if count <= 3 else -(-count // 2)
    figure = Figure(figsize=(3.2 * columns, 5.6), layout="constrained")
    panels = figure.subplots(2, columns, squeeze=False).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        held_out, drawn = (generation[f"{s}_{name}"].values for s in ("test", "prior"))
        edges = np.histogram_bin_edges(np.concatenate([held_out, drawn]), bins=40)
        axes.hist(held_out, edges, density=True, color="0.75", label="test data")
        for source, color, label in (
            ("prior", "C3", "draws from the model"),
            ("posterior", "C0", "replications, z ~ q(z|x)"),
        ):
            if f"{source}_{name}" in generation:
                values = generation[f"{source}_{name}"].values
                axes.hist(values, edges, density=True, histtype="step", color=color, label=label)
        axes.set(
            yticks=[], xlabel={"distance": "distance to training data"}.get(name, literal(name))
        )
    panels[0].legend(fontsize=7)
    _pit_panel(panels[len(names)], cells.values)
    if pictured:
        difference = (generation["prior_mean"] - generation["test_mean"]).values.mean(0)
        most = max(float(np.abs(difference).max()), 1e-9)
        axes = panels[count - 1]
        shown = axes.imshow(difference, cmap="RdBu_r", vmin=-most, vmax=most)
        figure.colorbar(shown, ax=axes)
        axes.set_axis_off()
        axes.set_title("mean of draws - mean of test data", **SMALL)
    return figure


def _pit_panel(axes: Axes, p_values: np.ndarray) -> None:
    """The p-value of the uniformity of the PIT, of each pixel in its place or of each column."""
    # Of channels the smallest. Below 1e-4 all look alike.
    strength = -np.log10(np.maximum(p_values, 1e-4))
    axes.set_title("-log10 p-value of the uniformity of the PIT", **SMALL)
    if p_values.ndim == 3:
        shown = axes.imshow(strength.max(0), cmap="viridis", vmin=0, vmax=4)
        axes.figure.colorbar(shown, ax=axes)
        axes.set_axis_off()
        return
    axes.plot(strength.ravel(), "o", markersize=3)
    axes.axhline(2, color="C3", linestyle="--")
    axes.set(xlabel="column", ylim=(0, 4.2))
    whole_ticks(axes)


def contributions(certificate: xarray.Dataset) -> Figure:
    """What each simulation adds to the Jeffreys divergence, with its mean."""
    values = certificate["contribution"].values
    mean, error = (float(certificate[name]) for name in ("jeffreys", "jeffreys_error"))
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.005, 0.995]) if len(finite) else (0.0, 1.0)
    axes.hist(np.clip(finite, low, high), bins=50, color="0.75")
    if np.isfinite(mean):
        axes.axvline(mean, color="C0", label=f"mean: {mean:.3g} ± {error:.2g} nats")
        axes.legend(**SMALL)
    axes.set(xlabel="log w of the true z less that of draws, nats", ylabel="simulations")
    return figure


def local_shifts(local: xarray.Dataset) -> Figure:
    """Where q is off: errors of mean and scale over the two units of the worst region."""
    mean, names = local["mean"].values, [literal(name) for name in local["unit"].values]
    worst = int(local.attrs["worst"])
    shift, scale = local["shift"].values, local["scale_error"].values
    unit = int((shift[worst] ** 2 + scale[worst] ** 2).argmax())
    axis = [unit, (unit + 1) % len(names)] if len(names) > 1 else [unit, unit]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, values, words in zip(
        panels,
        (shift, scale),
        ("the true z above the guide's mean", "too narrow (or too wide)"),
        strict=True,
    ):
        across = values[:, unit] if len(names) == 1 else mean[:, axis[1]]
        dots = axes.scatter(
            mean[:, axis[0]], across, c=values[:, unit], s=6, cmap="RdBu_r", vmin=-1, vmax=1
        )
        chosen = local["in_region"].values > 0
        axes.plot(
            mean[chosen, axis[0]], across[chosen], "o", markersize=5, markerfacecolor="none",
            markeredgecolor="0.3", markeredgewidth=0.5,
        )  # fmt: skip
        axes.set(xlabel=f"mean of q, {names[axis[0]]}")
        axes.set_ylabel(words if len(names) == 1 else f"mean of q, {names[axis[1]]}")
        axes.set_title(f"{names[unit]}: {words}, in sd", **SMALL)
        figure.colorbar(dots, ax=axes)
    return figure


def likeness(misspecification: xarray.Dataset) -> Figure:
    """How far out observed data lie among simulated ones, and other simulated ones."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    ours, theirs = (misspecification[n].values for n in ("distance", "simulated_distance"))
    low = max(float(min(ours.min(), theirs.min())), 1e-6)
    high = max(float(max(ours.max(), theirs.max())), 2 * low)
    edges = np.geomspace(low, high, 50).tolist()
    axes.hist(np.clip(theirs, low, high), edges, density=True, color="0.75", label="simulated")
    axes.hist(ours.clip(low, high), edges, density=True, histtype="step", label="observed")
    limit = float(np.quantile(theirs, misspecification.attrs["quantile"]))
    axes.axvline(limit, color="C3", linestyle="--", label="99 % of simulated data")
    axes.set(xscale="log", yticks=[], xlabel="distance to the fifth neighbour among simulated data")
    axes.legend(**SMALL)
    return figure


def places(posterior_sbc: xarray.Dataset) -> Figure:
    """ECDF of places less the uniform one, around the observed data, with simultaneous bands."""
    found = posterior_sbc["place"].values
    names = [literal(name) for name in posterior_sbc["quantity"].values]
    bins = int(posterior_sbc.attrs["bins"])
    low, high = band(len(found), bins, 0.004 / len(names))
    expected = uniform(bins)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(expected, low - expected, high - expected, color="0.88", step="post")
    outside = set(np.argsort(posterior_sbc["p_value"].values, kind="stable")[:5])
    for i, name in enumerate(names):
        counted = ecdf(np.clip(found[:, i] * (bins + 1), 0, bins).astype(int), bins)
        label, width = (name, 1.2) if i in outside else (None, 0.6)
        color = None if i in outside else "0.6"
        axes.step(
            expected, counted - expected, where="post", label=label, linewidth=width, color=color
        )
    axes.set(xlabel="place of the draw that made the new data", ylabel="ECDF - uniform")
    axes.legend(**SMALL)
    return figure


def shown_data(groups: dict[str, xarray.Dataset]) -> dict[str, Callable[[], Figure]]:
    """What draws reconstructions, draws from the model and the worst data, as far as there are
    groups."""
    found: dict[str, Callable[[], Figure]] = {}
    if "observed_data" not in groups:
        return found
    x = torch.tensor(groups["observed_data"]["x"].values)
    image = is_image(x.shape[1:])
    if "posterior_predictive" in groups:
        found["Reconstructions"] = lambda: _reconstructions(groups, x, 10 if image else len(x))
    if "prior_predictive" in groups and image:
        found["Draws from the model"] = lambda: _draws(groups, x)
    if "worst_data" in groups and image:
        found["The data points of the highest k-hat"] = lambda: _worst(groups["worst_data"])
    return found


def _reconstructions(groups: dict[str, xarray.Dataset], x: Tensor, count: int) -> Figure:
    mean = torch.tensor(groups["posterior_predictive"]["x_mean"].values[0, 0])
    return reconstruction_pairs(x[:count], mean[:count])


def _draws(groups: dict[str, xarray.Dataset], x: Tensor) -> Figure:
    mean = torch.tensor(groups["prior_predictive"]["x_mean"].values[0, 0])
    return image_grid(mean[:30], 10, "", value_span(x))


def _worst(worst: xarray.Dataset) -> Figure:
    x, mean = (torch.tensor(worst[name].values) for name in ("x", "x_mean"))
    figure = reconstruction_pairs(x, mean)
    marks = "  ".join(f"{k:.1f}" for k in worst["k_hat"].values)
    figure.axes[0].set_title(f"data above, reconstructions below; k-hat: {marks}", fontsize=10)
    return figure
