"""Do the guide's draws cover the posterior? Pareto k-hat of each data point's weights."""

import xarray
from torch import Tensor

from ..errors import InputError
from ..evidence.scores import bounds
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.terms import Terms
from ..progress import Progress
from .arviz_io import pareto_k, pareto_k_threshold
from .verdicts import DiagnosticResult, Verdict, advice, grade, share

QUESTION = "Do the guide's draws cover the posterior?"
CAUTION, FAIL = 0.05, 0.5  # shares of the data
MIN_DATA, MIN_DRAWS = 20, 400  # k-hats of fewer draws are noisier than their threshold is high
SHOWN = 3
SOURCE = "Yao et al. 2018; Vehtari et al. 2024, threshold min(1 - 1/log10 S, 0.7)"


def ask_coverage(
    posterior: Posterior, draws: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Weigh the guide's draws against the posterior.

    .. math:: \log w_{ns} = \log p(x_n, z_{ns}) - \log q(z_{ns} \mid x_n), \quad z_{ns} \sim q

    If the weights' tail is that of a generalized Pareto distribution of shape k, moments of order
    1/k and above do not exist; above 0.7 no affordable number of draws gives a reliable average.
    k-hat is that of each data point's own weights: weights summed over a batch would measure the
    size of the batch.

    It detects neither a guide that is too wide, whose weights are bounded, nor a part of the
    posterior that the guide never draws; calibration and NUTS do.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws S from the guide for each data point.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``diagnostics``, per data point: ``k_hat``, ``ess``, ``elbo``, ``iw_bound``, their errors.

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
    threshold = pareto_k_threshold(draws)
    k_hat = found["k_hat"]
    bad = k_hat > threshold
    value, error = share(bad.numpy())
    worst = k_hat.argsort(descending=True)[:SHOWN]
    listed = ", ".join(f"{int(posterior.rows[i])} ({k_hat[i]:.2f})" for i in worst)
    given = grade(value, error, CAUTION, FAIL)
    if given == "pass" and value > CAUTION:
        given = "caution"  # each k-hat speaks for its own data point, however few there are
    verdict = Verdict(
        QUESTION,
        given,
        f"for {value:.0%} of the data the guide draws some part of the posterior so rarely that "
        f"importance weights cannot correct for it; a part that it never draws goes undetected; "
        f"k-hat is highest in rows {listed}",
        statistic=f"share of data with k-hat above {threshold:.2f}",
        value=value,
        error=error,
        unit="share of data",
        threshold=f"caution above {CAUTION:g}, fail above {FAIL:g} by 3 standard errors",
        source=SOURCE,
        remedy=advice(
            given,
            "a guide with correlations or a flow; the objectives iw or dreg, which widen the "
            "guide; for log p(x), annealing",
        ),
    )
    return DiagnosticResult(verdict, {"diagnostics": _dataset(found, draws, threshold)})


def _weigh(terms: Terms) -> dict[str, Tensor]:
    log_weight = terms.log_weight.double()
    k_hat, ess = pareto_k(log_weight.T.numpy())
    bound = bounds(log_weight)
    return {
        "k_hat": log_weight.new_tensor(k_hat),
        "ess": log_weight.new_tensor(ess),
        "elbo": log_weight.mean(0),
        "elbo_error": log_weight.std(0) / len(log_weight) ** 0.5,
        "iw_bound": bound["iw_bound"],
        "iw_error": bound["iw_error"],
    }


def _dataset(found: dict[str, Tensor], draws: int, threshold: float) -> xarray.Dataset:
    meanings = {
        "k_hat": ("Pareto k-hat of the importance weights (Vehtari et al. 2024)", "1"),
        "ess": ("effective sample size of the smoothed weights", "draws"),
        "elbo": ("ELBO (Kingma & Welling 2014, eq. 3)", "nats"),
        "elbo_error": ("standard error of elbo, from its draws", "nats"),
        "iw_bound": ("importance-weighted bound (Burda et al. 2015, eq. 8)", "nats"),
        "iw_error": ("standard error of iw_bound, from its draws", "nats"),
    }
    return xarray.Dataset(
        {name: variable("datum", found[name], *about) for name, about in meanings.items()},
        attrs={"draws": draws, "k_hat_threshold": threshold},
    )
