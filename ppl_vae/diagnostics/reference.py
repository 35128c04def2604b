"""What would exact inference have said? Pyro's NUTS beside the guide, data point by data point."""

import math

import numpy as np
import torch
import xarray

from ..errors import InputError
from ..inference import nuts
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.scoring import rows_at_once
from ..programs.sites import Latents
from ..progress import Progress
from ..runtime import derived_seed
from ..storage.arviz_io import CONSTANT, chain_statistics
from .distances import Distance, most_telling
from .latents import as_units, unit_names
from .uniformity import squared_distance
from .verdicts import DiagnosticResult, Verdict, advice, needed

QUESTION = "What would exact inference have said?"
SOURCE = "Hoffman & Gelman 2014; Vehtari et al. 2021; Lopez-Paz & Oquab 2017; Kuiper 1960"


def ask_reference(
    posterior: Posterior, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Compare the guide with NUTS (Hoffman & Gelman 2014) on some of the data.

    For each data point and unit: the error of the guide's mean in posterior standard deviations,
    the ratio of standard deviations, and the total variation between guide and NUTS, with their
    Monte Carlo errors. For each data point: the accuracy of a classifier that tells the guide's
    draws from NUTS's (C2ST, Lopez-Paz & Oquab 2017), 0.5 where it cannot. The best classifier is a
    threshold on :math:`\log q(z|x) - \log p(z|x)`, which is known up to a constant: hence logistic
    regression on the log weight. Its accuracy is (1 + TV) / 2, where TV is the total variation.
    Data points whose chains have not mixed are left out.

    The total variation of all L units is judged as that of L units, which the same error in each
    of them makes (:mod:`.materiality`), and each unit, over the data, as one: so that one of two
    modes that is missed, of which TV is 1/2, fails however many units there are beside it.

    Arguments:
        posterior: The posterior of a few data points, for this is the costly question.
        seed: Seed of chains and draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``nuts``: ``z`` and the guide's draws, ``guide`` (chain, draw, datum, unit), ``r_hat``,
        ``ess``, ``ess_bulk``, ``ess_tail``, ``mean_error``, ``scale_ratio`` and their errors, and
        ``squared_distance`` (datum, unit), ``c2st``, the draws that it was ``tested`` on, and
        ``mixed`` (datum).

    Raises:
        InputError: If a latent site is discrete, the guide is a point mass, or no chain mixed.
    """
    posterior.sites.require_density()
    exact = nuts.sample_posterior(posterior, derived_seed(seed, "NUTS"), progress)
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
    effective = np.minimum(statistics["ess_bulk"], statistics["ess_tail"])
    mixed = nuts.mixed(statistics["r_hat"].max(1), effective.min(1))
    if not mixed.any():
        raise InputError(
            "NUTS",
            f"did not mix within {nuts.WARMUP} + {draw_count} steps (R-hat up to "
            f"{statistics['r_hat'].max():.2f}, effective draws from {effective.min():.0f}), so "
            "its draws cannot serve as a reference",
        )
    scores = [
        _c2st(features[0][:, n], features[1][:, n], feature_ess[n]) for n in range(len(mixed))
    ]
    accuracy, tested = np.array(scores).T
    worth = effective.clip(max=len(z))  # draws that are better than independent count once
    summary = {**_moments(z, q, statistics), "squared_distance": _squared_distances(z, q, worth)}
    names = unit_names(flat)
    distances = [
        *_unit_distances(summary["squared_distance"][mixed], worth[mixed], len(q), names),
        _joint_distance(accuracy[mixed], tested[mixed], len(names)),
    ]
    dataset = _dataset(
        {
            "z": (("chain", "draw", "datum", "unit"), z_chains.astype(np.float32)),
            "guide": (("chain", "draw", "datum", "unit"), q_chains.astype(np.float32)),
            "r_hat": (("datum", "unit"), statistics["r_hat"]),
            "ess": (("datum", "unit"), statistics["ess_mean"]),
            "ess_bulk": (("datum", "unit"), statistics["ess_bulk"]),
            "ess_tail": (("datum", "unit"), statistics["ess_tail"]),
            **{name: (("datum", "unit"), values) for name, values in summary.items()},
            "c2st": ("datum", accuracy),
            "tested": ("datum", tested),
            "mixed": ("datum", mixed),
        },
        names,
    )
    verdict = _verdict(distances, mixed, summary, posterior.rows.numpy())
    return DiagnosticResult(verdict, {"nuts": dataset})


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


def _squared_distances(z: np.ndarray, q: np.ndarray, worth: np.ndarray) -> np.ndarray:
    """Squared total variations between guide and NUTS, less what chance adds, of shape (N, U)."""
    found = [
        squared_distance(z[:, n, u], q[:, n, u], (float(worth[n, u]), len(q)))
        for n, u in np.ndindex(worth.shape)
    ]
    return np.reshape(found, worth.shape)


def _unit_distances(
    squared: np.ndarray, worth: np.ndarray, draws: int, names: list[str]
) -> list[Distance]:
    """The total variation of each unit, root mean square over the data.

    The errors are those of shares, and of independent data. Squares, since what chance adds to
    them is known; and so that a datum that is far off weighs more than many that are a little.
    """
    values = np.sqrt(squared.mean(0).clip(min=0))
    errors = np.sqrt((0.25 / worth + 0.25 / draws).mean(0) / len(worth))
    return [Distance(*of) for of in zip(names, values.tolist(), errors.tolist(), strict=True)]


def _joint_distance(accuracy: np.ndarray, tested: np.ndarray, units: int) -> Distance:
    """The total variation of all units together, 2 accuracy - 1 of the classifier."""
    value = 2 * float(np.average(accuracy, weights=tested)) - 1
    return Distance("all units", value, 1 / math.sqrt(float(tested.sum())), units, "joint")


def _verdict(
    distances: list[Distance],
    mixed: np.ndarray,
    summary: dict[str, np.ndarray],
    rows: np.ndarray,
) -> Verdict:
    shown, joint = most_telling(distances), distances[-1]
    given = shown.grade
    more = needed(shown.value, shown.error, shown.limits[0], int(mixed.sum()))
    if mixed.mean() < 0.5 or (given == "pass" and not mixed.all()):
        # Posteriors on which NUTS does not mix are those that are hard to approximate.
        given, more = "cannot say", "other data, or another sampler, for those that did not mix"
    off = float(np.sqrt(np.mean(summary["mean_error"][mixed] ** 2)))
    ratio = float(np.exp(np.mean(np.log(summary["scale_ratio"][mixed]))))
    furthest = np.where(mixed[:, None], summary["squared_distance"], -np.inf).max(1).argmax()
    meaning = (
        f"a classifier tells the guide's draws from NUTS's in {(1 + joint.value) / 2:.0%} of "
        f"cases; its means are off by {off:.2f} posterior standard deviations (root mean square), "
        f"its standard deviations are {ratio:.2f} times the posterior's (geometric mean)"
    )
    if shown.is_off:
        meaning += f"; {shown.name} is off most, and row {int(rows[furthest])} of the data"
    if not mixed.all():
        meaning += f"; the chains of {int((~mixed).sum())} of {len(mixed)} data did not mix"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic=f"distance between guide and NUTS, {shown.name}",
        value=shown.value,
        error=shown.error,
        unit="total variation",
        threshold=shown.threshold,
        source=SOURCE,
        remedy=advice(
            given,
            "take posterior means and standard deviations from NUTS; else a guide with "
            "correlations or a flow",
            more,
        ),
    )


def _dataset(arrays: dict, units: list[str]) -> xarray.Dataset:
    meanings = {
        "z": ("draws from p(z|x) by NUTS (Hoffman & Gelman 2014)", "units of z"),
        "guide": ("draws from q(z|x)", "units of z"),
        "r_hat": ("split rank-normalized R-hat of NUTS (Vehtari et al. 2021)", "1"),
        "ess": ("effective sample size of NUTS's mean (Vehtari et al. 2021)", "draws"),
        "ess_bulk": ("bulk effective sample size of NUTS (Vehtari et al. 2021)", "draws"),
        "ess_tail": ("tail effective sample size of NUTS (Vehtari et al. 2021)", "draws"),
        "squared_distance": (
            "squared total variation between q and NUTS, less what chance adds (Kuiper 1960)",
            "1",
        ),
        "mean_error": ("(mean of q - mean of p) / sd of p", "posterior standard deviations"),
        "mean_error_stderr": ("standard error of mean_error", "posterior standard deviations"),
        "scale_ratio": ("sd of q / sd of p", "1"),
        "scale_ratio_stderr": ("standard error of scale_ratio", "1"),
        "c2st": ("accuracy of a classifier between q and NUTS (Lopez-Paz & Oquab 2017)", "1"),
        "tested": ("draws that c2st was tested on", "draws"),
        "mixed": ("whether the chains mixed", "1"),
    }
    variables = {n: variable(dims, values, *meanings[n]) for n, (dims, values) in arrays.items()}
    return xarray.Dataset(variables, {"unit": units}, {"warmup": nuts.WARMUP})
