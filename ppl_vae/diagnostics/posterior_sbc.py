"""Is the guide calibrated around the observed data? Posterior simulation-based calibration."""

import numpy as np
import torch
import xarray

from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import decode
from ..programs.sites import Latents
from ..programs.terms import total
from ..progress import Progress
from ..runtime import derived_seed
from .latents import as_units, unit_names
from .materiality import total_variation
from .uniformity import distance, p_value
from .verdicts import DiagnosticResult, Grade, Verdict, advice, grade, needed

QUESTION = "Is q(z|x) calibrated around the observed data?"
DRAWS = 50  # from q(z|x), among which the one is ranked that made x'
BINS = 100  # the highest rank that a place is counted as
MIN_DATA, PLACES = 20, 1000  # data, and new data made from them, in equal numbers for each
BLIND = 0.5  # mean weight of the true draw above which ranks say little
LIKELIHOOD = "log p(x'|z)"
SOURCE = "Säilynoja et al. 2025; Modrák et al. 2023"


def ask_posterior_sbc(
    posterior: Posterior, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Rank draws of q(z | x) that made new data x', given the observed data and the new ones.

    Calibration of data from the prior may hold where no observed data are. Here z' is drawn from
    q(z | x) and x' from p(x' | z'), so that x' lies around the observed x; z' is then a draw from
    what is proportional to q(z | x) p(x' | z), the posterior of x' under the prior q(z | x)
    (Säilynoja et al. 2025). If q(z | x') is the model's posterior of x' under p(z), then

    .. math:: q(z \mid x)\, p(x' \mid z) \propto q(z \mid x)\, q(z \mid x') / p(z)

    so that no second guide is needed. With :math:`z_0 = z'` and S further draws of q(z | x), which
    one it was that made x' has the probabilities :math:`W_i \propto q(z_i | x') / p(z_i)`; hence

    .. math:: u = \sum_i W_i 1[f(z_i) < f(z')] + v \sum_i W_i 1[f(z_i) = f(z')],
        \quad v \sim U(0, 1)

    is uniform for every f and every S, without an approximation. It is so whether or not q(z | x)
    is the posterior of the observed x: what is judged is q(z | x') for data like them. Each latent
    unit is ranked, and log p(x' | z).

    Where z' alone has most of the weight, in many units, u is v and says nothing: then nothing
    passes.

    Arguments:
        posterior: The posterior of N observed data points.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``posterior_sbc``: ``place`` (replication, quantity), ``weight``, ``source`` (replication),
        ``p_value``, ``distance`` (quantity).

    Raises:
        InputError: If there are too few data, the guide cannot tell its density at given z, or a
            density is not finite.
    """
    if len(posterior) < MIN_DATA:
        raise InputError(
            f"ranks of {len(posterior)} data points", "say little", f"give at least {MIN_DATA}"
        )
    posterior.sites.require_tractable_density()
    # Places of new data from the same datum are independent too.
    index = torch.arange(len(posterior)).repeat(-(-PLACES // len(posterior)))
    repeated = posterior[index]
    latents = repeated.draw(DRAWS + 1, derived_seed(seed, "draws"))
    batch = repeated.batch
    made = decode(
        posterior.program,
        {site: values[0] for site, values in latents.items()},
        batch.x.shape[1:],
        len(repeated),
        derived_seed(seed, "replications"),
        batch.covariates,
    )
    replicated = Posterior(posterior.program, made.batch)
    counted = (progress or Progress()).part(1.0, total=len(repeated) * (DRAWS + 1))
    values, weights = _weigh(replicated, latents, derived_seed(seed, "scores"), counted)
    generator = np.random.default_rng(derived_seed(seed, "ties"))
    names = [*unit_names(latents), LIKELIHOOD]
    dataset = _dataset(weighted_places(values, weights, generator), weights[0], names)
    dataset["source"] = variable("replication", index, "data point that it was made around")
    return DiagnosticResult(_verdict(dataset), {"posterior_sbc": dataset})


def weighted_places(
    values: np.ndarray, weights: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """The place of the first row among all, by weight, ties broken at random.

    Arguments:
        values: Of shape (1 + S, N, Q).
        weights: Of shape (1 + S, N), which add up to one over draws.
        generator: For ties.

    Returns:
        Places between 0 and 1, of shape (N, Q).

    Example:
        >>> values = np.array([2.0, 1.0, 3.0])[:, None, None]
        >>> weights = np.array([0.0, 0.75, 0.25])[:, None]
        >>> weighted_places(values, weights, np.random.default_rng(0))
        array([[0.75]])
    """
    below = np.einsum("sn,snq->nq", weights, (values < values[0]).astype(float))
    tied = np.einsum("sn,snq->nq", weights, (values == values[0]).astype(float))
    return below + generator.random(below.shape) * tied


def _weigh(
    replicated: Posterior, latents: Latents, seed: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """What is ranked, (1 + S, N, quantities), and the normalized weights, (1 + S, N)."""
    values, weights, first = [], [], 0
    with replicated.evaluation_mode(seed):
        for part in replicated.blocks(DRAWS + 1, progress):
            rows = slice(first, first + len(part))
            first = rows.stop
            given = {s: v[:, rows].to(replicated.device) for s, v in latents.items()}
            terms = part.score(given)
            ratio = total(terms.guide).double() - total(terms.prior).double()
            likelihood = terms.reconstruction[..., None].double()
            values.append(torch.cat([as_units(given), likelihood], dim=-1).cpu())
            # Outside their support some distributions have a density of NaN.
            weights.append(ratio.nan_to_num(nan=-torch.inf).softmax(0).cpu())
    together, normalized = torch.cat(values, dim=1), torch.cat(weights, dim=1)
    if together.isnan().any() or not normalized.isfinite().all():
        raise InputError(
            "the guide", "has densities that are not finite on data that the model made"
        )
    return together.numpy(), normalized.numpy()


def _dataset(places: np.ndarray, weight: np.ndarray, names: list[str]) -> xarray.Dataset:
    ranks = np.minimum((places * (BINS + 1)).astype(int), BINS)
    columns, unit = range(len(names)), "probability"
    p_values = np.array([p_value(ranks[:, i], BINS) for i in columns])
    distances = np.array([distance(ranks[:, i], BINS) for i in columns])
    meanings = {
        "place": (("replication", "quantity"), places, "place of z' among draws of q(z|x)"),
        "weight": ("replication", weight, "weight of z' among them"),
        "p_value": ("quantity", p_values, "p-value of uniform places (Säilynoja et al. 2022)"),
        "distance": ("quantity", distances, "distance of places from uniform (Kuiper 1960)"),
    }
    arrays = {name: variable(*about, unit) for name, about in meanings.items()}
    return xarray.Dataset(arrays, {"quantity": names}, {"draws": DRAWS, "bins": BINS})


def _verdict(dataset: xarray.Dataset) -> Verdict:
    apart, p = dataset["distance"].values, dataset["p_value"].values
    count, units = dataset.sizes["replication"], len(apart) - 1
    error = 0.5 / count**0.5
    one, all_units = total_variation(), total_variation(max(1, units))
    limits = [one] * units + [all_units]  # the likelihood adds up all units
    at = int(np.argmax([d / caution for d, (caution, _) in zip(apart, limits, strict=True)]))
    caution, fail = limits[at]
    value, name = float(apart[at]), str(dataset["quantity"].values[at])
    given: Grade = grade(value, error, caution, fail)
    weight = float(dataset["weight"].values.mean())
    more = needed(value, error, caution, count)
    meaning = (
        "draws that made new data like the observed ones rank like any other, as far as chance "
        "lets one see"
    )
    if given in ("caution", "fail") or (given == "cannot say" and weight <= BLIND):
        meaning = f"the places of {name} are {value:.2f} from uniform (p = {p[at]:.2g})"
    elif weight > BLIND:
        given, more = "cannot say", "fewer units, or gaps and reference, which ask of each datum"
        meaning = (
            f"the draw that made new data has {weight:.0%} of the weight, so that its place among "
            "the others says little"
        )
    if name != LIKELIHOOD and given in ("caution", "fail"):
        place = dataset["place"].values[:, at]
        side = "low" if place.mean() > 0.5 else "high"
        shifted = abs(place.mean() - 0.5) > 4 * (1 / 12 / count) ** 0.5
        wrong = f"biased {side}" if shifted else "too narrow or too wide"
        meaning += f": around the observed data the guide is {wrong}"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic=f"largest distance of places from uniform, {name}",
        value=value,
        error=error,
        unit="probability",
        threshold=f"caution above {caution:.2g}, fail above {fail:.2g}, by 3 standard errors: the "
        "total variation of means that are off by a quarter or half a standard deviation",
        source=SOURCE,
        remedy=advice(
            given,
            "train the guide longer, or a larger one; more data like the observed; a guide with "
            "correlations or a flow",
            more,
        ),
    )
