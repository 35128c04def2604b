"""How far is the ELBO below log p(x), and whose doing is it? The family's, or one network's."""

import math

import numpy as np
import torch
import xarray
from torch import Tensor

from ..errors import InputError
from ..evidence.annealing import Annealing, anneal_posterior, transitions
from ..evidence.scores import Estimate, bounds
from ..inference.modes import STARTS, STEP_COST, STEP_DRAWS, STEPS, find_modes
from ..inference.weights import weigh
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.scoring import log_mean
from ..progress import Progress
from ..runtime import derived_seed
from ..storage.arviz_io import pareto_k, pareto_k_threshold
from .latents import active_units
from .materiality import divergence
from .verdicts import DiagnosticResult, Grade, Verdict, Z, advice, grade, needed

QUESTION = "Where does the gap to log p(x) come from?"
MIN_DATA, MIN_DRAWS = 10, 100
SOME = 0.05  # share of data whose evidence may be loose in a pass
EFFECTIVE = 0.5  # share of draws, or chains, that are effective: weights vary less than their mean
ANNEALING = Annealing(chains=16, temperatures=100, leapfrog_steps=4, start="prior")
SOURCE = "Cremer et al. 2018; Veach & Guibas 1995; Wu et al. 2017"


def ask_gaps(
    posterior: Posterior, draws: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Split KL(q(z|x) || p(z|x)) into what the family costs and what the network costs.

    .. math::
        \log p(x) - F(q) = \underbrace{\log p(x) - F(q^*_x)}_{\text{approximation gap}}
        + \underbrace{F(q^*_x) - F(q)}_{\text{amortization gap}}

    where :math:`q^*_x` is the best guide of the same family for that data point alone (Cremer et
    al. 2018, eq. 7), refined from several starts; see :mod:`ppl_vae.inference.modes`. For log p(x)
    stands the importance-weighted bound of draws from the mixture of all that they came to, so that
    a mode which the guide misses counts. A guide that cannot be refined, such as that of a discrete
    latent, has its own draws weighed, or, where that bound is higher beyond chance, those of a
    mixture with the prior; the gap is then not split.

    Where such weights are unreliable, and for more than a twentieth of the data, these data's log
    p(x) is bounded by annealing from the prior, if the latents are continuous, and if that bound is
    the higher one on average. All are lower bounds: where they are loose, the gap is larger.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws for each data point, from each guide.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``gaps``, per data point: ``evidence``, ``elbo``, their ``gap`` and errors; ``iw_bound``,
        ``ais_bound``, ``k_hat`` and ``loose``; and, if the guide can be refined, ``refined_elbo``
        and the two gaps.

    Raises:
        InputError: If there are too few data or draws, or the guide is a point mass.
    """
    if len(posterior) < MIN_DATA or draws < MIN_DRAWS:
        raise InputError(
            f"the gaps of {len(posterior)} data points by {draws} draws",
            "are too noisy",
            f"give at least {MIN_DATA} data points and {MIN_DRAWS} draws",
        )
    posterior.sites.require_density()
    progress = progress or Progress()
    found, obstacle = _weighed(posterior, draws, seed, progress.part(0.75))
    found |= _annealed(posterior, found, derived_seed(seed, "annealed"), progress.part(0.25))
    progress.finish()
    found["gap"] = found["evidence"] - found["elbo"]
    if not obstacle:
        found["approximation_gap"] = found["evidence"] - found["refined_elbo"]
        found["amortization_gap"] = found["refined_elbo"] - found["elbo"]
    units = active_units(posterior, derived_seed(seed, "activity"))
    verdict = _verdict(found, units, obstacle)
    return DiagnosticResult(verdict, {"gaps": _dataset(found, units, draws)})


def ask_gap_again(
    posterior: Posterior, before: xarray.Dataset, draws: int, seed: int
) -> DiagnosticResult:
    """The gap of another guide for the same model and data, whose log p(x) is known already.

    log p(x) does not depend on the guide. The bound from before is taken, or that of this guide's
    own draws, if it is higher on average beyond chance. No guide is refined: the gap is not split.

    Arguments:
        posterior: The posterior of N data points.
        before: The group ``gaps`` that :func:`ask_gaps` gave of the same N data points.
        draws: Draws for each data point.
        seed: Seed of the draws.

    Raises:
        InputError: If the guide is a point mass.
    """
    posterior.sites.require_density()
    ours = posterior.log_weight(draws, derived_seed(seed, "again")).double()
    found = _elbo(ours, "") | _bound(ours)
    known = {str(name): torch.as_tensor(values.values) for name, values in before.items()}
    higher = Estimate.of(found["iw_bound"] - known["evidence"])
    if higher.mean > Z * higher.stderr:
        found |= {"evidence": found["iw_bound"], "evidence_error": found["iw_error"]}
        found["ais_bound"] = torch.full_like(found["iw_bound"], math.nan)
        found["ais_error"] = found["ais_bound"]
    else:
        names = ("evidence", "evidence_error", "loose", "k_hat", "iw_bound", "iw_error")
        found |= {name: known[name] for name in (*names, "ais_bound", "ais_error")}
    found["gap"] = found["evidence"] - found["elbo"]
    units = active_units(posterior, derived_seed(seed, "activity"))
    verdict = _verdict(found, units, "log p(x) was bounded with the guide before")
    return DiagnosticResult(verdict, {"gaps": _dataset(found, units, draws)})


def _weighed(
    posterior: Posterior, draws: int, seed: int, progress: Progress
) -> tuple[dict[str, Tensor], str]:
    """The bounds that draws give, and why the guide cannot be refined, if it cannot."""
    if not (obstacle := _obstacle(posterior)):
        work = progress.part(1.0, len(posterior) * (STARTS * (STEPS * STEP_COST + draws) + draws))
        try:
            parts = [
                _refined(part, draws, derived_seed(seed, f"gaps {index}"), work)
                for index, part in enumerate(posterior.blocks(STARTS * STEP_DRAWS))
            ]
            return {name: torch.cat([p[name] for p in parts]) for name in parts[0]}, ""
        except InputError as error:
            obstacle = f"{error.culprit} {error.problem}"
    found = _unrefined(posterior, draws, derived_seed(seed, "unrefined"))
    return found, obstacle


def _obstacle(posterior: Posterior) -> str:
    """Why the guide cannot be refined by gradients; empty if it can."""
    if posterior.sites.intractable:
        return f"the guide {posterior.sites.intractable}"
    for site, q in posterior.sites.guide.items():
        if not q.has_rsample:
            return f"the guide's site {site!r} cannot be reparameterized"
    return ""


def _refined(posterior: Posterior, draws: int, seed: int, progress: Progress) -> dict[str, Tensor]:
    """ELBO of the guide, of what it can be refined to, and the bound of the latter's mixture."""
    ours = posterior.log_weight(draws, derived_seed(seed, "amortized")).double()
    progress.advance(draws * len(posterior))
    try:
        modes = find_modes(posterior, derived_seed(seed, "modes"), progress)
    except InputError:  # from where there is no mode, the ELBO may be infinite
        modes = find_modes(posterior, derived_seed(seed, "mode"), progress, starts=1)
    best, mixed = modes.log_weight(draws, derived_seed(seed, "refined"), progress)
    if not mixed.isfinite().all():
        raise InputError("the ELBO", "is not finite near the guide, for some of the data")
    return {
        **_elbo(ours, ""),
        **_elbo(best, "refined_"),
        **_bound(mixed),
    }


def _unrefined(posterior: Posterior, draws: int, seed: int) -> dict[str, Tensor]:
    """ELBO of the guide, and the bound of its draws, or of those of its mixture with the prior."""
    ours = posterior.log_weight(draws, derived_seed(seed, "ours")).double()
    found = _elbo(ours, "") | _bound(ours)
    if posterior.has_tractable_density:
        weighted = weigh(posterior, draws, derived_seed(seed, "defensive"), defensive=1.0)
        mixed = _bound(weighted.log_weight)
        # One choice for all data: the larger of two noisy bounds, point by point, would not be one.
        higher = Estimate.of(mixed["iw_bound"] - found["iw_bound"])
        if higher.mean > Z * higher.stderr:
            found |= mixed
    return found


def _elbo(log_weight: Tensor, prefix: str) -> dict[str, Tensor]:
    error = log_weight.std(0) / len(log_weight) ** 0.5
    return {f"{prefix}elbo": log_weight.mean(0), f"{prefix}elbo_error": error}


def _bound(log_weight: Tensor) -> dict[str, Tensor]:
    """The importance-weighted bound, and whether its weights are unreliable.

    They are if their tail is heavy. Ties have no tail, whatever k-hat is, so that weights of which
    at least half are effective are not.
    """
    bound = bounds(log_weight)
    k_hat = torch.as_tensor(pareto_k(log_weight.T.numpy())[0])
    heavy = k_hat > pareto_k_threshold(len(log_weight))
    return {
        "iw_bound": bound["iw_bound"],
        "iw_error": bound["iw_error"],
        "k_hat": k_hat,
        "loose": heavy & ~_is_effective(log_weight),
    }


def _is_effective(log_weight: Tensor) -> Tensor:
    """Whether at least half of the weights of each data point are effective (Kong 1992)."""
    ess = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()
    return ess >= EFFECTIVE * len(log_weight)


def _annealed(
    posterior: Posterior, found: dict[str, Tensor], seed: int, progress: Progress
) -> dict[str, Tensor]:
    """The bound on log p(x) that counts: annealed where weights are unreliable, if that helps."""
    chosen = found["loose"].nonzero()[:, 0]
    ais = {
        name: torch.full_like(found["iw_bound"], math.nan) for name in ("ais_bound", "ais_error")
    }
    settled = {
        "evidence": found["iw_bound"],
        "evidence_error": found["iw_error"],
        "loose": found["loose"],
    }
    if len(chosen) <= SOME * len(posterior):
        return ais | settled
    moves = progress.part(1.0, transitions(len(chosen), ANNEALING))
    try:
        run = anneal_posterior(posterior[chosen], ANNEALING, seed, moves)
    except InputError:  # such as discrete latents, or a support that has no coordinates
        return ais | settled
    ais["ais_bound"][chosen], ais["ais_error"][chosen] = log_mean(run.log_weight)
    if run.bound.mean() > found["iw_bound"][chosen].mean():
        settled = {name: values.clone() for name, values in settled.items()}
        settled["evidence"][chosen], settled["evidence_error"][chosen] = run.bound, run.error
        settled["loose"][chosen] = ~_is_effective(run.log_weight.double())
    return ais | settled


def _verdict(found: dict[str, Tensor], units: int, obstacle: str) -> Verdict:
    gap, (caution, fail) = Estimate.of(found["gap"]), divergence(units)
    given: Grade = grade(gap.mean, gap.stderr, caution, fail)
    loose = float(found["loose"].double().mean())
    meaning = f"log p(x) is {gap.mean:.2f} nats above the ELBO"
    remedy = "a richer guide, or longer training"
    if obstacle:
        meaning += f"; what of it the guide's family costs is not known, for {obstacle}"
    else:
        family, network = (
            Estimate.of(found[f"{name}_gap"]).mean for name in ("approximation", "amortization")
        )
        shown = (round(part, 2) + 0.0 for part in (family, network))  # no -0.00
        meaning += (
            ": {:.2f} because the guide's family is too small (approximation), {:.2f} because one "
            "network serves all data (amortization)".format(*shown)
        )
        wider = "a guide with correlations, several modes or a flow, or the objective iw"
        remedy = wider if family > network else "a wider encoder, or longer training"
    if annealed := int(found["ais_bound"].isfinite().sum()):
        meaning += f"; for {annealed} data points log p(x) was bounded by annealing too"
    if loose > SOME:
        meaning += f"; for {loose:.0%} of the data the bound on log p(x) is loose, the gap larger"
    more = needed(gap.mean, gap.stderr, caution, len(found["gap"]))
    remedy = advice(given, remedy, more)
    if given == "pass" and loose > SOME:
        given, remedy = "cannot say", "bidirectional annealing on simulated data, with more steps"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic="log p(x) - ELBO",
        value=gap.mean,
        error=gap.stderr,
        unit="nats per datum",
        threshold=f"caution above {caution:.2g}, fail above {fail:.2g}, by {Z:g} standard errors: "
        f"what a mean off by a quarter or half a standard deviation in each of {units} active "
        "units costs",
        source=SOURCE,
        remedy=remedy,
    )


