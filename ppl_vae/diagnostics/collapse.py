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
from ..programs.conformance import check_program
from ..programs.protocol import OBSERVED, Program, evaluation_mode, innermost
from ..programs.sites import require_density, trace_draws
from ..programs.terms import Terms
from ..programs.weights import reduce_terms
from ..runtime import derived_seed
from .latents import (
    ACTIVE,
    activity,
    as_units,
    guide_density,
    guide_draws,
    has_tractable_density,
    in_blocks,
    latent_sites,
    on_device,
    prior_variance,
    unit_names,
)
from .verdicts import DiagnosticResult, Grade, Verdict, Work, portion

QUESTION = "Has the guide collapsed to the prior?"
DRAWS, MIN_DATA = 100, 100
MIXTURE_DATA = 1000  # whose densities are averaged into q(z), each at one draw of every other
EPSILON, DELTA = 0.01, 0.01
SOURCE = "Burda et al. 2015; Lucas et al. 2019; Hoffman & Johnson 2016"


def ask_collapse(program: Program, x: Tensor, seed: int, on_work: Work) -> DiagnosticResult:
    r"""Measure what the latent units say about the data.

    - A unit is active if :math:`\mathrm{Var}_x(E_q[z]) > 0.01 \mathrm{Var}(z)`, which for a
      standard normal prior is the definition of Burda et al. (2015).
    - It has :math:`(\epsilon, \delta)`-collapsed if :math:`P_x[\mathrm{KL}(q(z_i|x) \| p(z_i)) <
      \epsilon] \ge 1 - \delta` (Lucas et al. 2019, definition 1), here with 0.01 and 0.01.
    - The rate is :math:`I_q(n; z) + \mathrm{KL}(q(z) \| p(z))`, mutual information with the index
      of the datum and marginal KL (Hoffman & Johnson 2016, eq. 3); the former is at most the
      logarithm of the number of data.
    - ELBO = - (distortion + rate) (Alemi et al. 2018).

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, \*data_shape).
        seed: Seed of the draws.
        on_work: Called with shares of the work done.

    Returns:
        ``latents``: ``mean`` and ``kl`` (datum, unit), ``activity`` and ``collapsed`` (unit),
        ``rate`` and ``distortion`` (datum), ``mutual_information`` and ``marginal_kl`` (), these
        two where the guide knows its density at a given z.

    Raises:
        InputError: If there are too few data, or the guide is a point mass.
    """
    if len(x) < MIN_DATA:
        raise InputError(
            f"{len(x)} data are too few to see a variance over data: give at least {MIN_DATA}"
        )
    check_program(program, x)
    require_density(program, x)
    tick = portion(on_work, 3 * len(x) * DRAWS)
    found = _units(program, x, derived_seed(seed, "units"), tick)
    found |= reduce_terms(program, x, _rate, DRAWS, derived_seed(seed, "rate"), tick)
    if has_tractable_density(program, x):
        chosen = min(len(x), MIXTURE_DATA)
        information = _information(program, x[:chosen], derived_seed(seed, "mixture"))
        found["mutual_information"] = information
        found["marginal_kl"] = found["rate"][:chosen].mean() - information
    on_work(1 / 3)
    dataset = _dataset(found, _names(program, x))
    return DiagnosticResult(_verdict(dataset), {"latents": dataset})


def _names(program: Program, x: Tensor) -> list[str]:
    with evaluation_mode(program, seed=0):
        return unit_names(
            guide_draws(program, on_device(program, x[:1]), 1, latent_sites(program, x))
        )


def _units(program: Program, x: Tensor, seed: int, tick: Any) -> dict[str, Tensor]:
    """Mean, variance and KL of each datum's units."""
    sites = latent_sites(program, x)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with evaluation_mode(program, seed):
        for _, batch in in_blocks(program, x, DRAWS, tick):
            guide, model = trace_draws(program, batch, DRAWS)
            nodes = {site: (guide.nodes[site], model.nodes[site]) for site in sites}
            values = as_units({site: q["value"] for site, (q, _) in nodes.items()})
            kl = torch.cat([_unit_kl(*pair) for pair in nodes.values()], dim=-1)
            parts.append((values.mean(0).cpu(), values.var(0).cpu(), kl.cpu()))
    means, variances, kl = (torch.cat(column) for column in zip(*parts, strict=True))
    prior = prior_variance(program, x, derived_seed(seed, "prior"))
    return {
        "mean": means,
        "kl": kl,
        "activity": activity(means, variances, DRAWS, prior),
        "collapsed": (kl < EPSILON).double().mean(0) >= 1 - DELTA,  # NaN has not
    }


