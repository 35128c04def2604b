r"""A model without latent variables, in which all numbers of a datum are independent: the least
that a fit must beat. All of it is computed in double precision.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.missing import observed
from ..programs.posterior import Posterior

BLOCK = 2**22  # numbers at once
CLASSES = 256  # values of columns that are not counts, at most
BETWEEN = 0.3719  # no multiple of one over the levels that images have
FAR = 1000.0
RESOLUTION = 1 / 510  # half a level of a byte: how near to 0 or 1 a mean of grey values is known

Family = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
"""From training data (M, D), which of them to go by, data (N, D) and a shared variance, if there is
one, to log densities (N, D)."""


def independent_columns(
    posterior: Posterior, train: Batch, seen: Tensor | None = None
) -> Tensor | None:
    r"""Log density of each datum under independent columns, fitted to training data.

    The support of the program's likelihood says which family, so that densities have the units of
    the program's: normal for real numbers, lognormal for positive ones, continuous Bernoulli for
    those in [0, 1]; Bernoulli for zeros and ones; for counts, Poisson or negative binomial (by its
    moments), whichever is the likelier on the training data; for finitely many values, their
    shares. Shares have a half added to each count (Krichevsky & Trofimov 1981); all else is of
    maximum likelihood. Each column of a table has a variance of its own, and one that is constant
    counts for nothing; data of other shapes share one, since the density of a pixel that never
    varies has no bound.

    Arguments:
        posterior: Its program, and the data to score, of N data points.
        train: The training data, of M. A covariate ``mask`` says which values are observed.
        seen: Which values of the training data to go by, of the shape of their ``x``; all, if
            left out.

    Returns:
        Of shape (N,), in nats, or ``None`` where the comparison would not be fair: more than ``x``
        is observed, or its support is none of these.

    Example:
        >>> from ppl_vae.models import VAE
        >>> vae, x = VAE((2,)), torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        >>> independent_columns(Posterior(vae, x[:1]), Batch(x=x)).exp()  # (3.5 / 5) ** 2
        tensor([0.4900], dtype=torch.float64)
    """
    sites, test = posterior.sites.observed, posterior.batch
    kinds = _kinds(next(iter(sites.values())), posterior) if len(sites) == 1 else None
    if kinds is None:
        return None
    used = observed(train.x, train) if seen is None else observed(train.x, train) & seen
    total = torch.zeros(test.size, dtype=torch.float64)
    for kind in dict.fromkeys(kinds):
        columns = torch.tensor([place for place, other in enumerate(kinds) if other == kind])
        x, y = train.x.flatten(1), test.x.flatten(1)
        w, v = used.flatten(1), observed(test.x, test).flatten(1)
        shared = None
        if kind == "real" and test.x.dim() > 2:
            shared = _shared_variance(x, w, columns)
        for some in columns.split(max(1, BLOCK // max(len(x), len(y)))):
            found = FAMILIES[kind](x[:, some].double(), w[:, some], y[:, some].double(), shared)
            total += torch.where(v[:, some], found, 0.0).sum(1)
    return total


def _kinds(likelihood: Any, posterior: Posterior) -> list[str] | None:
    """What each number of a datum may be, by the support of the likelihood."""
    shape = posterior.batch.x.shape[1:]

    def allows(value: float) -> Tensor:
        values = torch.full(shape, value, device=posterior.device, dtype=posterior.dtype)
        found = likelihood.support.check(values).cpu()
        if (more := found.dim() - len(shape)) > 0:  # bounds that depend on draws
            found = found.flatten(0, more - 1).all(0)
        return found.reshape(*found.shape, *[1] * (len(shape) - found.dim())).expand(shape)

    try:
        inside = {v: allows(v) for v in (0.0, 1.0, 2.0, -FAR, -1.0, BETWEEN, 1 + BETWEEN, FAR)}
        far, large = allows(FAR + BETWEEN), inside[FAR]
    except Exception:  # whatever the support of a user's likelihood raises
        return None
    between, negative = inside[BETWEEN], inside[-1.0] | inside[-FAR]
    unit = between & ~inside[1 + BETWEEN] & ~negative
    discrete = ~between & inside[0.0] & inside[1.0] & ~negative
    of_each = {
        "real": between & inside[-FAR] & far,
        "positive": between & ~negative & far & ~unit,
        "unit": unit,
        "binary": discrete & ~inside[2.0] & _whole(posterior.batch.x),
        "count": discrete & large,
        "value": discrete & ~large & (inside[2.0] | ~_whole(posterior.batch.x)),
    }
    if not torch.stack([*of_each.values()]).any(0).all():
        return None
    flat = {kind: where.flatten().tolist() for kind, where in of_each.items()}
    kinds = [next(k for k in flat if flat[k][place]) for place in range(len(flat["real"]))]
    known = posterior.batch.x.flatten(1)[:, torch.tensor([k == "value" for k in kinds])]
    return kinds if len(known.unique()) <= CLASSES else None


def _whole(x: Tensor) -> Tensor:
    return (x == x.round()).all(0)


def _moments(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, means and variances (of maximum likelihood) of the observed values of columns."""
    count = w.sum(0).double()
    safe = count.clamp(min=1)
    mean = torch.where(w, x, 0.0).sum(0) / safe
    return count, mean, torch.where(w, x - mean, 0.0).square().sum(0) / safe


