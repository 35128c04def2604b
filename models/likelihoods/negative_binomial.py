"""Counts whose variance is larger than their mean, and with more zeros than that."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import constraints

from ..networks import SCALE_FLOOR
from .base import Columns
from .counts import CountCells, Counts, log_growth


class NegativeBinomialDistribution(CountCells):
    r"""By the logarithm of its mean :math:`\mu`, and its inverse dispersion :math:`\theta`.

    .. math::
        p(x) = \frac{\Gamma(x + \theta)}{\Gamma(\theta)\, x!}
            \Big(\frac{\theta}{\theta + \mu}\Big)^\theta \Big(\frac{\mu}{\theta + \mu}\Big)^x,
        \quad \mathrm{Var}\, x = \mu + \mu^2 / \theta

    It goes to a Poisson distribution as :math:`\theta` grows.
    """

    title = "negative binomial"
    arg_constraints = {  # noqa: RUF012
        "log_mean": constraints.real,
        "inverse_dispersion": constraints.positive,
    }

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + self.mean.square() / self.inverse_dispersion

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            theta = self.inverse_dispersion.expand(shape)
            return torch.poisson(torch._standard_gamma(theta) * (self.mean / theta))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        theta, mean = self.inverse_dispersion, self.mean
        by_zeros = -theta * (mean / theta).log1p()
        by_counts = value * (self.log_mean - (theta + mean).log())
        return _log_rising(theta, value) + by_zeros + by_counts - (value + 1).lgamma()


def _log_rising(theta: Tensor, count: Tensor) -> Tensor:
    r""":math:`\log \Gamma(\theta + x) - \log \Gamma(\theta)`.

    For large :math:`\theta` the two are close, and the difference is taken term by term of
    Stirling's series, whose next term is below 1e-10.
    """
    large = theta > 10
    above = torch.where(large, theta, torch.full_like(theta, 10.0))
    below = torch.where(large, torch.ones_like(theta), theta)
    series = (
        (above - 0.5) * (count / above).log1p()
        + count * ((above + count).log() - 1)
        + _stirling(above + count)
        - _stirling(above)
    )
    return torch.where(large, series, (below + count).lgamma() - below.lgamma())


def _stirling(a: Tensor) -> Tensor:
    inverse = 1 / a
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square / 1680)))


class ZeroInflatedDistribution(NegativeBinomialDistribution):
    """A negative binomial distribution, or zero; the log odds of a zero of its own are ``gate``."""

    title = "zero-inflated negative binomial"
    arg_constraints = {  # noqa: RUF012
        **NegativeBinomialDistribution.arg_constraints,
        "gate": constraints.real,
    }

    @property
    def mean(self) -> Tensor:
        return (-self.gate).sigmoid() * self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        counted, mean = self._counts(), self.mean
        second = (-self.gate).sigmoid() * (counted.variance + counted.mean.square())
        return second - mean.square()

    def _counts(self) -> NegativeBinomialDistribution:
        return NegativeBinomialDistribution(
            False, log_mean=self.log_mean, inverse_dispersion=self.inverse_dispersion
        )

    def sample(self, sample_shape: Any = ()) -> Tensor:
        counts = self._counts().sample(sample_shape)
        with torch.no_grad():
            return counts * torch.bernoulli((-self.gate).sigmoid().expand(counts.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        counted = F.logsigmoid(-self.gate) + self._counts().log_prob(value)
        zero = torch.logaddexp(F.logsigmoid(self.gate), counted)
        return torch.where(value == 0, zero, counted)


class NegativeBinomial(Counts):
    r"""Counts with mean :math:`\mu` and variance :math:`\mu + \mu^2 / \theta`.

    The decoder gives the mean, as for :class:`.Poisson`; the inverse dispersion :math:`\theta` is
    learned, from 1, one for each column of a table and one for an image (the parameters of Lopez et
    al. 2018, eq. 1, as in scvi-tools).

    Example:
        >>> p = NegativeBinomial((2,))(torch.zeros(1, 2), exposure=torch.tensor([3.0]))
        >>> p.mean, p.variance
        (tensor([[3., 3.]]), tensor([[11.9991, 11.9991]], grad_fn=<AddBackward0>))
    """

    outputs = 1

    def __init__(self, data_shape: Sequence[int], columns: Columns | None = None) -> None:
        super().__init__(data_shape, columns, outputs=self.outputs)
        self.raw_inverse_dispersion = nn.Parameter(torch.zeros(self.parameter_shape()))

    @property
    def inverse_dispersion(self) -> Tensor:
        r""":math:`\theta`, a scalar or of shape (D,)."""
        return log_growth(self.raw_inverse_dispersion).exp() + SCALE_FLOOR

    def forward(self, output: Tensor, exposure: Tensor | None = None) -> dist.Distribution:
        return self.counted(NegativeBinomialDistribution, output, exposure)

    def counted(
        self,
        family: type[NegativeBinomialDistribution],
        output: Tensor,
        exposure: Tensor | None,
        **parameters: Any,
    ) -> dist.Distribution:
        """The distribution with the mean that an output means."""
        theta = self.inverse_dispersion
        mean = self.log_mean(output, exposure)
        p = family(log_mean=mean, inverse_dispersion=theta, **parameters)
        return p.named(self.names)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Counts with more zeros than a negative binomial distribution has.

    The decoder gives the log odds of a zero beside the mean of the counts.
    """

    outputs = 2

    def forward(self, output: Tensor, exposure: Tensor | None = None) -> dist.Distribution:
        mean, gate = self.split(output, 2).unbind(-1 - len(self.data_shape))
        return self.counted(ZeroInflatedDistribution, mean, exposure, gate=gate)
