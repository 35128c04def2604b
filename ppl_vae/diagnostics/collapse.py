"""Has the guide collapsed? Active units, KL per unit, mutual information, rate and distortion."""

import math
from collections.abc import Mapping
from typing import Any

import pyro.distributions as dist
import torch
import xarray
from torch import Tensor
from torch.distributions import kl_divergence

from ..errors import InputError
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.protocol import innermost
from ..programs.terms import Terms, total
from ..progress import Progress
from ..runtime import derived_seed
from .latents import ACTIVE, activity, as_units, prior_variance, unit_names
from .verdicts import DiagnosticResult, Grade, Verdict

QUESTION = "Has the guide collapsed to the prior?"
DRAWS, MIN_DATA = 100, 100
MIXTURE_DATA = 1000  # data points whose q(z|x) are averaged into q(z)
EPSILON, DELTA = 0.01, 0.01
SOURCE = "Burda et al. 2015; Lucas et al. 2019; Hoffman & Johnson 2016"


def ask_collapse(
    posterior: Posterior, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Measure how much the latent units say about the data.

    - A unit is active if :math:`\mathrm{Var}_x(E_q[z]) > 0.01 \mathrm{Var}(z)`, which for a
      standard normal prior is the definition of Burda et al. (2015).
    - It has :math:`(\epsilon, \delta)`-collapsed if :math:`P_x[\mathrm{KL}(q(z_i|x) \| p(z_i)) <
      \epsilon] \ge 1 - \delta` (Lucas et al. 2019, definition 1), here with 0.01 and 0.01.
    - The rate is :math:`I_q(n; z) + \mathrm{KL}(q(z) \| p(z))`, the mutual information of z and the
      data point's index n, and the marginal KL (Hoffman & Johnson 2016, eq. 3); the former is at
      most log N.
    - ELBO = - (distortion + rate) (Alemi et al. 2018).

    Arguments:
        posterior: The posterior of N data points.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``latents``: ``mean`` and ``kl`` (datum, unit), ``activity`` and ``collapsed`` (unit),
        ``rate`` and ``distortion`` (datum), and, if the guide's density is known at any z,
        ``mutual_information`` and ``marginal_kl`` ().

    Raises:
        InputError: If there are too few data, or the guide is a point mass.
    """
    if len(posterior) < MIN_DATA:
        raise InputError(
            f"{len(posterior)} data points",
            "are too few to see a variance over data",
            f"give at least {MIN_DATA}",
        )
    posterior.sites.require_density()
    progress = progress or Progress()
    counted = progress.part(2 / 3, total=2 * len(posterior) * DRAWS)
    found = _units(posterior, derived_seed(seed, "units"), counted)
    found |= posterior.reduce(_rate, DRAWS, derived_seed(seed, "rate"), counted)
    if posterior.has_tractable_density:
        chosen = posterior[:MIXTURE_DATA]
        mixing = progress.part(1 / 3, total=len(chosen) ** 2)
        information = _information(chosen, derived_seed(seed, "mixture"), mixing)
        found["mutual_information"] = information
        found["marginal_kl"] = found["rate"][: len(chosen)].mean() - information
    dataset = _dataset(found, unit_names(posterior[:1].draw(1)))
    return DiagnosticResult(_verdict(dataset), {"latents": dataset})


def _units(posterior: Posterior, seed: int, progress: Progress) -> dict[str, Tensor]:
    """Mean, variance and KL of each data point's units."""
    sites = posterior.sites.prior
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(DRAWS, progress):
            guide, model = part.trace(DRAWS)
            nodes = {site: (guide.nodes[site], model.nodes[site]) for site in sites}
            values = as_units({site: q["value"] for site, (q, _) in nodes.items()})
            kl = torch.cat([_unit_kl(*pair) for pair in nodes.values()], dim=-1)
            parts.append((values.mean(0).cpu(), values.var(0).cpu(), kl.cpu()))
    means, variances, kl = (torch.cat(column) for column in zip(*parts, strict=True))
    prior = prior_variance(posterior, derived_seed(seed, "prior"))
    return {
        "mean": means,
        "kl": kl,
        "activity": activity(means, variances, DRAWS, prior),
        "collapsed": (kl < EPSILON).double().mean(0) >= 1 - DELTA,  # NaN has not
    }


def _unit_kl(q_node: Mapping[str, Any], p_node: Mapping[str, Any]) -> Tensor:
    """KL of each unit of a site, of shape (N, units), averaged over draws of its parents.

    Where the units are independent: the closed form if there is one, else a Monte Carlo estimate.
    Where the guide's units depend on each other and the prior is normal: the KL of the normal with
    the guide's moments, a lower bound. Else NaN, for there is no KL of each unit.
    """
    value = q_node["value"]
    q, p = (_by_unit(node["fn"], value.shape) for node in (q_node, p_node))
    if q is not None and p is not None:
        try:
            kl = kl_divergence(q, p)
        except NotImplementedError:
            kl = q.log_prob(value) - p.log_prob(value)
        kl = kl.expand(value.shape).mean(0)
    elif isinstance(p, dist.Normal):
        moments = dist.Normal(value.mean(0), value.std(0).clamp(min=torch.finfo(value.dtype).tiny))
        kl = kl_divergence(moments, dist.Normal(p.loc[0], p.scale[0]))
    else:
        kl = torch.full(value.shape[1:], math.nan, device=value.device)
    return kl.reshape(value.shape[1], -1).double()


def _by_unit(fn: Any, shape: torch.Size) -> Any:
    """The distribution of each unit of a site; None where the units depend on each other."""
    base = innermost(fn)
    if isinstance(base, dist.MultivariateNormal):
        base = dist.Normal(base.loc, base.variance.sqrt())
    if base.event_shape or isinstance(base, dist.Delta):
        return None
    return base.expand(shape)


def _rate(terms: Terms) -> dict[str, Tensor]:
    return {
        "rate": terms.kl.double().mean(0),
        "distortion": -terms.reconstruction.double().mean(0),
    }


def _information(posterior: Posterior, seed: int, progress: Progress) -> Tensor:
    r"""I_q(n; z) = E [log q(z | x_n) - log (1/N) sum_m q(z | x_m)], by one draw for each n."""
    size = len(posterior)
    with posterior.evaluation_mode(seed):
        drawn = posterior.sample(1)
        mixed, own, first = [], [], 0
        for part in posterior.blocks(size, progress):
            # The z of each data point is one draw for all data points of this part.
            spread = {
                s: v.transpose(0, 1).expand(size, len(part), *v.shape[2:]) for s, v in drawn.items()
            }
            density = total(part.score(spread, with_model=False).guide)
            mixed.append(density)
            own.append(density[first : first + len(part)].diagonal())
            first += len(part)
    table = torch.cat(mixed, dim=1).double()
    return (torch.cat(own).double() - table.logsumexp(1) + math.log(size)).mean().cpu()


def _verdict(dataset: xarray.Dataset) -> Verdict:
    idle = dataset["collapsed"].values | (dataset["activity"].values <= ACTIVE)
    units, count = len(idle), int((~idle).sum())
    rate = float(dataset["rate"].mean())
    given: Grade = "pass" if not idle.any() else "caution" if count else "fail"
    names = dataset["unit"].values[idle]
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    meaning = f"{count} of {units} units depend on the data; the rate is {rate:.2f} nats per datum"
    if idle.any():
        meaning += f"; {len(names)} do not ({listed})"
    if "mutual_information" in dataset:
        highest = math.log(min(dataset.sizes["datum"], MIXTURE_DATA))
        information = float(dataset["mutual_information"])
        if information < highest - 1:
            meaning += f"; the average of q(z|x) over data is {float(dataset['marginal_kl']):.2f} "
            meaning += "nats from the prior"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic="units that are active and have not collapsed",
        value=float(count),
        error=0.0,
        unit=f"of {units} units",
        threshold=f"caution if a unit has Var_x(E_q z) below {ACTIVE:g} Var z, or a KL below "
        f"{EPSILON:g} nats for {1 - DELTA:.0%} of the data; fail if all units have",
        source=SOURCE,
        remedy=""
        if given == "pass"
        else "if reconstructions are good, fewer units; else KL warm-up, free bits, or a less "
        "flexible decoder",
    )


