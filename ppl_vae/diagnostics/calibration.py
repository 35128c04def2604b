"""Is the guide calibrated? Simulation-based calibration, on data that the model simulates."""

import numpy as np
import torch
import xarray
from scipy.stats import ks_2samp

from ..data.batch import OBSERVED
from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import simulate
from ..programs.sites import Latents
from ..programs.terms import total
from ..progress import Progress
from ..runtime import derived_seed
from .latents import as_units, unit_names
from .uniformity import band, deviation, p_value
from .verdicts import DiagnosticResult, Grade, Verdict, Z, advice

QUESTION = "Is q(z|x) calibrated?"
DRAWS = 100  # among which each true value is ranked
MIN_SIMULATIONS = 100
LEVEL, AVERAGE_LEVEL = 0.004, 0.001  # of the tests of ranks, and of the data-averaged posterior
MATERIAL = 0.1
LEVELS = np.arange(1, 20) / 20
LIKELIHOOD, DENSITY = f"log p({OBSERVED}|z)", f"log q(z|{OBSERVED})"
SOURCE = "Talts et al. 2018; Säilynoja et al. 2022; Modrák et al. 2023"


def ask_calibration(
    posterior: Posterior, simulations: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Rank the true latents among the guide's draws, on data that the model simulates.

    For :math:`z^*, x^* \sim p(z, x)`, :math:`z^*` is a draw from p(z | x*). If the guide is that
    posterior, then the rank of f(z*, x*) among f(z, x*), z ~ q(z | x*), is uniform for every f
    (Talts et al. 2018). Three kinds of f are ranked: each latent unit; log p(x | z), which alone
    shows a guide that ignores x (Modrák et al. 2023); and log q(z | x), whose ranks are the
    coverage of the guide's regions of highest density. The ECDFs are compared with simultaneous
    bands (Säilynoja et al. 2022), and the data-averaged posterior with the prior.

    Arguments:
        posterior: The posterior of some data. Only their shape is used, and their covariates,
            given which data are simulated.
        simulations: Data points M to simulate.
        seed: Seed of simulations and draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``calibration``: ``rank`` (simulation, quantity), ``p_value``, ``deviation`` (quantity),
        ``z_score``, ``contraction`` (simulation, unit), ``expected_coverage`` (quantity, level),
        ``average_p_value`` (unit), and ``truth`` (simulation, unit).

    Raises:
        InputError: If there are too few simulations, or the guide is a point mass.
    """
    if simulations < MIN_SIMULATIONS:
        raise InputError(
            "simulations",
            f"must be at least {MIN_SIMULATIONS}, for ranks to be compared, got {simulations}",
        )
    program, batch = posterior.program, posterior.batch
    drawn = simulate(program, batch, simulations, derived_seed(seed, "simulations"))
    simulated = Posterior(program, drawn.batch)
    simulated.sites.require_density()
    counted = (progress or Progress()).part(1.0, total=simulations * (DRAWS + 1))
    names, values = _quantities(simulated, drawn.latents, derived_seed(seed, "ranks"), counted)
    generator = np.random.default_rng(derived_seed(seed, "ties"))
    ranks = _ranks(values, generator)
    units = names[: len(unit_names(_as_draw(drawn.latents)))]
    draws = values[1:, :, : len(units)]
    truth = as_units(_as_draw(drawn.latents))[0].numpy()
    fresh = simulate(program, batch, simulations, derived_seed(seed, "prior")).latents
    prior = as_units(_as_draw(fresh))[0].numpy()
    average = [ks_2samp(draws[0, :, i], prior[:, i]).pvalue for i in range(len(units))]
    columns = range(len(names))
    dataset = _dataset(
        {
            "rank": (("simulation", "quantity"), ranks),
            "p_value": ("quantity", [p_value(ranks[:, i], DRAWS) for i in columns]),
            "deviation": ("quantity", [deviation(ranks[:, i], DRAWS) for i in columns]),
            "expected_coverage": (("quantity", "level"), _coverage(ranks, names)),
            "truth": (("simulation", "unit"), truth),
            "z_score": (
                ("simulation", "unit"),
                _ratio(draws.mean(0) - truth, draws.std(0, ddof=1)),
            ),
            "contraction": (
                ("simulation", "unit"),
                1 - _ratio(draws.var(0, ddof=1), np.broadcast_to(prior.var(0), truth.shape)),
            ),
            "average_p_value": ("unit", average),
        },
        {"quantity": names, "unit": units, "level": LEVELS},
    )
    return DiagnosticResult(_verdict(dataset), {"calibration": dataset})


def _as_draw(latents: Latents) -> Latents:
    """Latents of shape (N, ...) as one draw, of shape (1, N, ...)."""
    return {site: value[None] for site, value in latents.items()}


def _quantities(
    simulated: Posterior, latents: Latents, seed: int, progress: Progress
) -> tuple[list[str], np.ndarray]:
    """What is ranked, of shape (1 + S, M, quantities): of the true latents, then of the draws."""
    with_guide, parts, first = simulated.has_tractable_density, [], 0
    with simulated.evaluation_mode(seed):
        for part in simulated.blocks(DRAWS + 1, progress):
            rows = slice(first, first + len(part))
            first = rows.stop
            drawn = part.sample(DRAWS)
            both = {s: torch.cat([latents[s][None, rows].to(v), v]) for s, v in drawn.items()}
            terms = part.score(both, with_guide)
            columns = [as_units(both), terms.reconstruction[..., None].double()]
            if with_guide:
                columns.append(total(terms.guide)[..., None].double())
            parts.append(torch.cat(columns, dim=-1).cpu())
    units = unit_names(_as_draw(latents))
    values = torch.cat(parts, dim=1)
    if values.isnan().any() or not values[..., : len(units)].isfinite().all():
        raise InputError(
            "the guide", "has draws or densities that are not finite on data that the model made"
        )
    return [*units, LIKELIHOOD, *([DENSITY] if with_guide else [])], values.numpy()


def _ranks(values: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Ranks of the first row among the others, ties broken at random."""
    below = (values[1:] < values[0]).sum(0)
    ties = (values[1:] == values[0]).sum(0)
    return below + generator.integers(0, ties + 1)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A ratio; NaN for a unit whose draws do not vary, such as a class."""
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)


def _coverage(ranks: np.ndarray, names: list[str]) -> np.ndarray:
    """How often the true value lies inside the guide's region of each level: the central interval
    of a quantity, and for log q the region of highest density."""
    place = (ranks + 0.5) / (DRAWS + 1)
    outwards = np.abs(2 * place - 1)
    if names[-1] == DENSITY:
        outwards[:, -1] = 1 - place[:, -1]
    return (outwards[:, :, None] <= LEVELS).mean(0)


def _verdict(dataset: xarray.Dataset) -> Verdict:
    p, distance = dataset["p_value"].values, dataset["deviation"].values
    average = dataset["average_p_value"].values
    outside = p * len(p) < LEVEL
    unlike_prior = average * len(average) < AVERAGE_LEVEL
    simulations = dataset.sizes["simulation"]
    at = int(np.where(outside, distance, -1).argmax() if outside.any() else p.argmin())
    name = str(dataset["quantity"].values[at])
    error = 0.5 / simulations**0.5
    low, high = band(simulations, DRAWS, LEVEL / len(p))
    given: Grade = "pass" if (high - low).max() / 2 <= MATERIAL else "cannot say"
    if outside.any() or unlike_prior.any():
        material = outside.any() and distance[at] - Z * error > MATERIAL
        given = "fail" if material else "caution"
    if not (outside.any() or unlike_prior.any()):
        meaning = "the true z ranks like one of the guide's draws, as far as chance lets one see"
    elif not outside.any():
        unit = dataset["unit"].values[int(average.argmin())]
        meaning = f"the posterior of {unit}, averaged over simulated data, is not its prior"
    else:
        meaning = f"the ranks of {int(outside.sum())} of {len(p)} quantities leave their bands; "
        units = outside & np.isin(dataset["quantity"].values, dataset["unit"].values)
        # A unit says more about what is wrong than a density does.
        shown = int(np.where(units, distance, -1).argmax()) if units.any() else at
        name_shown = str(dataset["quantity"].values[shown])
        meaning += f"{name_shown} {_shape(dataset['rank'].values[:, shown], name_shown)}"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic=f"largest distance between the ECDF of ranks and uniform, {name}",
        value=float(distance[at]),
        error=error,
        unit="probability",
        threshold=f"caution outside simultaneous bands of level {LEVEL:g} over all quantities "
        f"(p = {min(1.0, p.min() * len(p)):.2g}), fail if also above {MATERIAL:g} by 3 "
        "standard errors, which is a scale off by a factor of 1.5 or a mean by a quarter of a "
        "standard deviation",
        source=SOURCE,
        remedy=advice(
            given,
            "a guide with correlations or a flow; a larger encoder, or longer training; the "
            "objectives iw or dreg if it is too narrow",
        ),
    )


def _shape(ranks: np.ndarray, name: str) -> str:
    """What the ranks of a quantity say about the guide, in words."""
    place = (ranks + 0.5) / (DRAWS + 1)
    if name == DENSITY:
        low = place.mean() < 0.5
        return "says that the guide is too " + ("narrow, or shifted" if low else "wide")
    if name == LIKELIHOOD:
        worse = place.mean() > 0.5
        return f"says that draws explain the data {'worse' if worse else 'better'} than the true z"
    if abs(place.mean() - 0.5) > 4 * (1 / 12 / len(place)) ** 0.5:
        return "is biased " + ("low" if place.mean() > 0.5 else "high")
    return "is too " + ("narrow" if place.var() > 1 / 12 else "wide")


def _dataset(arrays: dict, coords: dict) -> xarray.Dataset:
    meanings = {
        "rank": ("rank of the true value among the guide's draws (Talts et al. 2018)", "1"),
        "p_value": ("p-value of the uniformity of ranks (Säilynoja et al. 2022)", "probability"),
        "deviation": ("largest distance between the ECDF of ranks and uniform", "probability"),
        "expected_coverage": (
            "share of true values inside the central interval, or region of highest q, of a level",
            "probability",
        ),
        "truth": ("z* that the data point was simulated from", "units of z"),
        "z_score": ("(E_q z - z*) / sd_q z (Betancourt 2018)", "1"),
        "contraction": ("1 - Var_q z / Var z (Betancourt 2018)", "1"),
        "average_p_value": (
            "p-value of the guide's draws, one for each simulation, being from the prior "
            "(Kolmogorov-Smirnov)",
            "probability",
        ),
    }
    variables = {n: variable(dims, values, *meanings[n]) for n, (dims, values) in arrays.items()}
    return xarray.Dataset(variables, coords, {"draws": DRAWS, "level": LEVEL})
