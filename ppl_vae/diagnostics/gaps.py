"""Where does the gap to log p(x) come from? The guide's family, or one network for all data."""

import torch
import xarray
from torch import Tensor

from ..errors import InputError
from ..evidence.scores import Estimate, bounds
from ..inference.refine import refine
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.scoring import rows_at_once
from ..progress import Progress
from ..runtime import derived_seed
from .arviz_io import pareto_k, pareto_k_threshold
from .latents import ACTIVE, activity, moments, prior_variance
from .verdicts import DiagnosticResult, Grade, Verdict, Z, advice, grade

QUESTION = "Where does the gap to log p(x) come from?"
STEPS, RATE, STEP_DRAWS = 300, 0.1, 8
STEP_COST = 3 * STEP_DRAWS  # in runs of the model for one draw of one datum
MOMENT_DRAWS = 100
MIN_DATA, MIN_DRAWS = 10, 100
CAUTION, FAIL = 1 / 32, 1 / 8  # nats for each active unit
SOME, MOST = 0.05, 0.5  # shares of data whose evidence is uncertain
SOURCE = "Cremer et al. 2018"


def ask_gaps(
    posterior: Posterior, draws: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Split KL(q(z|x) || p(z|x)) into what the family costs and what the network costs.

    .. math::
        \log p(x) - F(q) = \underbrace{\log p(x) - F(q^*_x)}_{\text{approximation gap}}
        + \underbrace{F(q^*_x) - F(q)}_{\text{amortization gap}}

    where :math:`q^*_x` is the best guide of the same family for that data point alone (Cremer et
    al. 2018, eq. 7); see :func:`ppl_vae.inference.refine.refine`. For log p(x) stands the
    importance-weighted bound of draws from that guide. Where the k-hat of its weights is high, the
    bound is loose, and the gap is larger than reported.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws for each data point, from either guide, to estimate the three terms.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``gaps``, per data point: ``iw_bound``, ``refined_elbo``, ``elbo``, their standard errors,
        the two gaps, and ``k_hat`` of the evidence's weights.

    Raises:
        InputError: If there are too few data or draws, or the guide cannot be differentiated.
    """
    if len(posterior) < MIN_DATA or draws < MIN_DRAWS:
        raise InputError(
            f"the gaps of {len(posterior)} data points by {draws} draws",
            "are too noisy",
            f"give at least {MIN_DATA} data points and {MIN_DRAWS} draws",
        )
    posterior.sites.require_tractable_density()
    _require_paths(posterior)
    work = len(posterior) * (STEPS * STEP_COST + 2 * draws)
    counted = (progress or Progress()).part(1.0, total=work)
    parts = [
        _decompose(part, draws, derived_seed(seed, f"gaps {index}"), counted)
        for index, part in enumerate(posterior.blocks(STEP_DRAWS))
    ]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    seed = derived_seed(seed, "activity")
    prior = prior_variance(posterior, seed)
    active = activity(*moments(posterior, MOMENT_DRAWS, seed), MOMENT_DRAWS, prior) > ACTIVE
    units = max(1, int(active.sum()))
    verdict = _verdict(found, units, pareto_k_threshold(draws))
    return DiagnosticResult(verdict, {"gaps": _dataset(found, units, draws)})


def _require_paths(posterior: Posterior) -> None:
    for site, q in posterior.sites.guide.items():
        if not q.has_rsample:
            raise InputError(
                f"the guide's site {site!r}",
                "cannot be reparameterized, so the guide cannot be refined by gradients",
            )


def _decompose(
    posterior: Posterior, draws: int, seed: int, progress: Progress
) -> dict[str, Tensor]:
    refining = progress.part(len(posterior) * STEPS * STEP_COST)
    refined = refine(posterior, STEPS, RATE, STEP_DRAWS, derived_seed(seed, "refine"), refining)
    best = _log_weight(refined, draws, derived_seed(seed, "refined"), progress)
    ours = _log_weight(posterior, draws, derived_seed(seed, "amortized"), progress)
    # Where the optimization diverged, the better guide is the one that it started from.
    error = ((best.var(0) + ours.var(0)) / draws).sqrt()
    best = torch.where(best.mean(0) - ours.mean(0) < -Z * error, ours, best)
    evidence = bounds(best)
    k_hat, _ = pareto_k(best.T.numpy())
    return {
        "iw_bound": evidence["iw_bound"],
        "iw_error": evidence["iw_error"],
        "refined_elbo": best.mean(0),
        "refined_elbo_error": best.std(0) / draws**0.5,
        "elbo": ours.mean(0),
        "elbo_error": ours.std(0) / draws**0.5,
        "approximation_gap": evidence["iw_bound"] - best.mean(0),
        "amortization_gap": best.mean(0) - ours.mean(0),
        "k_hat": torch.as_tensor(k_hat),
    }


def _log_weight(posterior: Posterior, draws: int, seed: int, progress: Progress) -> Tensor:
    """Log weights of shape (S, N); all N at once, since a refined guide cannot be split."""
    step = max(1, rows_at_once(posterior.program, posterior.batch.x) // len(posterior))
    parts = []
    for first in range(0, draws, step):
        count = min(step, draws - first)
        terms = posterior.terms(count, derived_seed(seed, f"from {first}"))
        parts.append(terms.log_weight.double())
        progress.advance(count * len(posterior))
    return torch.cat(parts)


def _verdict(found: dict[str, Tensor], units: int, threshold: float) -> Verdict:
    gap = Estimate.of(found["approximation_gap"] + found["amortization_gap"])
    family, network = (
        Estimate.of(found[f"{name}_gap"]).mean for name in ("approximation", "amortization")
    )
    given: Grade = grade(gap.mean, gap.stderr, CAUTION * units, FAIL * units)
    loose = float((found["k_hat"] > threshold).double().mean())
    meaning = (
        f"log p(x) is {gap.mean:.2f} nats above the ELBO: {family:.2f} because the guide's family "
        f"is too small (approximation), {network:.2f} because one network serves all data "
        "(amortization)"
    )
    if loose > SOME:
        meaning += f"; for {loose:.0%} of the data the bound on log p(x) is loose, the gap larger"
    wider = "a guide with correlations or a flow, or the objective iw with more draws"
    trained = "a wider encoder, or longer training"
    remedy = advice(given, wider if family > network else trained)
    if given == "pass" and loose > MOST:
        given, remedy = "cannot say", "bound log p(x) by annealing, which does not use the guide"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic="log p(x) - ELBO",
        value=gap.mean,
        error=gap.stderr,
        unit="nats per datum",
        threshold=f"caution above {CAUTION * units:.2g}, fail above {FAIL * units:.2g}, by 3 "
        f"standard errors: {CAUTION:g} and {FAIL:g} for each of {units} active units, what a mean "
        "off by a quarter or half a standard deviation costs",
        source=SOURCE,
        remedy=remedy,
    )


def _dataset(found: dict[str, Tensor], units: int, draws: int) -> xarray.Dataset:
    meanings = {
        "iw_bound": "importance-weighted bound by draws of the refined guide",
        "iw_error": "standard error of iw_bound, from its draws",
        "refined_elbo": "ELBO of the guide refined for that datum (Cremer et al. 2018)",
        "refined_elbo_error": "standard error of refined_elbo, from its draws",
        "elbo": "ELBO of the amortized guide",
        "elbo_error": "standard error of elbo, from its draws",
        "approximation_gap": "iw_bound - refined_elbo (Cremer et al. 2018, eq. 7)",
        "amortization_gap": "refined_elbo - elbo (Cremer et al. 2018, eq. 7)",
        "k_hat": "Pareto k-hat of iw_bound's weights (Vehtari et al. 2024)",
    }
    return xarray.Dataset(
        {
            name: variable("datum", found[name], meaning, "1" if name == "k_hat" else "nats")
            for name, meaning in meanings.items()
        },
        attrs={"draws": draws, "active_units": units, "steps": STEPS},
    )
