"""Faults of guides, for benchmarks/diagnostic_power.py: what is put into one that is exact."""

from typing import Any

import pyro.distributions as dist
import torch
from exact_programs import Steps
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

import ppl_vae

Place = tuple[Tensor, Tensor, Tensor]
FACTORS = {"scale halved": 0.5, "scale doubled": 2.0, "scale 1 % too small": 0.99}
SHIFTED = 0.8  # posterior standard deviations, where the shift depends on x
LOGITS = 5.0  # of the last class, that stand for a shift by a standard deviation
SHARE = 0.05  # of the data whose mean is off


class Faulty(nn.Module):
    """A program whose guide has a fault at each of its sites.

    Arguments:
        program: The program, whose guide's sites are normal, by steps, or categorical.
        fault: What is wrong, one of those of :func:`spoilt`.
    """

    def __init__(self, program: Any, fault: str) -> None:
        super().__init__()
        self.program, self.fault = program, fault
        drawn = ppl_vae.prior_predictive(program, program.data_shape, 2000, seed=0).x
        self.quantiles = _place(drawn).quantile(torch.tensor([0.5, 1 - SHARE]).double())

    def model(self, *args: Any, **kwargs: Any) -> Any:
        """The program's own."""
        return self.program.model(*args, **kwargs)

    def guide(self, x: Tensor) -> Any:
        """The program's, spoilt."""
        with _Spoil(self.fault, (_place(x), *self.quantiles)):
            return self.program.guide(x)


class _Spoil(Messenger):
    def __init__(self, fault: str, where: Place) -> None:
        super().__init__()
        self.fault, self.where = fault, where

    def _pyro_sample(self, msg: Any) -> None:
        if isinstance(msg["fn"], TorchDistributionMixin):  # and no plate
            msg["fn"] = spoilt(msg["fn"], self.fault, self.where)


def spoilt(q: Any, fault: str, where: Place) -> Any:
    """A distribution with a fault.

    Arguments:
        q: Normal, of independent units or not; constant by steps; or categorical.
        fault: A key of ``SHOULD_CATCH``.
        where: The mean of each data point, and the median and the 95 % quantile of these.
    """
    if isinstance(q, dist.Categorical):
        return dist.Categorical(logits=_classes(q.logits, fault, where))
    if fault == "none" or fault == "another prior":
        return q
    if isinstance(q, Steps) and fault == "one of two modes missed":
        middles = q.start[:, None] + q.step[:, None] * q.places
        return Steps(q.logits.masked_fill(middles < 0, -torch.inf), q.start, q.step)
    loc, scale = q.mean, q.stddev
    if fault == "collapsed to the prior":
        return _normal(torch.zeros_like(loc), torch.ones_like(scale))
    if fault == "correlation ignored":  # as the best guide without correlations would
        return _normal(loc, q.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt())
    if fault == "one unit collapsed":
        first = torch.arange(loc.shape[-1]) == 0
        return _normal(torch.where(first, 0.0, loc), torch.where(first, 1.0, scale))
    if fault == "units permuted":
        return _normal(loc.flip(-1), scale.flip(-1))
    return _moved(q, FACTORS.get(fault, 1.0), _shift(fault, where, len(q.event_shape)) * scale)


def _place(x: Tensor) -> Tensor:
    return x.double().flatten(1).mean(-1)


def _shift(fault: str, where: Place, events: int) -> Tensor:
    """By how many standard deviations the mean is off, of shape (N,) or (N, 1)."""
    place, median, high = where
    place = place.reshape(-1, *[1] * events)
    if fault == "mean shifted by sd/2":
        return torch.full_like(place, 0.5)
    if fault == "mean off for 5 % of the data":
        return 3.0 * (place > high)
    if fault == "shifts that average to zero":
        return SHIFTED * torch.sign(place - median)
    if fault == "overfitted encoder":  # as good as random, but the same for the same datum
        return SHIFTED * torch.sign((1e4 * place).sin())
    return torch.zeros_like(place)


def _moved(q: Any, factor: float, shift: Tensor) -> Any:
    """A distribution that is wider by a factor about its mean, and shifted."""
    if isinstance(q, Steps):
        start = q.mean + factor * (q.start - q.mean) + shift
        return Steps(q.logits, start, factor * q.step)
    if hasattr(q, "scale_tril"):
        return dist.MultivariateNormal(q.mean + shift, scale_tril=factor * q.scale_tril)
    return _normal(q.mean + shift, factor * q.stddev)


def _normal(loc: Tensor, scale: Tensor) -> Any:
    return dist.Normal(loc, scale).to_event(1) if loc.dim() > 1 else dist.Normal(loc, scale)


def _classes(logits: Tensor, fault: str, where: Place) -> Tensor:
    """Faults of a class: one that is too sure stands for a scale that is too small."""
    if fault == "collapsed to the prior":
        return torch.zeros_like(logits)
    if fault == "units permuted":
        return logits.flip(-1)
    if fault == "one of two modes missed":  # of those that lie close together
        return logits.masked_fill(torch.arange(logits.shape[-1]) == 2, -torch.inf)
    last = torch.arange(logits.shape[-1]) == logits.shape[-1] - 1
    return logits / FACTORS.get(fault, 1.0) + LOGITS * _shift(fault, where, 1) * last