def column_moments(x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each number of a datum: how often it was observed, mean and variance, of shape
    data_shape, in double precision; some columns at a time.

    Arguments:
        x: Data of shape (N, *data_shape).
        seen: Which of its values were observed.
    """
    flat, w = x.flatten(1), seen.flatten(1)
    size = max(1, BLOCK // max(1, len(x)))
    parts = [
        _moments(flat[:, start : start + size].double(), w[:, start : start + size])
        for start in range(0, flat.shape[1], size)
    ]
    count, mean, variance = (
        torch.cat(part).reshape(x.shape[1:]) for part in zip(*parts, strict=True)
    )
    return count, mean, variance


def _shared_variance(x: Tensor, w: Tensor, columns: Tensor) -> Tensor:
    """The mean over all values of their squared distance from the mean of their column."""
    total, count = 0.0, 0.0
    for some in columns.split(max(1, BLOCK // len(x))):
        counts, _, variance = _moments(x[:, some].double(), w[:, some])
        total, count = total + (counts * variance).sum().item(), count + counts.sum().item()
    return torch.tensor(total / max(count, 1.0), dtype=torch.float64)


def _normal(x: Tensor, w: Tensor, y: Tensor, shared: Tensor | None) -> Tensor:
    _, mean, variance = _moments(x, w)
    variance = variance if shared is None else shared.expand_as(mean)
    safe = torch.where(variance > 0, variance, 1.0)
    found = -((y - mean).square() / safe + safe.log() + math.log(2 * math.pi)) / 2
    return torch.where(variance > 0, found, 0.0)


def _lognormal(x: Tensor, w: Tensor, y: Tensor, _: Tensor | None) -> Tensor:
    # What is missing is stored as 0, and its density is not used.
    logs = [torch.where(t > 0, t, 1.0).log() for t in (x, y)]
    return _normal(logs[0], w, logs[1], None) - logs[1]


def _bernoulli(x: Tensor, w: Tensor, y: Tensor, _: Tensor | None) -> Tensor:
    count, mean, _ = _moments(x, w)
    share = (mean * count + 0.5) / (count + 1)
    return torch.where(y > 0.5, share.log(), (-share).log1p())


def _continuous_bernoulli(x: Tensor, w: Tensor, y: Tensor, shared: Tensor | None) -> Tensor:
    """The mean is 1/2 + (1 / tanh h - 1 / h) / 2, of half the logit h (Loaiza-Ganem & Cunningham
    2019, eq. 8); density, exp(2 h x) h / (exp(h) sinh h)."""
    mean = _moments(x, w)[1].clamp(RESOLUTION, 1 - RESOLUTION)
    low, high = torch.full_like(mean, -1 / RESOLUTION), torch.full_like(mean, 1 / RESOLUTION)
    for _halving in range(60):
        half = (low + high) / 2
        size = half.abs().clamp(min=1e-4)
        langevin = torch.where(
            half.abs() < 1e-4, half / 3, (1 / size.tanh() - 1 / size).copysign(half)
        )
        below = 0.5 + langevin / 2 < mean
        low, high = torch.where(below, half, low), torch.where(below, high, half)
    half = (low + high) / 2
    size = half.abs().clamp(min=1e-8)
    log_sinh = size + torch.log1p(-(-2 * size).exp()) - math.log(2)
    return 2 * half * y - half + size.log() - log_sinh


def _count(x: Tensor, w: Tensor, y: Tensor, _: Tensor | None) -> Tensor:
    count, mean, variance = _moments(x, w)
    mean = (mean * count + 0.5) / count.clamp(min=1)
    wide = variance > mean
    size = torch.where(wide, mean.square() / (variance - mean).clamp(min=1e-12), 1.0)

    def poisson(k: Tensor) -> Tensor:
        return k * mean.log() - mean - torch.lgamma(k + 1)

    def negative_binomial(k: Tensor) -> Tensor:
        ways = torch.lgamma(k + size) - torch.lgamma(size) - torch.lgamma(k + 1)
        return ways - size * (mean / size).log1p() + k * (mean.log() - (size + mean).log())

    gain = torch.where(w, negative_binomial(x) - poisson(x), 0.0).sum(0)
    return torch.where(wide & (gain > 0), negative_binomial(y), poisson(y))


def _value(x: Tensor, w: Tensor, y: Tensor, _: Tensor | None) -> Tensor:
    known = torch.cat([x[w], y.flatten()]).unique()
    codes = [torch.searchsorted(known, t.contiguous()).clamp(max=len(known) - 1) for t in (x, y)]
    counts = torch.zeros(len(known), x.shape[1], dtype=torch.float64)
    counts.scatter_add_(0, codes[0], w.double())
    of_test = torch.zeros_like(counts).scatter_add_(0, codes[1], torch.ones_like(y))
    possible = ((counts + of_test) > 0).sum(0)
    shares = (counts + 0.5) / (counts.sum(0) + possible / 2)
    return shares.log().gather(0, codes[1])


FAMILIES: dict[str, Family] = {
    "real": _normal,
    "positive": _lognormal,
    "unit": _continuous_bernoulli,
    "binary": _bernoulli,
    "count": _count,
    "value": _value,
}
