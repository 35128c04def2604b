"""ArviZ's own groups: draws of guide, prior and both predictives, for some of the data."""

from contextlib import suppress

import numpy as np
import torch
import xarray
from torch import Tensor

from ..errors import InputError
from ..labels import variable
from ..programs.conformance import check_program
from ..programs.predictions import decode
from ..programs.protocol import OBSERVED, Program, evaluation_mode
from ..programs.sites import draw_latents, is_point_mass, latent_distributions, trace_draws
from ..programs.terms import Terms, concatenate, score_traces
from ..programs.weights import rows_at_once
from ..runtime import derived_seed
from .latents import guide_draws, latent_sites, on_device

SHOWN, DRAWS, PREDICTIVE_DRAWS, WORST = 50, 100, 20, 10

Latents = dict[str, Tensor]


def shown_groups(
    program: Program, x: Tensor, seed: int, per_datum: xarray.Dataset
) -> dict[str, xarray.Dataset]:
    """The groups that ArviZ knows, for the first data; and the data of the highest k-hat.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Held-out data of shape (N, *data_shape).
        seed: Seed of the draws.
        per_datum: ``k_hat`` by datum, if it is known.

    Returns:
        ``posterior`` (draws of the guide), ``prior``, ``posterior_predictive``,
        ``prior_predictive``, ``observed_data``, ``log_likelihood``, ``sample_stats``,
        ``worst_data``; without those that the program or the data do not allow.
    """
    shown = x[:SHOWN]
    groups = {"observed_data": xarray.Dataset({OBSERVED: _data(shown, "held-out data", "datum")})}
    with suppress(InputError):
        check_program(program, shown)
        batch = on_device(program, shown)
        guide, terms = _posterior(program, batch, derived_seed(seed, "posterior"))
        with evaluation_mode(program, derived_seed(seed, "prior")):
            prior = draw_latents(program, batch, DRAWS, "prior")
        about = "draws from q(z|x); independent, so that R-hat says nothing of the guide"
        groups["posterior"] = _latents(guide, about)
        groups["prior"] = _latents(prior, "draws from p(z)")
        groups["posterior_predictive"] = _predictive(
            program, guide, shown, derived_seed(seed, "posterior predictive")
        )
        groups["prior_predictive"] = _predictive(
            program, prior, shown, derived_seed(seed, "prior predictive")
        )
        groups |= _densities(terms, is_point_mass(*latent_distributions(program, shown)))
        if "k_hat" in per_datum:
            groups["worst_data"] = _worst(program, x, per_datum["k_hat"].values, seed)
    return {name: _with_chain(group) for name, group in groups.items()}


def _posterior(program: Program, batch: Tensor, seed: int) -> tuple[Latents, Terms]:
    """Draws of the guide and their densities, some draws at a time."""
    sites, parts = latent_sites(program, batch), []
    step = max(1, rows_at_once(program, batch) // len(batch))
    with evaluation_mode(program, seed):
        for first in range(0, DRAWS, step):
            count = min(step, DRAWS - first)
            traces = trace_draws(program, batch, count)
            drawn = {site: traces[1].nodes[site]["value"].cpu() for site in sites}
            parts.append((drawn, score_traces(*traces, (count, len(batch))).cpu()))
    draws = {site: torch.cat([drawn[site] for drawn, _ in parts]) for site in sites}
    return draws, concatenate([terms for _, terms in parts], dim=0)


def _with_chain(group: xarray.Dataset) -> xarray.Dataset:
    return group.expand_dims("chain", axis=0) if "draw" in group.dims else group


def _latents(latents: Latents, meaning: str) -> xarray.Dataset:
    found = {}
    for site, values in latents.items():
        # A variable may not have the name of its dimension.
        stem = "latent" if len(latents) == 1 and site != "latent" else f"{site}_unit"
        events = values.dim() - 2
        dims = [stem] if events == 1 else [f"{stem}_{i}" for i in range(events)]
        about = f"{meaning}, site {site!r}"
        found[site] = variable(("draw", "datum", *dims), values.cpu(), about, "units of z")
    return xarray.Dataset(found)


def _data(values: Tensor, meaning: str, *dims: str) -> tuple:
    events = values.dim() - len(dims)
    cells = {1: ("feature",), 3: ("channel", "height", "width")}.get(
        events, tuple(f"cell_{i}" for i in range(events))
    )
    return variable((*dims, *cells), values.float(), meaning, "units of the data")


def _predictive(program: Program, latents: Latents, x: Tensor, seed: int) -> xarray.Dataset:
    count = PREDICTIVE_DRAWS * len(x)
    given = {site: values[:PREDICTIVE_DRAWS].flatten(0, 1) for site, values in latents.items()}
    drawn = decode(program, given, x.shape[1:], count, seed)
    shape = (PREDICTIVE_DRAWS, len(x))
    return xarray.Dataset(
        {
            OBSERVED: _data(drawn.x.unflatten(0, shape), "draws from p(x|z)", "draw", "datum"),
            f"{OBSERVED}_mean": _data(
                drawn.mean.unflatten(0, shape), "means of p(x|z)", "draw", "datum"
            ),
        }
    )


def _densities(terms: Terms, point_mass: bool) -> dict[str, xarray.Dataset]:
    """What model and guide say of the posterior group's draws."""
    dims = ("draw", "datum")
    about = "log p(x|z) of the datum, z its own: LOO and WAIC of it mean nothing"
    likelihood = variable(dims, terms.reconstruction, about, "nats")
    groups = {"log_likelihood": xarray.Dataset({OBSERVED: likelihood})}
    if not point_mass:
        log_q = torch.stack(list(terms.guide.values())).sum(0)
        stats = {
            "log_p": variable(dims, terms.log_weight + log_q, "log p(x, z)", "nats"),
            "log_q": variable(dims, log_q, "log q(z|x)", "nats"),
            "log_weight": variable(dims, terms.log_weight, "log p(x, z) - log q(z|x)", "nats"),
        }
        groups["sample_stats"] = xarray.Dataset(stats)
    return groups


def _worst(program: Program, x: Tensor, k_hat: np.ndarray, seed: int) -> xarray.Dataset:
    chosen = np.argsort(-k_hat)[:WORST]
    rows = torch.as_tensor(chosen.copy())
    sites = latent_sites(program, x)
    with evaluation_mode(program, derived_seed(seed, "worst")):
        drawn = guide_draws(program, on_device(program, x[rows]), 1, sites)
    given = {site: values[0] for site, values in drawn.items()}
    mean = decode(program, given, x.shape[1:], len(rows), seed).mean
    return xarray.Dataset(
        {
            OBSERVED: _data(x[rows], "the data of the highest k-hat", "worst"),
            f"{OBSERVED}_mean": _data(mean, "mean of p(x|z) at one z ~ q(z|x)", "worst"),
            "k_hat": variable("worst", k_hat[chosen], "Pareto k-hat"),
            "datum": variable("worst", chosen, "index of the datum"),
        }
    )