def _unit_kl(q_node: Mapping[str, Any], p_node: Mapping[str, Any]) -> Tensor:
    """KL of each unit of a site, of shape (N, units), averaged over draws of what comes before it.

    The closed form where units are independent and have one, else its Monte Carlo estimate. Of a
    guide whose units depend on each other, under a normal prior, that of the normals with its
    moments, which the KL is at least. NaN for all others: there the site has no KL by unit.
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
    """The distribution of each number of a site by itself; None where they depend on each other."""
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


def _information(program: Program, x: Tensor, seed: int) -> Tensor:
    r"""I_q(n; z) = E log q(z | x_n) - log (1/N) sum_m q(z | x_m), one draw of z for each datum."""
    sites = latent_sites(program, x)
    with evaluation_mode(program, seed):
        batch = on_device(program, x)
        drawn = guide_draws(program, batch, 1, sites)
        mixed, own = [], []
        for rows, part in in_blocks(program, x, len(x)):
            # The z of every datum as a draw beside every datum of this part.
            spread = {
                s: v.transpose(0, 1).expand(len(x), len(part), *v.shape[2:])
                for s, v in drawn.items()
            }
            density = guide_density(program, part, spread)
            mixed.append(density)
            own.append(density[rows].diagonal())
    table = torch.cat(mixed, dim=1).double()
    return (torch.cat(own).double() - table.logsumexp(1) + math.log(len(x))).mean().cpu()


def _verdict(dataset: xarray.Dataset) -> Verdict:
    idle = dataset["collapsed"].values | (dataset["activity"].values <= ACTIVE)
    units, count = len(idle), int((~idle).sum())
    rate = float(dataset["rate"].mean())
    given: Grade = "pass" if not idle.any() else "caution" if count else "fail"
    names = dataset["unit"].values[idle]
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    meaning = (
        f"{count} of {units} units follow the data, and together say {rate:.2f} nats about each"
    )
    if idle.any():
        meaning += f"; {len(names)} do not ({listed})"
    if "mutual_information" in dataset:
        highest = math.log(min(dataset.sizes["datum"], MIXTURE_DATA))
        information = float(dataset["mutual_information"])
        if information < highest - 1:
            meaning += f"; q(z|x) averaged over data is {float(dataset['marginal_kl']):.2f} nats "
            meaning += "from the prior"
    return Verdict(
        QUESTION,
        given,
        meaning,
        statistic="units that are active and have not collapsed",
        value=float(count),
        error=0.0,
        unit=f"of {units} units",
        threshold=f"caution if a unit has Var_x(E_q z) below {ACTIVE:g} Var z, or KL below "
        f"{EPSILON:g} nats on {1 - DELTA:.0%} of the data; fail if all are so",
        source=SOURCE,
        remedy=""
        if given == "pass"
        else "if reconstructions are good, fewer units; else KL warm-up, free bits, or a decoder "
        "that can do less without z",
    )


def _dataset(found: dict[str, Tensor], units: list[str]) -> xarray.Dataset:
    meanings = {
        "mean": (("datum", "unit"), "mean of q(z|x), by draws", "units of z"),
        "kl": (
            ("datum", "unit"),
            "KL of each unit of q(z|x) from the prior's, where known",
            "nats",
        ),
        "activity": ("unit", "variance over data of E_q[z], in the prior's (Burda et al. 2015)"),
        "collapsed": ("unit", "(0.01, 0.01)-collapse (Lucas et al. 2019)", "1"),
        "rate": ("datum", "KL(q(z|x) || p(z)) (Alemi et al. 2018)", "nats"),
        "distortion": ("datum", f"-E_q log p({OBSERVED}|z) (Alemi et al. 2018)", "nats"),
        "mutual_information": ((), "I_q(n; z) (Hoffman & Johnson 2016, eq. 3)", "nats"),
        "marginal_kl": ((), "KL(q(z) || p(z)) (Hoffman & Johnson 2016, eq. 3)", "nats"),
    }
    variables = {}
    for name, values in found.items():
        dims, meaning, *unit = meanings[name]
        variables[name] = variable(dims, values, str(meaning), *map(str, unit))
    return xarray.Dataset(variables, {"unit": units}, {"draws": DRAWS})
