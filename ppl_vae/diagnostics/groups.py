"""ArviZ's own groups: draws of guide, prior and both predictives, for some of the data."""

import numpy as np
import torch
import xarray
from torch import Tensor

from ..data.batch import OBSERVED, Batch
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import decode
from ..programs.scoring import rows_at_once
from ..programs.sites import Latents
from ..programs.terms import Terms, concatenate, score_traces, total
from ..runtime import derived_seed

SHOWN, DRAWS, PREDICTIVE_DRAWS, WORST = 50, 100, 20, 10


def shown_groups(
    posterior: Posterior, seed: int, per_datum: xarray.Dataset
) -> dict[str, xarray.Dataset]:
    """The groups that ArviZ knows, for the first data points; and those of the highest k-hat.

    Arguments:
        posterior: The posterior of held-out data.
        seed: Seed of the draws.
        per_datum: ``k_hat`` by data point, if it is known.

    Returns:
        ``posterior`` (draws of the guide), ``prior``, ``posterior_predictive``,
        ``prior_predictive``, ``log_likelihood``, ``sample_stats``, ``worst_data``; without those
        that the program does not allow.
    """
    shown = posterior[:SHOWN]
    guide, terms = _posterior(shown, derived_seed(seed, "posterior"))
    prior = shown.draw(DRAWS, derived_seed(seed, "prior"), "prior")
    about = "draws from q(z|x); independent, so that R-hat says nothing of the guide"
    groups = {
        "posterior": _latents(guide, about),
        "prior": _latents(prior, "draws from p(z)"),
        "posterior_predictive": _predictive(shown, guide, seed, "posterior predictive"),
        "prior_predictive": _predictive(shown, prior, seed, "prior predictive"),
        **_densities(terms, shown.sites.is_point_mass),
    }
    if "k_hat" in per_datum:
        groups["worst_data"] = _worst(posterior, per_datum["k_hat"].values, seed)
    return {name: _with_chain(group) for name, group in groups.items()}


def observed_data(batch: Batch) -> xarray.Dataset:
    """The first of some data, with their covariates."""
    shown = batch.rows(slice(SHOWN))
    found = {OBSERVED: _data(shown.x, "held-out data", "datum")}
    for name, tensor in shown.covariates.items():
        dims = ["datum", *(f"{name}_{i}" for i in range(tensor.dim() - 1))]
        found[name] = variable(dims, tensor.to(tensor.dtype), f"covariate {name!r}", "its own")
    return xarray.Dataset(found)


def _posterior(posterior: Posterior, seed: int) -> tuple[Latents, Terms]:
    """Draws of the guide and their densities, some draws at a time."""
    sites, parts = posterior.sites.prior, []
    step = max(1, rows_at_once(posterior.program, posterior.batch.x) // len(posterior))
    with posterior.evaluation_mode(seed):
        for first in range(0, DRAWS, step):
            count = min(step, DRAWS - first)
            traces = posterior.trace(count)
            drawn = {site: traces[1].nodes[site]["value"].cpu() for site in sites}
            parts.append((drawn, score_traces(*traces, posterior.placed, count).cpu()))
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


def _predictive(shown: Posterior, latents: Latents, seed: int, purpose: str) -> xarray.Dataset:
    given = {site: values[:PREDICTIVE_DRAWS].flatten(0, 1) for site, values in latents.items()}
    batch = shown.batch.rows(torch.arange(len(shown)).repeat(PREDICTIVE_DRAWS))
    shape, of_purpose = batch.x.shape[1:], derived_seed(seed, purpose)
    drawn = decode(shown.program, given, shape, batch.size, of_purpose, batch.covariates)
    dims, about = ("draw", "datum"), {OBSERVED: drawn.x, f"{OBSERVED}_mean": drawn.mean}
    meanings = dict(zip(about, ("draws from p(x|z)", "means of p(x|z)"), strict=True))
    return xarray.Dataset(
        {
            name: _data(values.unflatten(0, (-1, len(shown))), meanings[name], *dims)
            for name, values in about.items()
        }
    )


def _densities(terms: Terms, point_mass: bool) -> dict[str, xarray.Dataset]:
    """What model and guide say of the posterior group's draws."""
    dims = ("draw", "datum")
    about = "log p({0}|z) of the data point, z its own: LOO and WAIC of it mean nothing"
    likelihoods = {
        site: variable(dims, values, about.format(site), "nats")
        for site, values in terms.likelihood.items()
    }
    groups = {"log_likelihood": xarray.Dataset(likelihoods)}
    if not point_mass:
        log_q = total(terms.guide)
        stats = {
            "log_p": variable(dims, terms.log_weight + log_q, "log p(x, z)", "nats"),
            "log_q": variable(dims, log_q, "log q(z|x)", "nats"),
            "log_weight": variable(dims, terms.log_weight, "log p(x, z) - log q(z|x)", "nats"),
        }
        groups["sample_stats"] = xarray.Dataset(stats)
    return groups


def _worst(posterior: Posterior, k_hat: np.ndarray, seed: int) -> xarray.Dataset:
    chosen = np.argsort(-k_hat)[:WORST]
    worst = posterior[torch.as_tensor(chosen.copy())]
    given = {site: v[0] for site, v in worst.draw(1, derived_seed(seed, "worst")).items()}
    batch, shape = worst.batch, worst.batch.x.shape[1:]
    mean = decode(worst.program, given, shape, batch.size, seed, batch.covariates).mean
    return xarray.Dataset(
        {
            OBSERVED: _data(batch.x, "the data points of the highest k-hat", "worst"),
            f"{OBSERVED}_mean": _data(mean, "mean of p(x|z) at one z ~ q(z|x)", "worst"),
            "k_hat": variable("worst", k_hat[chosen], "Pareto k-hat"),
            "datum": variable("worst", chosen, "index of the data point"),
        }
    )
