"""ArviZ's own groups: some of the data, and draws of guide, prior and both predictives."""

from collections.abc import Collection

import numpy as np
import torch
import xarray
from torch import Tensor

from ..data.batch import OBSERVED, Batch
from ..labels import latent_variables, variable
from ..programs.posterior import Posterior
from ..programs.predictions import decode
from ..programs.sites import Latents
from ..programs.terms import Terms, concatenate, score_traces, total
from ..runtime import derived_seed

SHOWN, DRAWS, PREDICTIVE_DRAWS, WORST = 50, 100, 20, 10
DIMS = ("draw", "datum")


def shown_groups(
    posterior: Posterior, seed: int, per_datum: xarray.Dataset
) -> dict[str, xarray.Dataset]:
    """ArviZ's groups for the first data points, and the data points of the highest k-hat.

    Arguments:
        posterior: The posterior of held-out data.
        seed: Seed of the draws.
        per_datum: ``k_hat`` by data point, if it is known.

    Returns:
        ``observed_data``, ``constant_data``, ``posterior`` (draws of the guide), ``prior``,
        ``posterior_predictive``, ``prior_predictive``, ``log_p_given_z``, ``sample_stats`` and
        ``worst_data``; ``sample_stats`` only where the guide has a density.
    """
    shown = posterior[:SHOWN]
    guide, terms = _posterior(shown, derived_seed(seed, "posterior"))
    prior = shown.draw(DRAWS, derived_seed(seed, "prior"), "prior")
    about = "independent draws from q(z|x): their R-hat says nothing about the guide"
    groups = {
        **data_groups(shown.batch, shown.sites.observed),
        "posterior": _latents(guide, about),
        "prior": _latents(prior, "draws from p(z)"),
        "posterior_predictive": _predictive(shown, guide, seed, "posterior predictive"),
        "prior_predictive": _predictive(shown, prior, seed, "prior predictive"),
        **_densities(terms, shown.sites.is_point_mass),
    }
    if "k_hat" in per_datum:
        groups["worst_data"] = _worst(posterior, per_datum["k_hat"].values, seed)
    return {name: _with_chain(group) for name, group in groups.items()}


def data_groups(batch: Batch, observed: Collection[str] = (OBSERVED,)) -> dict[str, xarray.Dataset]:
    """The first data points: what the model observes, and the covariates that it is given.

    Arguments:
        batch: The data.
        observed: The observed sites.

    Returns:
        ``observed_data``, and ``constant_data`` if there are covariates that are not observed.
    """
    groups: dict[str, dict[str, tuple]] = {}
    for name, tensor in batch.rows(slice(SHOWN)).items():
        group, meaning = (
            ("observed_data", f"held-out {name}")
            if name in observed
            else ("constant_data", f"covariate {name}")
        )
        groups.setdefault(group, {})[name] = _data(name, tensor, meaning, "datum")
    return {group: xarray.Dataset(found) for group, found in groups.items()}


def _posterior(posterior: Posterior, seed: int) -> tuple[Latents, Terms]:
    """Draws of the guide, and the log densities of the same draws."""
    sites, parts = posterior.sites.prior, []
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(DRAWS):
            traces = part.trace(DRAWS)
            drawn = {site: traces[1].nodes[site]["value"].cpu() for site in sites}
            parts.append((drawn, score_traces(*traces, part.placed, DRAWS).cpu()))
    draws = {site: torch.cat([drawn[site] for drawn, _ in parts], dim=1) for site in sites}
    return draws, concatenate([terms for _, terms in parts], dim=1)


def _with_chain(group: xarray.Dataset) -> xarray.Dataset:
    return group.expand_dims("chain", axis=0) if "draw" in group.dims else group


def _latents(latents: Latents, meaning: str) -> xarray.Dataset:
    return xarray.Dataset(latent_variables(latents, DIMS, meaning))


def _data(name: str, values: Tensor, meaning: str, *dims: str) -> tuple:
    """Values of ``x``, or of a covariate, whose dimensions have names of their own."""
    events = values.dim() - len(dims)
    if name != OBSERVED:
        cells = tuple(f"{name}_{i}" for i in range(events))
        return variable((*dims, *cells), values, meaning, f"units of {name}")
    cells = {1: ("feature",), 3: ("channel", "height", "width")}.get(
        events, tuple(f"cell_{i}" for i in range(events))
    )
    return variable((*dims, *cells), values.float(), meaning, "units of the data")


def _predictive(shown: Posterior, latents: Latents, seed: int, purpose: str) -> xarray.Dataset:
    given = {site: values[:PREDICTIVE_DRAWS].flatten(0, 1) for site, values in latents.items()}
    batch = shown.batch.rows(torch.arange(len(shown)).repeat(PREDICTIVE_DRAWS))
    shape, of_purpose = batch.x.shape[1:], derived_seed(seed, purpose)
    drawn = decode(shown.program, given, shape, batch.size, of_purpose, batch.covariates)
    found = {
        name: _data(name, _by_draw(drawn.batch[name], shown), f"draws from p({name}|z)", *DIMS)
        for name in shown.sites.observed
    }
    mean = _data(OBSERVED, _by_draw(drawn.mean, shown), f"means of p({OBSERVED}|z)", *DIMS)
    return xarray.Dataset({**found, f"{OBSERVED}_mean": mean})


def _by_draw(values: Tensor, shown: Posterior) -> Tensor:
    return values.unflatten(0, (-1, len(shown)))


def _densities(terms: Terms, point_mass: bool) -> dict[str, xarray.Dataset]:
    """The log densities of the draws of the posterior group."""
    about = "log p({0}|z) of the data point; z is its own, so that LOO and WAIC mean nothing"
    likelihoods = {
        site: variable(DIMS, values, about.format(site), "nats")
        for site, values in terms.likelihood.items()
    }
    # Under the name log_likelihood, az.loo and az.compare would take it for theirs without a word.
    groups = {"log_p_given_z": xarray.Dataset(likelihoods)}
    if not point_mass:
        log_q = total(terms.guide)
        stats = {
            "log_p": variable(DIMS, terms.log_weight + log_q, "log p(x, z)", "nats"),
            "log_q": variable(DIMS, log_q, "log q(z|x)", "nats"),
            "log_weight": variable(DIMS, terms.log_weight, "log p(x, z) - log q(z|x)", "nats"),
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
            OBSERVED: _data(OBSERVED, batch.x, "data points of the highest k-hat", "worst"),
            f"{OBSERVED}_mean": _data(OBSERVED, mean, "mean of p(x|z) at one z ~ q(z|x)", "worst"),
            "k_hat": variable("worst", k_hat[chosen], "Pareto k-hat"),
            "datum": variable("worst", chosen, "index of the data point"),
        }
    )
