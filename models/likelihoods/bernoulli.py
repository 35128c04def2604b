"""Binary data."""

import math
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Advised, Likelihood


class BernoulliDistribution(Advised, dist.Bernoulli):
    title = "Bernoulli"

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> dist.Distribution:
        ndims = (
            len(self.batch_shape)
            if reinterpreted_batch_ndims is None
            else (reinterpreted_batch_ndims)
        )
        return _IndependentBernoulli(self, ndims) if ndims else self


class _IndependentBernoulli(dist.Independent):
    """Many Bernoulli variables as one event, whose log_prob takes few logarithms."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self.base_dist._validate_sample(value)
        event = -self.reinterpreted_batch_ndims
        if torch.compiler.is_compiling():  # which fuses all of it into one pass
            logits = self.base_dist.logits
            return (value * logits - F.softplus(logits)).flatten(event).sum(-1)
        return _BernoulliLogProb.apply(self.base_dist.logits.flatten(event), value.flatten(event))


class _BernoulliLogProb(torch.autograd.Function):
    r"""Sum of Bernoulli log probabilities over the last dimension, (\*, D) to (\*).

    .. math::
        \sum_d \log p(x_d) = \sum_d (x_d - \tfrac12) l_d - \tfrac12 |l_d|
            + \log \prod_d \sigma(|l_d|)

    A logarithm costs ten times as much as a sigmoid, so it is taken of products. Each factor is at
    least 1/2, so that of 100 is above the smallest normal float32, 2^-126.
    """

    GROUP = 100
    BLOCK_ELEMENTS = 2**19  # at once, to stay in the cache

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(logits, value)
        shape = torch.broadcast_shapes(logits.shape, value.shape)
        tables = (t.expand(shape).reshape(-1, *shape[-2:]) for t in (logits, value - 0.5))
        step = max(1, _BernoulliLogProb.BLOCK_ELEMENTS // max(1, math.prod(shape[-2:])))
        blocks = zip(*(table.split(step) for table in tables), strict=True)
        return torch.cat([_BernoulliLogProb._score(*block) for block in blocks]).reshape(shape[:-1])

    @staticmethod
    def _score(logits: Tensor, centred: Tensor) -> Tensor:
        size = logits.abs()
        total = (centred * logits).sum(-1) - size.sum(-1) / 2
        for group in size.sigmoid_().split(_BernoulliLogProb.GROUP, dim=-1):
            total += group.prod(-1).log()
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        logits, value = ctx.saved_tensors
        by_logits = by_value = None
        if ctx.needs_input_grad[0]:
            slope = grad.unsqueeze(-1) * (value - logits.sigmoid())
            by_logits = slope.sum_to_size(logits.shape)
        if ctx.needs_input_grad[1]:
            by_value = (grad.unsqueeze(-1) * logits).sum_to_size(value.shape)
        return by_logits, by_value


class Bernoulli(Likelihood):
    """Binary data; the decoder's output is the logit.

    Example:
        >>> Bernoulli((2,))(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.6931, -0.6931])
        >>> Bernoulli((2,))(torch.zeros(2)).log_prob(torch.tensor([0.0, 0.5]))
        Traceback (most recent call last):
        ValueError: 0.5 lies outside the support of the Bernoulli likelihood; for grey pixels ...
    """

    def forward(self, output: Tensor) -> dist.Distribution:
        return BernoulliDistribution(logits=output).named(self.names)
