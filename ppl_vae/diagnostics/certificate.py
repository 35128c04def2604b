"""How far is q from the posterior? Exactly, on data that the model simulates."""

import math

import numpy as np
import torch
import xarray
from scipy.optimize import brentq
from scipy.special import logsumexp

from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.predictions import simulate
from ..programs.sites import Latents
from ..programs.terms import total
from ..progress import Progress
from ..runtime import derived_seed
from ..storage.arviz_io import load_arviz, pareto_k_threshold
from .latents import ACTIVE, describe_units
from .materiality import divergence
from .verdicts import DiagnosticResult, Grade, Verdict, Z, advice, grade, needed

QUESTION = "How far is q(z|x) from the posterior?"
DRAWS = 20  # from the guide for each simulated data point
MIN_SIMULATIONS = 100
TIED = 5  # of the highest contributions: equal ones have no tail
SOURCE = "Jeffreys 1946; Gilardoni 2006; Yao & Domke 2023"
REMEDY = "a guide with correlations or a flow; a larger encoder, or longer training"


def ask_certificate(
    posterior: Posterior, simulations: int, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Measure the Jeffreys divergence between guide and posterior, without knowing log p(x).

    .. math::
        J = E_{z^*, x^*} \Bigl[ \log w(z^*, x^*) - E_{z \sim q(z | x^*)} \log w(z, x^*) \Bigr]
        = E_x \bigl[ KL(q \| p) + KL(p \| q) \bigr], \quad w(z, x) = p(x, z) / q(z | x)

    for :math:`z^*, x^* \sim p(z, x)`, since :math:`z^*` is a draw from p(z | x*), and log p(x) is
    in both terms. Its estimate is unbiased, and its standard error that of independent
    simulations. The total variation between guide and posterior, averaged over data, is at most
    the v with 4 v artanh v = J (Gilardoni 2006), which is below sqrt(J) / 2; see
    :func:`most_variation`.

    Beside it stands the divergence of the best classifier that finds the true z among S draws of
    the guide (Yao & Domke 2023): its log odds are log w, so that nothing has to be trained.

    .. math:: D = \log(S + 1) + E \log \frac{w(z^*, x^*)}{w(z^*, x^*) + \sum_s w(z_s, x^*)}

    lies between 0 and log(S + 1), and is at most KL(p || q).

    Contributions to J have a light lower tail, for P(log p(z|x) - log q(z|x) < -t) <= exp(-t) for
    draws from p. Where the upper tail is heavy, by its Pareto k-hat, the mean of what lies below
    the tail is a lower bound on J, and nothing passes.

    Arguments:
        posterior: The posterior of some data. Only their shape is used, and their covariates,
            given which data are simulated.
        simulations: Data points M to simulate.
        seed: Seed of simulations and draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``certificate``: ``contribution``, ``log_score`` (simulation), whose means are J and D;
        ``jeffreys``, ``discriminative``, their errors, ``total_variation`` and ``k_hat``.

    Raises:
        InputError: If there are too few simulations, the guide cannot tell its density at given
            z, or a density is not finite.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca = LinearGaussian((5,), latent_dim=2)
        >>> ppca.set_exact_guide()
        >>> data = torch.zeros(1, 5, dtype=torch.float64)
        >>> ask_certificate(Posterior(ppca, data), 100, seed=0).verdict.grade
        'pass'
    """
    if simulations < MIN_SIMULATIONS:
        raise InputError(
            "simulations",
            f"must be at least {MIN_SIMULATIONS}, for a standard error, got {simulations}",
        )
    posterior.sites.require_tractable_density()
    program, batch = posterior.program, posterior.batch
    drawn = simulate(program, batch, simulations, derived_seed(seed, "simulations"))
    simulated = Posterior(program, drawn.batch)
    counted = (progress or Progress()).part(1.0, total=simulations * (2 * DRAWS + 1))
    log_weight = _weigh(simulated, drawn.latents, derived_seed(seed, "draws"), counted)
    units = describe_units(simulated, DRAWS, derived_seed(seed, "units"), counted)
    active = max(1, int((units.activity > ACTIVE).sum()))
    dataset = _dataset(log_weight, active)
    return DiagnosticResult(_verdict(dataset), {"certificate": dataset})


def most_variation(jeffreys: float) -> float:
    r"""The largest total variation that a Jeffreys divergence allows.

    Let p exceed q on a set of probabilities a and b, so that v = a - b. Neither divergence grows
    when all that is told of z is whether it lies in that set; hence J is at least that of two
    coins, (a - b) log[a (1 - b) / (b (1 - a))], and this is least for a = 1 - b = (1 + v) / 2:
    J >= 4 v artanh v >= 4 v² (Gilardoni 2006). The bound is convex in v, so that it holds for
    averages over data as well.

    Arguments:
        jeffreys: KL(q||p) + KL(p||q), in nats.

    Example:
        >>> round(most_variation(0.01), 4), round(most_variation(4.0), 2), most_variation(1e3)
        (0.05, 0.83, 1.0)
    """
    highest = 1 - 1e-15
    if jeffreys >= 4 * highest * math.atanh(highest):
        return 1.0
    found = brentq(lambda v: 4 * v * math.atanh(v) - max(jeffreys, 0.0), 0.0, highest)
    return float(found)


def _weigh(simulated: Posterior, latents: Latents, seed: int, progress: Progress) -> np.ndarray:
    """Log weights of the true latents, then of S draws, of shape (1 + S, M)."""
    weights, first = [], 0
    with simulated.evaluation_mode(seed):
        for part in simulated.blocks(DRAWS + 1, progress):
            rows = slice(first, first + len(part))
            first = rows.stop
            drawn = part.sample(DRAWS)
            both = {s: torch.cat([latents[s][None, rows].to(v), v]) for s, v in drawn.items()}
            terms = part.score(both)
            log_q = total(terms.guide).double()
            # Outside their support some distributions have a density of NaN.
            log_q[0] = log_q[0].nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
            log_joint = terms.reconstruction.double() + total(terms.prior).double()
            weights.append((log_joint - log_q).cpu())
    log_weight = torch.cat(weights, dim=1).numpy()
    truth, draws = log_weight[0], log_weight[1:]
    impossible = np.isnan(log_weight).any() or (truth == -np.inf).any() or (draws == np.inf).any()
    if impossible:
        raise InputError(
            "the program", "has log densities that are not finite on data that the model made"
        )
    return log_weight


def tail_index(values: np.ndarray) -> float:
    """Pareto k-hat of the upper tail of values (Vehtari et al. 2024); 0 where there is no tail.

    Moments of order 1/k and above do not exist. It is not changed by a shift or a scale.

    Arguments:
        values: Independent draws of one quantity, of shape (M,).

    Example:
        >>> draws = np.random.default_rng(0)
        >>> tail_index(draws.normal(size=2000)) < 0.3, tail_index(draws.pareto(1, 2000)) > 0.7
        (True, True)
    """
    spread = np.ptp(values)
    if not spread or np.ptp(np.sort(values)[-TIED:]) == 0:
        return 0.0
    with np.errstate(all="ignore"):
        _, k = load_arviz().psislw(np.log((values - values.min()) / spread + 1e-9))
    return float(k) if np.isfinite(k) else math.inf


def _mean(values: np.ndarray) -> tuple[float, float]:
    if np.isinf(values).any():
        return math.inf, math.nan
    return float(values.mean()), float(values.std(ddof=1)) / len(values) ** 0.5


def _dataset(log_weight: np.ndarray, active: int) -> xarray.Dataset:
    count = len(log_weight)
    with np.errstate(invalid="ignore"):
        contribution = log_weight[0] - log_weight[1:].mean(0)
        score = log_weight[0] - logsumexp(log_weight, axis=0)
    score = np.where(np.isposinf(log_weight[0]), 0.0, score) + math.log(count)
    finite = np.isfinite(contribution)
    k_hat = tail_index(contribution) if finite.all() else math.inf
    caution = 2 * divergence(active)[0]
    # A tail whose highest value is below the threshold cannot move the mean across it.
    heavy = k_hat > pareto_k_threshold(len(contribution)) and contribution.max() > caution
    at = np.sort(contribution)[
        -math.ceil(3 * len(contribution) ** 0.5)
    ]  # where k-hat's tail begins
    jeffreys, jeffreys_error = _mean(np.minimum(contribution, at) if heavy else contribution)
    if not finite.all():
        jeffreys, jeffreys_error = math.inf, math.nan
    discriminative, discriminative_error = _mean(score)
    upper = jeffreys + Z * jeffreys_error if finite.all() and not heavy else math.inf
    found = {
        "contribution": ("log w(z*, x*) - mean of log w(z, x*) over draws of q", contribution),
        "log_score": ("log(S + 1) + log probability of the true z among S draws", score),
        "jeffreys": ("KL(q||p) + KL(p||q), averaged over the model's data", jeffreys),
        "jeffreys_error": ("standard error of jeffreys, from the simulations", jeffreys_error),
        "discriminative": ("divergence of the best classifier (Yao & Domke 2023)", discriminative),
        "discriminative_error": ("standard error of discriminative", discriminative_error),
    }
    arrays = {
        name: variable("simulation" if np.ndim(values) else (), np.asarray(values), meaning, "nats")
        for name, (meaning, values) in found.items()
    }
    arrays["k_hat"] = variable((), np.asarray(k_hat), "Pareto k-hat of contribution's upper tail")
    arrays["total_variation"] = variable(
        (),
        np.asarray(most_variation(upper)),
        "largest total variation, averaged over data, for jeffreys + 3 errors (Gilardoni 2006)",
        "probability",
    )
    about = {"draws": count - 1, "active_units": active, "heavy": int(heavy)}
    return xarray.Dataset(arrays, attrs=about)


def _verdict(dataset: xarray.Dataset) -> Verdict:
    value, error = (float(dataset[name]) for name in ("jeffreys", "jeffreys_error"))
    active, count = int(dataset.attrs["active_units"]), dataset.sizes["simulation"]
    caution, fail = (2 * bound for bound in divergence(active))
    given: Grade = grade(value, error, caution, fail)
    more = needed(value, error, caution, count, "simulations")
    meaning = (
        f"on the model's own data q is within {float(dataset['total_variation']):.2g} total "
        "variation of the posterior, on average"
    )
    if math.isinf(value):
        share = float(np.isinf(dataset["contribution"].values).mean())
        given, more = "fail", ""
        meaning = (
            f"for {share:.2g} of the model's own data q gives the true z no probability at all, or "
            "draws z that the model rules out, so that a divergence is infinite"
        )
    elif dataset.attrs["heavy"]:
        if given in ("pass", "cannot say"):
            given, more = "cannot say", f"more simulations: {count} do not show the tail"
        meaning = (
            "a few of the model's own data add so much that the mean is not known (k-hat "
            f"{float(dataset['k_hat']):.2f}): the statistic leaves out what they add beyond the "
            "rest, and is a lower bound"
        )
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic="Jeffreys divergence KL(q||p) + KL(p||q)",
        value=value,
        error=None if math.isinf(value) else error,
        unit="nats per datum",
        threshold=f"caution above {caution:.2g}, fail above {fail:.2g}, by 3 standard errors: what "
        f"means that are off by a quarter or half a standard deviation give in {active} active "
        "units",
        source=SOURCE,
        remedy=advice(given, REMEDY, more),
    )
