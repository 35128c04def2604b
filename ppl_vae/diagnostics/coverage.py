"""Do the guide's draws cover the posterior? Pareto k-hat of each data point's weights."""

import math

import numpy as np
import xarray
from torch import Tensor

from ..errors import InputError
from ..evidence.scores import bounds
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.terms import Terms
from ..progress import Progress
from ..storage.arviz_io import LIGHT, draws_needed, is_heavy, pareto_k, pareto_k_threshold
from .verdicts import DiagnosticResult, Verdict, advice, grade, needed, share

QUESTION = "Do the guide's draws cover the posterior?"
CAUTION, FAIL = 0.05, 0.5  # shares of the data
MIN_DATA, MIN_DRAWS = 20, 400  # k-hats of fewer draws are noisier than their threshold is high
SHOWN = 3
LISTED = 1e9  # more draws than anyone takes are not counted
SOURCE = "Yao et al. 2018; Vehtari et al. 2024, threshold min(1 - 1/log10 S, 0.7)"


def ask_coverage(
    posterior: Posterior, draws: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Weigh the guide's draws against the posterior.

    .. math:: \log w_{ns} = \log p(x_n, z_{ns}) - \log q(z_{ns} \mid x_n), \quad z_{ns} \sim q

    If the weights' tail is that of a generalized Pareto distribution of shape k, moments of order
    1/k and above do not exist; above 0.7 no affordable number of draws gives a reliable average.
    k-hat is that of each data point's own weights: weights summed over a batch would measure the
    size of the batch. It counts only where the effective sample size is below 0.9 S: the shape of
    a tail says nothing of weights that are all but equal.

    It detects neither a guide that is too wide, whose weights are bounded, nor a part of the
    posterior that the guide never draws; calibration and NUTS do.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws S from the guide for each data point.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``diagnostics``, per data point: ``k_hat``, ``ess``, ``draws_needed``, ``elbo``,
        ``iw_bound``, their errors.

    Raises:
        InputError: If there are too few data or draws, or there are no weights.
    """
    if len(posterior) < MIN_DATA or draws < MIN_DRAWS:
        raise InputError(
            f"k-hat of {len(posterior)} data points with {draws} draws each",
            "says little",
            f"give at least {MIN_DATA} data points and {MIN_DRAWS} draws",
        )
    posterior.sites.require_density()
    weighing = (progress or Progress()).part(1.0, total=len(posterior) * draws)
    found = posterior.reduce(_weigh, draws, seed, weighing)
    verdict = _verdict(found, draws, posterior.rows.numpy())
    return DiagnosticResult(verdict, {"diagnostics": _dataset(found, draws)})


def _verdict(found: dict[str, Tensor], draws: int, rows: np.ndarray) -> Verdict:
    k_hat = found["k_hat"].numpy()
    heavy = is_heavy(k_hat, found["ess"].numpy(), draws)
    value, error = share(heavy)
    given = grade(value, error, CAUTION, FAIL)
    if given == "cannot say" and value > CAUTION:
        # Of these data it is known, for each k-hat speaks for its own data point; the error says
        # how far other data may differ, and so what may pass.
        given = "caution"
    count = len(heavy)
    meaning = "no datum has a heavy tail of weights that costs more than a tenth of its draws"
    if heavy.any():
        worst = np.argsort(np.where(heavy, -k_hat, np.inf))[: min(SHOWN, int(heavy.sum()))]
        meaning = (
            f"for {int(heavy.sum())} of {count} data the guide draws some part of the posterior so "
            "rarely that importance weights cannot correct for it; k-hat is highest in rows "
            + ", ".join(f"{int(rows[i])} ({_asked(k_hat[i])})" for i in worst)
        )
    return Verdict(
        QUESTION,
        given,
        f"{meaning}; a part that it never draws goes undetected",
        statistic=f"share of data with k-hat above {pareto_k_threshold(draws):.2f} and an "
        f"effective sample size below {LIGHT:g} of {draws} draws",
        value=value,
        error=error,
        unit="share of data",
        threshold=f"caution above {CAUTION:g}, fail above {FAIL:g} by 3 standard errors; pass "
        f"below {CAUTION:g} by as many",
        source=SOURCE,
        remedy=advice(
            given,
            "a guide with correlations or a flow; the objectives iw or dreg, which widen the "
            "guide; for log p(x), annealing",
            needed(value, error, CAUTION, count),
        ),
    )


def _asked(k_hat: float) -> str:
    """A k-hat, and the draws that it asks for."""
    wanted = float(draws_needed(np.array(k_hat)))
    if not math.isfinite(wanted):
        return f"{k_hat:.2f}, and no number of draws is enough"
    if wanted > LISTED:
        return f"{k_hat:.2f}, which asks for more than {LISTED:.0e} draws"
    return f"{k_hat:.2f}, which asks for {math.ceil(wanted):,} draws"


def _weigh(terms: Terms) -> dict[str, Tensor]:
    log_weight = terms.log_weight.double()
    k_hat, ess = pareto_k(log_weight.T.numpy())
    bound = bounds(log_weight)
    return {
        "k_hat": log_weight.new_tensor(k_hat),
        "ess": log_weight.new_tensor(ess),
        "draws_needed": log_weight.new_tensor(draws_needed(k_hat)),
        "elbo": log_weight.mean(0),
        "elbo_error": log_weight.std(0) / len(log_weight) ** 0.5,
        "iw_bound": bound["iw_bound"],
        "iw_error": bound["iw_error"],
    }


def _dataset(found: dict[str, Tensor], draws: int) -> xarray.Dataset:
    meanings = {
        "k_hat": ("Pareto k-hat of the importance weights (Vehtari et al. 2024)", "1"),
        "ess": ("effective sample size of the weights, raw or smoothed, the lesser", "draws"),
        "draws_needed": ("draws that k_hat asks for, 10^(1/(1-k)) (Vehtari et al. 2024)", "draws"),
        "elbo": ("ELBO (Kingma & Welling 2014, eq. 3)", "nats"),
        "elbo_error": ("standard error of elbo, from its draws", "nats"),
        "iw_bound": ("importance-weighted bound (Burda et al. 2015, eq. 8)", "nats"),
        "iw_error": ("standard error of iw_bound, from its draws", "nats"),
    }
    return xarray.Dataset(
        {name: variable("datum", found[name], *about) for name, about in meanings.items()},
        attrs={"draws": draws, "k_hat_threshold": pareto_k_threshold(draws)},
    )
