"""Arrays with names, units and meanings; numbers that add up when printed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .errors import printable


def variable(
    dims: str | Sequence[str], values: Tensor | np.ndarray, meaning: str, units: str = "1"
) -> tuple[Sequence[str], np.ndarray, dict[str, str]]:
    """An array with its dimensions and attributes, for :class:`xarray.Dataset`.

    Arguments:
        dims: The names of its dimensions.
        values: The array.
        meaning: What it is, with its source; the attribute ``long_name``.
        units: Its units; the attribute ``units``.
    """
    array = values.numpy() if isinstance(values, Tensor) else np.asarray(values)
    names = (dims,) if isinstance(dims, str) else tuple(dims)
    return names, array, {"long_name": meaning, "units": units}


def attributes(about: Mapping[str, Any]) -> dict[str, Any]:
    """What results are about, as attributes that netCDF can hold.

    Example:
        >>> attributes({"run": "runs/\\udcff", "draws": 100, "split": None})
        {'run': 'runs/\\\\udcff', 'draws': 100, 'split': ''}
    """
    plain = {name: "" if value is None else value for name, value in about.items()}
    return {n: printable(v) if isinstance(v, str) else v for n, v in plain.items()}


def latent_variables(
    latents: Mapping[str, Tensor], dims: Sequence[str], meaning: str
) -> dict[str, tuple[Sequence[str], np.ndarray, dict[str, str]]]:
    """Values of latent sites as variables, whose last dimensions are the units of each.

    Arguments:
        latents: Tensors by site, with the dimensions ``dims`` and then those of an event.
        dims: The names of the dimensions in front.
        meaning: What they are.

    Example:
        >>> import torch
        >>> latent_variables({"z": torch.zeros(3, 2)}, ["datum"], "means of q")["z"][0]
        ('datum', 'latent')
    """
    found = {}
    for site, values in latents.items():
        # A variable may not have the name of its dimension.
        stem = "latent" if len(latents) == 1 and site != "latent" else f"{site}_unit"
        events = values.dim() - len(dims)
        units = [stem] if events == 1 else [f"{stem}_{i}" for i in range(events)]
        about = f"{meaning}, site {site!r}"
        found[site] = variable((*dims, *units), values.cpu(), about, "units of z")
    return found


def round_together(
    values: Mapping[str, Any], identities: Mapping[str, tuple[str, str]], decimals: int
) -> dict[str, Any]:
    """Round numbers, or columns of them, so that differences still hold when printed.

    Rounded one by one they may not: 1.4 = 0.9 + 0.5 turns into 1 = 1 + 1. Hence a difference is
    computed from its rounded terms. It is then off by at most 1.5 units of the last decimal, or
    more where its terms are differences themselves.

    Arguments:
        values: Numbers or columns by name.
        identities: For each difference, the names of minuend and subtrahend. These may be
            differences that come before it.
        decimals: The number of decimals.

    Returns:
        The rounded values of all names in ``identities``.

    Example:
        >>> values = {"elbo": -1.4, "reconstruction": -0.9, "kl": 0.5}
        >>> round_together(values, {"kl": ("reconstruction", "elbo")}, 0)
        {'reconstruction': -1.0, 'elbo': -1.0, 'kl': 0.0}
    """
    found = {
        name: round(values[name], decimals) + 0.0  # no -0.0
        for pair in identities.values()
        for name in pair
        if name in values
    }
    for name, (whole, part) in identities.items():
        if name in values and whole in values and part in values:
            found[name] = round(found[whole] - found[part], decimals) + 0.0
    return found
