"""Has the guide collapsed? Units that tell nothing of the data, and whose doing that is."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
import xarray
from torch import Tensor
from torch.distributions import kl_divergence

from ..errors import InputError
from ..inference.redraw import is_factorized, redraw
from ..labels import variable
from ..programs.posterior import Posterior
from ..programs.protocol import innermost
from ..programs.terms import Terms, total
from ..progress import Progress
from ..runtime import derived_seed
from .latents import (
    EPSILON,
    Bins,
    as_units,
    describe_units,
    information_gain,
    unit_names,
)
from .materiality import divergence
from .verdicts import DiagnosticResult, Grade, Verdict, Z, advice

QUESTION = "Has the guide collapsed to the prior?"
DRAWS, MIN_DATA = 100, 100
MIXTURE_DATA = 1000  # data points whose q(z|x) are averaged into q(z)
REDRAWN_DATA, REDRAWS, CANDIDATES = 100, 100, 3  # units drawn anew, and among how many
DELTA = 0.01
MATERIAL = divergence(1)[0]  # nats that a unit tells of the data and the guide leaves out
SOURCE = "Burda et al. 2015; Lucas et al. 2019; Hoffman & Johnson 2016; Andrieu et al. 2018"


def ask_collapse(
    posterior: Posterior, seed: int, progress: Progress | None = None
) -> DiagnosticResult:
    r"""Measure how much the latent units say about the data, and whether they could say more.

    - A unit is idle if the mutual information of its draws and the data point's index is below 0.01
      nats, or its mean KL to the prior is. Either sees what is symmetric about zero or has heavy
      tails, which the variance of means over data does not.
    - An idle unit is ignored by the guide if the model uses it: the unit is drawn anew given all
      others and x, a step that leaves the posterior as it is (:func:`ppl_vae.inference.redraw`). If
      it tells more of the data after it than before, by 1/32 nats, or if x tells more of it than
      KL(q(z|x) || p(z)) in all, the guide is not the posterior. If the draw is one from the prior,
      the model does not use the unit, and nothing is wrong.
    - Reported beside it: activity, :math:`\mathrm{Var}_x(E_q[z]) / \mathrm{Var}(z)` of normal
      scores (Burda et al. 2015), and :math:`(\epsilon, \delta)`-collapse,
      :math:`P_x[\mathrm{KL}(q(z_i|x) \| p(z_i)) < \epsilon] \ge 1 - \delta` (Lucas et al. 2019,
      definition 1).
    - The rate is :math:`I_q(n; z) + \mathrm{KL}(q(z) \| p(z))`, the mutual information of z and the
      data point's index n, and the marginal KL (Hoffman & Johnson 2016, eq. 3); the former is at
      most log N.
    - ELBO = - (distortion + rate) (Alemi et al. 2018).

    Arguments:
        posterior: The posterior of N data points.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.

    Returns:
        ``latents``: ``mean`` and ``kl`` (datum, unit); ``activity``, ``collapsed``,
        ``information``, its error, ``idle``, ``use``, ``gain``, its error, and ``ignored`` (unit);
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
    counted = progress.part(1 / 2, total=3 * len(posterior) * DRAWS)
    units = describe_units(posterior, DRAWS, derived_seed(seed, "units"), counted)
    kl, known = _kl(posterior, derived_seed(seed, "kl"), counted)
    found = {
        "mean": units.mean,
        "kl": kl,
        "activity": units.activity,
        "collapsed": (kl < EPSILON).double().mean(0) >= 1 - DELTA,  # NaN has not
        "information": units.information,
        "information_error": units.information_error,
        "idle": (units.information < EPSILON) | (known & (kl.mean(0) < EPSILON)),
    }
    found |= posterior.reduce(_rate, DRAWS, derived_seed(seed, "rate"), counted)
    if posterior.has_tractable_density:
        chosen = posterior[:MIXTURE_DATA]
        mixing = progress.part(1 / 4, total=len(chosen) ** 2)
        information = _information(chosen, derived_seed(seed, "mixture"), mixing)
        found["mutual_information"] = information
        found["marginal_kl"] = found["rate"][: len(chosen)].mean() - information
    redrawing = progress.part(1 / 4)
    few, rate = posterior[:REDRAWN_DATA], found["rate"][:REDRAWN_DATA]
    found |= _used(few, found["idle"], rate, derived_seed(seed, "redrawn"), redrawing)
    dataset = _dataset(found, unit_names(posterior[:1].draw(1)))
    return DiagnosticResult(_verdict(dataset), {"latents": dataset})


