"""What would exact inference have said? Pyro's NUTS beside the guide, data point by data point."""

import math

import numpy as np
import torch
import xarray

from ..errors import InputError
from ..inference.nuts import DRAWS, WARMUP, sample_posterior
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.scoring import rows_at_once
from ..programs.sites import Latents
from ..progress import Progress
from ..runtime import derived_seed
from .arviz_io import CONSTANT, chain_statistics
from .latents import as_units, unit_names
from .verdicts import DiagnosticResult, Grade, Verdict, advice, grade

QUESTION = "What would exact inference have said?"
MAX_R_HAT, MIN_ESS = 1.05, 100.0
FAIL = 0.75
SOURCE = "Hoffman & Gelman 2014; Vehtari et al. 2021; Lopez-Paz & Oquab 2017"


def ask_reference(
    posterior: Posterior, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Compare the guide with NUTS (Hoffman & Gelman 2014) on some of the data.

    For each data point and unit: the error of the guide's mean in posterior standard deviations,
    and the ratio of standard deviations, with their Monte Carlo errors. For each data point: the
    accuracy of a classifier that tells the guide's draws from NUTS's (C2ST, Lopez-Paz & Oquab
    2017), 0.5 where it cannot. The best classifier is a threshold on :math:`\log q(z|x) -
    \log p(z|x)`, which is known up to a constant: hence logistic regression on the log weight. Data
    points whose chains have not mixed are left out.

    Arguments:
        posterior: The posterior of a few data points, for this is the costly question.
        seed: Seed of chains and draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``nuts``: ``z`` and the guide's draws, ``guide`` (chain, draw, datum, unit), ``r_hat``,
        ``ess``, ``mean_error``, ``scale_ratio`` and their errors (datum, unit), ``c2st``, the draws
        that it was ``tested`` on, and ``mixed`` (datum).

    Raises:
        InputError: If a latent site is discrete, the guide is a point mass, or no chain mixed.
    """
    posterior.sites.require_density()
    exact = sample_posterior(posterior, derived_seed(seed, "NUTS"), progress)
    return compare_with(posterior, exact, seed)


def compare_with(posterior: Posterior, exact: Latents, seed: int) -> DiagnosticResult:
    r"""Compare the guide with draws from p(z | x); see :func:`ask_reference`.

    Arguments:
        posterior: The posterior of N data points.
        exact: Draws from p(z | x) by site, of shape (draws, chains, N, \*event shape).
        seed: Seed of the guide's draws.

    Raises:
        InputError: If no chain mixed.
    """
    sites = posterior.sites.prior
    draw_count, chain_count = next(iter(exact.values())).shape[:2]
    # Chain after chain: thinning then keeps neighbours apart, and each half has its own chains.
    flat = {site: exact[site].transpose(0, 1).flatten(0, 1) for site in sites}
    with posterior.evaluation_mode(derived_seed(seed, "beside NUTS")):
        drawn = posterior.sample(draw_count * chain_count)
        features = _features(posterior, flat, drawn)
    z, q = as_units(flat).cpu().numpy(), as_units(drawn).cpu().numpy()
    z_chains, q_chains, feature_chains = (
        values.reshape(chain_count, draw_count, *values.shape[1:]) for values in (z, q, features[0])
    )
    statistics = chain_statistics(z_chains)
    feature_ess = chain_statistics(feature_chains)["ess_mean"].min(1)
    mixed = (statistics["r_hat"].max(1) < MAX_R_HAT) & (statistics["ess_mean"].min(1) > MIN_ESS)
    if not mixed.any():
        raise InputError(
            "NUTS",
            f"did not mix within {WARMUP} + {DRAWS} steps (R-hat up to "
            f"{statistics['r_hat'].max():.2f}), so its draws cannot serve as a reference",
        )
    scores = [
        _c2st(features[0][:, n], features[1][:, n], feature_ess[n]) for n in range(len(mixed))
    ]
    accuracy, tested = np.array(scores).T
    summary = _moments(z, q, statistics)
    error = 0.5 / math.sqrt(float(tested[mixed].sum()))
    value = float(np.average(accuracy[mixed], weights=tested[mixed]))
    dataset = _dataset(
        {
            "z": (("chain", "draw", "datum", "unit"), z_chains.astype(np.float32)),
            "guide": (("chain", "draw", "datum", "unit"), q_chains.astype(np.float32)),
            "r_hat": (("datum", "unit"), statistics["r_hat"]),
            "ess": (("datum", "unit"), statistics["ess_mean"]),
            **{name: (("datum", "unit"), values) for name, values in summary.items()},
            "c2st": ("datum", accuracy),
            "tested": ("datum", tested),
            "mixed": ("datum", mixed),
        },
        unit_names(flat),
    )
    return DiagnosticResult(_verdict(value, error, mixed, summary), {"nuts": dataset})


def _features(
    posterior: Posterior, exact: Latents, drawn: Latents
) -> tuple[np.ndarray, np.ndarray]:
    """What draws are classified by, of shape (S, N, features): the log weight, or z and z²."""
    found = []
    step = max(1, rows_at_once(posterior.program, posterior.batch.x) // len(posterior))
    for latents in (exact, drawn):
        if posterior.has_tractable_density:
            count = len(next(iter(latents.values())))
            parts = [
                {site: value[first : first + step] for site, value in latents.items()}
                for first in range(0, count, step)
            ]
            log_weight = [posterior.score(part).log_weight for part in parts]
            values = torch.cat(log_weight)[..., None]
        else:
            units = as_units(latents)
            values = torch.cat([units, units.square()], dim=-1)
        found.append(values.double().cpu().numpy())
    # A draw of NUTS that the guide could not have drawn has an infinite weight.
    finite = [values[np.isfinite(values)] for values in found if np.isfinite(values).any()]
    if not finite or any(np.isnan(values).any() for values in found):
        raise InputError("NUTS", "made draws whose log weights are not numbers")
    low, high = min(v.min() for v in finite) - 10, max(v.max() for v in finite) + 10
    return found[0].clip(low, high), found[1].clip(low, high)


def _c2st(exact: np.ndarray, drawn: np.ndarray, ess: float) -> tuple[float, float]:
    """Accuracy of a classifier on draws that it has not seen, and the number of those.

    NUTS's draws are thinned to their effective number, and the guide's cut to as many.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if np.ptp(np.concatenate([exact, drawn]), axis=0).max() < CONSTANT:
        return 0.5, float(len(exact))  # all weights are equal: the guide is the posterior
    exact = exact[:: max(1, math.ceil(len(exact) / max(ess, 2.0)))]
    drawn = drawn[: len(exact)]
    half = len(exact) // 2
    train = np.concatenate([exact[:half], drawn[:half]])
    test = np.concatenate([exact[half:], drawn[half:]])
    labels = [np.repeat([1, 0], count) for count in (half, len(exact) - half)]
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, labels[0])
    return float(classifier.score(test, labels[1])), float(len(test))


