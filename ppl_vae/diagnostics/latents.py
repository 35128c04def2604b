"""Latent units: every number of every latent site, side by side, and what they tell of the data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from ..programs.posterior import Posterior
from ..progress import Progress
from ..runtime import derived_seed

# Variance over data of the guide's mean (Burda et al. 2015, section 5.2), in that of the prior.
ACTIVE = 0.01
EPSILON = 0.01  # nats below which a unit tells nothing (Lucas et al. 2019)
BINS, POOLED, PRIOR_DRAWS, MOMENT_DRAWS = 10, 1000, 2000, 100


def as_units(latents: Mapping[str, Tensor]) -> Tensor:
    """Sites side by side.

    Arguments:
        latents: Values by site, each of shape (S, N, *event shape).

    Returns:
        Values of shape (S, N, U), in double precision.

    Example:
        >>> as_units({"k": torch.zeros(3, 5), "z": torch.zeros(3, 5, 2)}).shape
        torch.Size([3, 5, 3])
    """
    return torch.cat([v.reshape(*v.shape[:2], -1).double() for v in latents.values()], dim=-1)


def unit_names(latents: Mapping[str, Tensor]) -> list[str]:
    """What the units of :func:`as_units` are called: ``z[0]``, ``z[1]``, ...

    Example:
        >>> unit_names({"k": torch.zeros(3, 5), "z": torch.zeros(3, 5, 2)})
        ['k', 'z[0]', 'z[1]']
    """
    names = []
    for site, value in latents.items():
        single = value.dim() == 2
        names += [site] if single else [f"{site}[{i}]" for i in range(value[0, 0].numel())]
    return names


@dataclass(frozen=True)
class Units:
    """What draws from the guide say about each unit.

    Attributes:
        mean: Mean of q(z|x), of shape (N, U), in units of z.
        activity: Var_x(E_q[s]) / Var(s), of shape (U,), where s is the normal score (van der
            Waerden) of z among draws of the prior: for a standard normal prior what Burda et al.
            (2015) define, and for any other prior finite.
        information: I(n; z) of the data point's index and each unit, in nats; see
            :func:`information`.
        information_error: Its standard error.
    """

    mean: Tensor
    activity: Tensor
    information: Tensor
    information_error: Tensor


def describe_units(
    posterior: Posterior, draws: int, seed: int, progress: Progress | None = None
) -> Units:
    """Measure how much each unit depends on the data, by draws from the guide.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws S from the guide for each data point.
        seed: Seed of the draws.
        progress: Told of each draw of each data point.
    """
    prior = _prior_draws(posterior, derived_seed(seed, "prior"))
    bins = Bins.of(posterior, derived_seed(seed, "bins"))
    means, scores, variances, counts = [], [], [], []
    with posterior.evaluation_mode(derived_seed(seed, "units")):
        for part in posterior.blocks(draws, progress):
            values = as_units(part.sample(draws)).cpu()
            counts.append(bins.count(values))
            means.append(values.mean(0))
            scored = _normal_scores(values, prior)
            scores.append(scored.mean(0))
            variances.append(scored.var(0))
    own = _normal_scores(prior.T[:, None], prior).var(0)[0]
    # Draws of the mean vary by Var / S although the mean does not: that is taken away.
    spread = torch.cat(scores).var(0) - torch.cat(variances).mean(0) / draws
    activity = spread.clamp(min=0) / own.clamp(min=torch.finfo(own.dtype).tiny)
    told, error = information(torch.cat(counts))
    return Units(torch.cat(means), activity, told, error)


def active_units(posterior: Posterior, seed: int) -> int:
    """How many units tell more of the data than 0.01 nats; at least 1."""
    told = describe_units(posterior, MOMENT_DRAWS, seed).information
    return max(1, int((told >= EPSILON).sum()))


def _prior_draws(posterior: Posterior, seed: int) -> Tensor:
    """Sorted draws of each unit from the prior, of shape (U, R), given covariates of all data."""
    each = -(-PRIOR_DRAWS // len(posterior))
    drawn = as_units(posterior[:PRIOR_DRAWS].draw(each, seed, "prior"))
    return drawn.flatten(0, 1).T.contiguous().sort(dim=1).values


def _normal_scores(values: Tensor, prior: Tensor) -> Tensor:
    """The normal quantiles of the ranks of values (S, N, U) among sorted draws (U, R)."""
    columns = values.permute(2, 0, 1).flatten(1).contiguous()
    below, upto = (torch.searchsorted(prior, columns, right=right) for right in (False, True))
    middle = (below + upto + 1).double() / (2 * (prior.shape[1] + 1))
    return torch.special.ndtri(middle).reshape(-1, *values.shape[:2]).permute(1, 2, 0)


@dataclass(frozen=True)
class Bins:
    """Ten bins for each unit, equally full of the guide's draws for all data together.

    Attributes:
        edges: Of shape (U, 9). A value that is an edge itself, as those of discrete units are, has
            a bin of its own.
    """

    edges: Tensor

    @classmethod
    def of(cls, posterior: Posterior, seed: int) -> "Bins":
        """The bins of a posterior's units."""
        part = posterior[:POOLED]
        drawn = as_units(part.draw(-(-POOLED // len(part)), seed)).flatten(0, 1)
        places = torch.arange(1, BINS, dtype=drawn.dtype) / BINS
        return cls(torch.quantile(drawn, places, dim=0, interpolation="nearest").T.contiguous())

    def count(self, values: Tensor) -> Tensor:
        """How many of S draws, of shape (S, N, U), lie in each bin: of shape (N, U, bins)."""
        columns = values.permute(2, 0, 1).flatten(1).contiguous()
        places = sum(torch.searchsorted(self.edges, columns, right=r) for r in (False, True))
        assert isinstance(places, Tensor)
        places = places.reshape(-1, *values.shape[:2]).permute(2, 0, 1)
        counts = places.new_zeros(*places.shape[:2], 2 * BINS - 1)
        return counts.scatter_add_(-1, places, torch.ones_like(places)).int()


def information(counts: Tensor) -> tuple[Tensor, Tensor]:
    r"""The mutual information I(n; z) of the data point's index n and each unit, in bins.

    .. math:: \frac1N \sum_n \mathrm{KL}(\hat q(b \mid n) \| \hat q(b))

    less what it is on average where z does not depend on n, and counts are binomial: without that,
    S draws in B bins would add (B - 1) / 2S nats. Bins lose some of the information (ten hold 2.3
    nats at most), and add none.

    Arguments:
        counts: Draws in each bin, of shape (N, U, B), S in all.

    Returns:
        The information, in nats, and its standard error over data, each of shape (U,).

    Example:
        >>> told, error = information(torch.tensor([[[100, 0]], [[0, 100]]]))
        >>> round(told.item(), 2)  # log 2, less 1 / 2S
        0.69
    """
    each = _divergences(counts)
    draws, size = int(counts[0, 0].sum()), len(counts)
    pooled = (counts.double().mean(0) / draws).numpy()
    number = np.arange(1, draws + 1)
    chances = binom.pmf(number, draws, pooled[..., None])
    log_pooled = np.log(np.where(pooled > 0, pooled, 1.0))
    by_chance = chances @ (number / draws * np.log(number / draws)) - pooled * log_pooled
    error = each.std(0) / size**0.5 if size > 1 else torch.full_like(each[0], torch.nan)
    return each.mean(0) - torch.from_numpy(by_chance.sum(-1)), error


def information_gain(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """How much more of the data some draws tell than others in the same bins do, in nats.

    Arguments:
        before: Counts as :func:`information` takes them.
        after: Counts of the other draws, for the same data.

    Returns:
        The gain and its standard error over data, each of shape (U,).
    """
    gain = information(after)[0] - information(before)[0]
    error = (_divergences(after) - _divergences(before)).std(0) / len(before) ** 0.5
    return gain, error


def _divergences(counts: Tensor) -> Tensor:
    """KL from each data point's bins to those of all, of shape (N, U), in nats."""
    share = counts.double() / counts[0, 0].sum()
    pooled = share.mean(0)
    ratio = torch.where(share > 0, share / pooled, 1.0)
    return (share * ratio.log()).sum(-1)