def _dataset(found: dict[str, Tensor], units: list[str]) -> xarray.Dataset:
    meanings = {
        "mean": (("datum", "unit"), "mean of q(z|x), by draws", "units of z"),
        "kl": (
            ("datum", "unit"),
            "KL of each unit from q(z|x) to the prior, where known",
            "nats",
        ),
        "activity": ("unit", "Var_x(E_q[z]) / Var(z) (Burda et al. 2015)"),
        "collapsed": ("unit", "(0.01, 0.01)-collapse (Lucas et al. 2019)", "1"),
        "rate": ("datum", "KL(q(z|x) || p(z)) (Alemi et al. 2018)", "nats"),
        "distortion": ("datum", "-E_q log p(x|z) (Alemi et al. 2018)", "nats"),
        "mutual_information": ((), "I_q(n; z) (Hoffman & Johnson 2016, eq. 3)", "nats"),
        "marginal_kl": ((), "KL(q(z) || p(z)) (Hoffman & Johnson 2016, eq. 3)", "nats"),
    }
    variables = {}
    for name, values in found.items():
        dims, meaning, *unit = meanings[name]
        variables[name] = variable(dims, values, str(meaning), *map(str, unit))
    return xarray.Dataset(variables, {"unit": units}, {"draws": DRAWS})