def _moments(
    z: np.ndarray, q: np.ndarray, statistics: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Errors of the guide's means and scales, each of shape (N, U)."""
    scale, guide_scale = z.std(0, ddof=1), q.std(0, ddof=1)
    ratio = guide_scale / scale
    return {
        "mean_error": (q.mean(0) - z.mean(0)) / scale,
        "mean_error_stderr": np.sqrt(1 / statistics["ess_mean"] + ratio**2 / len(q)),
        "scale_ratio": ratio,
        # The delta method, for normals: Var log s = 1 / (2 n).
        "scale_ratio_stderr": ratio * np.sqrt(0.5 / statistics["ess_sd"] + 0.5 / len(q)),
    }


def _verdict(
    value: float, error: float, mixed: np.ndarray, summary: dict[str, np.ndarray]
) -> Verdict:
    given: Grade = grade(value, error, 0.5, FAIL)
    if mixed.mean() < 0.5:
        given = "cannot say"
    elif given == "pass" and not mixed.all():
        given = "caution"  # posteriors that do not mix are those that are hard to approximate
    off = float(np.sqrt(np.mean(summary["mean_error"][mixed] ** 2)))
    ratio = float(np.exp(np.mean(np.log(summary["scale_ratio"][mixed]))))
    meaning = (
        f"a classifier tells the guide's draws from NUTS's in {value:.0%} of cases; its means are "
        f"off by {off:.2f} posterior standard deviations (root mean square), its standard "
        f"deviations are {ratio:.2f} times the posterior's (geometric mean)"
    )
    if not mixed.all():
        meaning += f"; the chains of {int((~mixed).sum())} of {len(mixed)} data did not mix"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic="C2ST accuracy between guide and NUTS",
        value=value,
        error=error,
        unit="share of draws",
        threshold=f"caution above 0.5, fail above {FAIL:g}, by 3 standard errors",
        source=SOURCE,
        remedy=advice(
            given,
            "take posterior means and standard deviations from NUTS; else a guide with "
            "correlations or a flow",
        ),
    )


def _dataset(arrays: dict, units: list[str]) -> xarray.Dataset:
    meanings = {
        "z": ("draws from p(z|x) by NUTS (Hoffman & Gelman 2014)", "units of z"),
        "guide": ("draws from q(z|x)", "units of z"),
        "r_hat": ("split rank-normalized R-hat of NUTS (Vehtari et al. 2021)", "1"),
        "ess": ("effective sample size of NUTS's mean (Vehtari et al. 2021)", "draws"),
        "mean_error": ("(mean of q - mean of p) / sd of p", "posterior standard deviations"),
        "mean_error_stderr": ("standard error of mean_error", "posterior standard deviations"),
        "scale_ratio": ("sd of q / sd of p", "1"),
        "scale_ratio_stderr": ("standard error of scale_ratio", "1"),
        "c2st": ("accuracy of a classifier between q and NUTS (Lopez-Paz & Oquab 2017)", "1"),
        "tested": ("draws that c2st was tested on", "draws"),
        "mixed": ("whether the chains mixed", "1"),
    }
    variables = {n: variable(dims, values, *meanings[n]) for n, (dims, values) in arrays.items()}
    return xarray.Dataset(variables, {"unit": units}, {"warmup": WARMUP})
