"""Values in [0, 1]."""

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from .base import Advised, Likelihood


class _ContinuousBernoulliDistribution(Advised, dist.ContinuousBernoulli):
    """Computed from the logit l = 2h, of any size.

    torch's is computed from probabilities, which saturate beyond |l| = 16 in float32: there its
    density is not normalized, and its mean stops at 0.06 and 0.94.
    """

    title = "continuous Bernoulli"

    def _half(self) -> tuple[Tensor, Tensor, Tensor]:
        half = self.logits / 2
        small = half.abs() < 1e-2  # where series are used, whose next terms are below 1e-12
        return half, small, torch.where(small, torch.ones_like(half), half)

    def _cont_bern_log_norm(self) -> Tensor:
        # log(2h / tanh h) = log 2 + log(1 + h^2 / 3 - h^4 / 45 + ...)
        half, small, safe = self._half()
        series = torch.log1p(half.square() / 3 - half.square().square() / 45)
        return math.log(2) + torch.where(small, series, (safe / safe.tanh()).log())

    @property
    def mean(self) -> Tensor:
        # 1/2 + (1 / tanh h - 1 / h) / 2 = 1/2 + (h / 3 - h^3 / 45 + ...) / 2
        half, small, safe = self._half()
        langevin = torch.where(small, half / 3 - half**3 / 45, 1 / safe.tanh() - 1 / safe)
        return 0.5 + langevin / 2

    def icdf(self, value: Tensor) -> Tensor:
        # For l < 0 it is log(1 + u (e^l - 1)) / l. By symmetry, (1 - u, -l) gives 1 - x.
        logits, value = torch.broadcast_tensors(self.logits, value)
        size = logits.abs()
        flat = size < 1e-4
        safe = torch.where(flat, torch.ones_like(size), size)
        u = torch.where(logits > 0, 1 - value, value)
        x = torch.where(
            flat, u - size * u * (1 - u) / 2, -torch.log1p(u * torch.expm1(-safe)) / safe
        )
        return torch.where(logits > 0, 1 - x, x)


class ContinuousBernoulli(Likelihood):
    """Values in [0, 1], such as grey pixels; the decoder's output is the logit.

    Its density is normalized over [0, 1], unlike the Bernoulli formula for grey values
    (Loaiza-Ganem & Cunningham 2019, eq. 3).
    """

    def forward(self, output: Tensor) -> dist.Distribution:
        return _ContinuousBernoulliDistribution(logits=output).named(self.names)