def _kl(posterior: Posterior, seed: int, progress: Progress) -> tuple[Tensor, Tensor]:
    """KL of each data point's units, of shape (N, U), and whether it is known, of shape (U,)."""
    parts, known = [], []
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(DRAWS, progress):
            guide, model = part.trace(DRAWS)
            nodes = [(guide.nodes[site], model.nodes[site]) for site in part.sites.prior]
            kls, exact = zip(*(_unit_kl(*pair) for pair in nodes), strict=True)
            parts.append(torch.cat(kls, dim=-1).cpu())
            known = [torch.full(kl.shape[1:], flag) for kl, flag in zip(kls, exact, strict=True)]
    return torch.cat(parts), torch.cat(known)


def _unit_kl(q_node: Mapping[str, Any], p_node: Mapping[str, Any]) -> tuple[Tensor, bool]:
    """KL of each unit of a site, of shape (N, units), averaged over draws of its parents.

    Where the units are independent: the closed form if there is one, else a Monte Carlo estimate.
    Where the guide's units depend on each other and the prior is normal: the KL of the normal with
    the guide's moments, a lower bound. Else NaN, for there is no KL of each unit.

    Returns:
        The KL, and whether it is more than a bound.
    """
    value = q_node["value"]
    q, p = (_by_unit(node["fn"], value.shape) for node in (q_node, p_node))
    known = q is not None and p is not None
    if known:
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
    return kl.reshape(value.shape[1], -1).double(), known


def _by_unit(fn: Any, shape: torch.Size) -> Any:
    """The distribution of each unit of a site; None where the units depend on each other."""
    base = innermost(fn)
    if isinstance(base, dist.MultivariateNormal):
        base = dist.Normal(base.loc, base.variance.sqrt())
    if base.event_shape or isinstance(base, dist.Delta):
        return None
    return base.expand(shape)


def _used(
    posterior: Posterior, idle: Tensor, rate: Tensor, seed: int, progress: Progress
) -> dict[str, Tensor]:
    """Whether the model uses units that are idle in the guide, each of shape (U,); NaN for others.

    All idle units of a site are drawn anew together first: what the model says of them all is at
    least what it says of each. Only if that is something are they drawn one by one, in turn.
    """
    found = {name: torch.full(idle.shape, math.nan).double() for name in ("use", "gain")}
    found["gain_error"] = found["gain"].clone()
    found["ignored"], found["undecided"] = torch.zeros_like(idle), torch.zeros_like(idle)
    bins = Bins.of(posterior, derived_seed(seed, "bins"))
    work, first = progress.part(1.0, total=max(1, 2 * int(idle.sum()))), 0
    for site, value in posterior[:1].draw(1).items():
        place = slice(first, first + value[0, 0].numel())
        first, chosen = place.stop, idle[place]
        if not chosen.any():
            continue
        judge = partial(_redrawn, posterior, site, rate=rate, bins=bins, place=place, work=work)
        apart = is_factorized(posterior, site)
        together = chosen if apart else torch.ones_like(chosen)
        judged = judge([together], seed=derived_seed(seed, site))
        if apart and chosen.sum() > 1 and judged["use"][place].max() > EPSILON:
            each = list(torch.eye(len(chosen), dtype=torch.bool)[chosen])
            judged = judge(each, seed=derived_seed(seed, f"{site} by unit"))
        here = torch.zeros_like(idle)
        here[place] = chosen
        found = {name: torch.where(here, judged[name], values) for name, values in found.items()}
    progress.finish()
    return found