def _dataset(found: dict[str, Tensor], units: int, draws: int) -> xarray.Dataset:
    meanings = {
        "evidence": "bound on log p(x) that counts: iw_bound, or ais_bound where that is loose",
        "evidence_error": "standard error of evidence, from its draws",
        "iw_bound": "importance-weighted bound by draws of the refined guides' mixture",
        "iw_error": "standard error of iw_bound, from its draws",
        "ais_bound": "bound by annealing from the prior, where it was needed (Wu et al. 2017)",
        "ais_error": "standard error of ais_bound, from its chains",
        "refined_elbo": "ELBO of the guide refined for that datum (Cremer et al. 2018)",
        "refined_elbo_error": "standard error of refined_elbo, from its draws",
        "elbo": "ELBO of the amortized guide",
        "elbo_error": "standard error of elbo, from its draws",
        "gap": "evidence - elbo, at most KL(q(z|x) || p(z|x)) on average",
        "approximation_gap": "evidence - refined_elbo (Cremer et al. 2018, eq. 7)",
        "amortization_gap": "refined_elbo - elbo (Cremer et al. 2018, eq. 7)",
        "k_hat": "Pareto k-hat of iw_bound's weights (Vehtari et al. 2024)",
        "loose": "whether the weights behind evidence are unreliable",
    }
    units_of = {"k_hat": "1", "loose": "1"}
    return xarray.Dataset(
        {
            name: variable("datum", np.asarray(found[name]), text, units_of.get(name, "nats"))
            for name, text in meanings.items()
            if name in found
        },
        attrs={"draws": draws, "active_units": units, "steps": STEPS, "starts": STARTS},
    )
