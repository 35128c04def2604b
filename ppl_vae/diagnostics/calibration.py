"""Is the guide calibrated? Simulation-based calibration, on data that the model simulates."""

from math import sqrt

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
from .distances import Distance, most_telling
from .latents import ACTIVE, as_units, unit_names
from .uniformity import distance, p_value, share_error, squared_distance
from .verdicts import DiagnosticResult, Verdict, advice, needed

QUESTION = "Is q(z|x) calibrated?"
DRAWS = 100  # among which each true value is ranked
MIN_SIMULATIONS = 100
LEVEL, AVERAGE_LEVEL = 0.004, 0.001  # of the tests of ranks, and of the data-averaged posterior
LEVELS = np.arange(1, 20) / 20
LIKELIHOOD, DENSITY = f"log p({OBSERVED}|z)", f"log q(z|{OBSERVED})"
SOURCE = "Talts et al. 2018; Säilynoja et al. 2022; Modrák et al. 2023; Kuiper 1960"


def ask_calibration(
    posterior: Posterior, simulations: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Rank the true latents among the guide's draws, on data that the model simulates.

    For :math:`z^*, x^* \sim p(z, x)`, :math:`z^*` is a draw from p(z | x*). If the guide is that
    posterior, then the rank of f(z*, x*) among f(z, x*), z ~ q(z | x*), is uniform for every f
    (Talts et al. 2018). Three kinds of f are ranked: each latent unit; log p(x | z), which alone
    shows a guide that ignores x (Modrák et al. 2023); and log q(z | x), whose ranks are the
    coverage of the guide's regions of highest density. How far ranks are from uniform is Kuiper's
    distance, a total variation; simultaneous bands for their ECDFs (Säilynoja et al. 2022) say
    whether it is more than chance. So is the data-averaged posterior compared with the prior.

    What is material of a unit is so of one unit (:mod:`.materiality`); log p and log q add up what
    is off in all of them, and are judged by the total variation of as many units as are active.

    Arguments:
        posterior: The posterior of some data. Only their shape is used, and their covariates,
            given which data are simulated.
        simulations: Data points M to simulate.
        seed: Seed of simulations and draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``calibration``: ``rank`` (simulation, quantity), ``p_value``, ``distance`` (quantity),
        ``z_score``, ``contraction`` (simulation, unit), ``expected_coverage`` (quantity, level),
        ``average_p_value``, ``average_distance`` (unit), and ``truth`` (simulation, unit).

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
    found = _rank(simulated, drawn.latents, derived_seed(seed, "ranks"), counted)
    units = unit_names(_as_draw(drawn.latents))
    names = [*units, LIKELIHOOD, DENSITY][: found["rank"].shape[1]]
    truth = as_units(_as_draw(drawn.latents))[0].numpy()
    fresh = simulate(program, batch, simulations, derived_seed(seed, "prior")).latents
    prior = as_units(_as_draw(fresh))[0].numpy()
    pairs = list(zip(found["draw"].T, prior.T, strict=True))
    dataset = _dataset(
        {
            "rank": (("simulation", "quantity"), found["rank"]),
            "p_value": ("quantity", [p_value(ranks, DRAWS) for ranks in found["rank"].T]),
            "distance": ("quantity", [distance(ranks, DRAWS) for ranks in found["rank"].T]),
            "expected_coverage": (("quantity", "level"), _coverage(found["rank"], names)),
            "truth": (("simulation", "unit"), truth),
            "z_score": (
                ("simulation", "unit"),
                _ratio(found["mean"] - truth, np.sqrt(found["variance"])),
            ),
            "contraction": (
                ("simulation", "unit"),
                1 - _ratio(found["variance"], np.broadcast_to(prior.var(0), truth.shape)),
            ),
            "average_p_value": ("unit", [ks_2samp(*p, method="asymp").pvalue for p in pairs]),
            "average_distance": ("unit", [sqrt(max(0.0, squared_distance(*p))) for p in pairs]),
        },
        {"quantity": names, "unit": units, "level": LEVELS},
        _active(found["mean"], found["variance"]),
    )
    return DiagnosticResult(_verdict(dataset), {"calibration": dataset})


def _as_draw(latents: Latents) -> Latents:
    """Latents of shape (N, ...) as one draw, of shape (1, N, ...)."""
    return {site: value[None] for site, value in latents.items()}


def _rank(
    simulated: Posterior, latents: Latents, seed: int, progress: Progress
) -> dict[str, np.ndarray]:
    """Ranks of what is true, (M, quantities), and of the guide's draws of each unit their mean,
    their variance and the first of them, (M, U)."""
    with_guide, parts, first = simulated.has_tractable_density, [], 0
    units = len(unit_names(_as_draw(latents)))
    generator = np.random.default_rng(derived_seed(seed, "ties"))
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
            values = torch.cat(columns, dim=-1).cpu().numpy()
            draws = values[1:, :, :units]
            if np.isnan(values).any() or not np.isfinite(values[..., :units]).all():
                raise InputError(
                    "the guide",
                    "has draws or densities that are not finite on data that the model made",
                )
            moments = {"mean": draws.mean(0), "variance": draws.var(0, ddof=1), "draw": draws[0]}
            parts.append({"rank": _ranks(values, generator), **moments})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _active(mean: np.ndarray, variance: np.ndarray) -> int:
    """How many units the guide uses: of which x explains a share of the variance above 0.01.

    The share is of the variance of the guide's own draws, so that no moment of the prior is asked.
    What a guide that ignores x gets wrong is then judged as if it were one unit.
    """
    within = variance.mean(0)
    between = mean.var(0) - within / DRAWS
    return max(1, int((between > ACTIVE * (between + within)).sum()))


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


def _distances(dataset: xarray.Dataset) -> list[Distance]:
    """Those of ranks from uniform, and of averages over data from the prior.

    What is graded down is more than chance, too: with 100 simulations and more, three standard
    errors above 0.1 are a Kuiper's V above 2.7 / sqrt(M), of p-value 2e-5, for ranks, and above
    2.5 / sqrt(M / 2), of 2e-4, for averages.
    """
    units, count = list(dataset["unit"].values), dataset.sizes["simulation"]
    error, found = share_error(count), []
    names = dataset["quantity"].values
    ranked = zip(names, dataset["distance"].values, dataset["p_value"].values, strict=True)
    for name, value, p in ranked:
        chance = p * len(names) >= LEVEL
        single = name in units
        together, kind = (1, "unit") if single else (dataset.attrs["active_units"], "density")
        found.append(Distance(str(name), float(value), error, together, kind, chance))
    error = share_error(count / 2)  # of the difference of two shares
    averages = (dataset[name].values for name in ("average_distance", "average_p_value"))
    for name, value, p in zip(units, *averages, strict=True):
        chance = p * len(units) >= AVERAGE_LEVEL
        found.append(Distance(str(name), float(value), error, 1, "average", chance))
    return found


def _verdict(dataset: xarray.Dataset) -> Verdict:
    found = _distances(dataset)
    shown = most_telling(found)
    average = shown.kind == "average"
    if shown.is_off:
        off = sum(distance.is_off for distance in found)
        meaning = f"{off} of {len(found)} distances are more than matters; {_words(shown, dataset)}"
    elif shown.grade == "cannot say":
        meaning = f"it cannot be told whether what is off matters, of {shown.name} first"
    else:
        meaning = "the true z ranks like one of the guide's draws, as far as matters"
    trifles = [d for d in found if d.grade == "pass" and not d.chance]
    if trifles:
        most = max(trifles, key=lambda d: d.value)
        meaning += (
            f"; {len(trifles)} of {len(found)} distances are more than chance, but less than "
            f"matters, most {most.name} ({most.value:.3f})"
        )
    more = needed(
        shown.value, shown.error, shown.limits[0], dataset.sizes["simulation"], "simulations"
    )
    return Verdict(
        QUESTION,
        shown.grade,
        meaning,
        statistic=f"distance of {shown.name}, averaged over data, from the prior"
        if average
        else f"distance of the ranks of {shown.name} from uniform",
        value=shown.value,
        error=shown.error,
        unit="total variation",
        threshold=shown.threshold,
        source=SOURCE,
        remedy=advice(
            shown.grade,
            "a guide with correlations or a flow; a larger encoder, or longer training; the "
            "objectives iw or dreg if it is too narrow",
            more,
        ),
    )


def _words(shown: Distance, dataset: xarray.Dataset) -> str:
    """What a finding says, in words."""
    if shown.kind == "average":
        return f"the posterior of {shown.name}, averaged over simulated data, is not its prior"
    ranks = dataset["rank"].sel(quantity=shown.name).values
    return f"{shown.name} {_shape(ranks, shown.name)}"


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


def _dataset(arrays: dict, coords: dict, active: int) -> xarray.Dataset:
    meanings = {
        "rank": ("rank of the true value among the guide's draws (Talts et al. 2018)", "1"),
        "p_value": ("p-value of the uniformity of ranks (Säilynoja et al. 2022)", "probability"),
        "distance": ("Kuiper's distance of ranks from uniform, less chance", "total variation"),
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
        "average_distance": (
            "Kuiper's distance of the guide's draws, one for each simulation, from the prior",
            "total variation",
        ),
    }
    variables = {n: variable(dims, values, *meanings[n]) for n, (dims, values) in arrays.items()}
    about = {"draws": DRAWS, "level": LEVEL, "active_units": active}
    return xarray.Dataset(variables, coords, about)