def _redrawn(
    posterior: Posterior,
    site: str,
    steps: list[Tensor],
    rate: Tensor,
    bins: Bins,
    place: slice,
    work: Progress,
    seed: int,
) -> dict[str, Tensor]:
    """What becomes of units that are drawn anew in turn, each of shape (U,).

    Arguments:
        posterior: The posterior of some of the data.
        site: The site that the units are of.
        steps: Which of its units each step draws anew.
        rate: KL(q(z|x) || p(z)) of each data point.
        bins: Where to count draws.
        place: Where the site's units are among all.
        work: Told of each step.
        seed: Seed of the draws.
    """
    before, after, uses, has_children = [], [], [], False
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(REDRAWS * (1 + CANDIDATES)):
            latents = part.sample(REDRAWS)
            before.append(bins.count(as_units(latents).cpu()))
            of_part = torch.zeros(len(part), before[0].shape[1], dtype=torch.double)
            for chosen in steps:
                latents, use, children = redraw(part, latents, site, chosen, CANDIDATES)
                of_part[:, place] = torch.where(chosen, use[:, None], of_part[:, place])
                has_children |= children
                work.advance(len(part) / len(posterior))
            after.append(bins.count(as_units(latents).cpu()))
            uses.append(of_part)
    use = torch.cat(uses)
    gain, error = information_gain(torch.cat(before), torch.cat(after))
    ignored = gain - Z * error > MATERIAL
    if not has_children:  # then x alone tells of the units, and no more than of all: the rate
        beyond = use - rate[:, None]
        ignored |= beyond.mean(0) - Z * beyond.std(0) / len(use) ** 0.5 > MATERIAL
    undecided = ~ignored & (gain + Z * error > MATERIAL) & (use.mean(0) > EPSILON)
    return {
        "use": use.mean(0),
        "gain": gain,
        "gain_error": error,
        "ignored": ignored,
        "undecided": undecided,
    }


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
    idle, ignored, undecided = (dataset[n].values for n in ("idle", "ignored", "undecided"))
    unused = idle & (dataset["use"].values < EPSILON) & ~ignored
    rest = idle & ~ignored & ~undecided & ~unused
    units, count = len(idle), int((~idle).sum())
    given: Grade = "pass"
    if ignored.any():
        given = "caution" if count else "fail"
    elif undecided.any():
        given = "cannot say"
    rate = float(dataset["rate"].mean())
    meaning = f"{count} of {units} units depend on the data; the rate is {rate:.2f} nats per datum"
    for which, words in (
        (ignored, "the guide ignores {}, which the model uses"),
        (undecided, "it is too close to tell whether the guide ignores {}"),
        (unused, "the model does not use {}, and nothing is wrong with that"),
        (rest, "the data tell hardly anything of {} alone, and the guide says so"),
    ):
        if which.any():
            meaning += f"; {words.format(_listed(dataset['unit'].values[which]))}"
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
        statistic="units that depend on the data",
        value=float(count),
        error=0.0,
        unit=f"of {units} units",
        threshold=f"caution if the guide ignores a unit: it tells less than {EPSILON:g} nats of "
        f"the data, and drawn anew from the model, given all others, {MATERIAL:.2g} more, by 3 "
        "standard errors; fail if no unit is left",
        source=SOURCE,
        remedy=advice(
            given,
            "KL warm-up, free bits, or a less flexible decoder",
            "another seed, or more data",
        ),
    )


def _listed(names: Any) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _dataset(found: dict[str, Tensor], units: list[str]) -> xarray.Dataset:
    redrawn = "where the unit is idle"
    meanings = {
        "mean": (("datum", "unit"), "mean of q(z|x), by draws", "units of z"),
        "kl": (
            ("datum", "unit"),
            "KL of each unit from q(z|x) to the prior, where known",
            "nats",
        ),
        "activity": ("unit", "Var_x(E_q[s]) / Var(s) of normal scores s (Burda et al. 2015)"),
        "collapsed": ("unit", "(0.01, 0.01)-collapse (Lucas et al. 2019)", "1"),
        "information": ("unit", "I(n; z) of each unit, in ten bins", "nats"),
        "information_error": ("unit", "standard error of information, over data", "nats"),
        "idle": ("unit", "whether information, or the mean KL, is below 0.01 nats", "1"),
        "use": ("unit", f"KL from p(z_i | x, other z) to the prior, {redrawn}", "nats"),
        "gain": ("unit", f"information that drawing anew from the model adds, {redrawn}", "nats"),
        "gain_error": ("unit", "standard error of gain, over data", "nats"),
        "ignored": ("unit", "whether the model uses the unit, and the guide does not", "1"),
        "undecided": ("unit", "whether gain is too close to the threshold", "1"),
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
