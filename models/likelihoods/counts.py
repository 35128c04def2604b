"""Counts: Poisson, and what the negative binomial shares with it."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from .base import OF_REALS, Cells, Columns, Likelihood, numbers_of

KNEE = 20.0  # e^20 is half a billion


class CountCells(Cells):
    """A distribution of counts, with advice."""

    support = constraints.nonnegative_integer

    def remedy(self, value: float) -> str:
        return f"{OF_REALS}, for positive ones lognormal"


class PoissonDistribution(CountCells):
    """By the logarithm of its rate, so that no rate is too low."""

    title = "Poisson"
    arg_constraints = {"log_rate": constraints.real}  # noqa: RUF012

    @property
    def mean(self) -> Tensor:
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return value * self.log_rate - self.mean - (value + 1).lgamma()


class Counts(Likelihood):
    """A likelihood of counts, whose mean is e to the decoder's output, times an exposure.

    Where mean counts c of columns are known, the mean is c times that. Beyond e^20 it goes on as a
    straight line, so that it neither overflows nor loses its gradient. The encoder reads
    log(1 + x), less log(1 + c).

    Arguments:
        data_shape: Shape of one datum.
        columns: What is known of each column of a table: its mean as ``loc``.
        outputs: Numbers that the decoder gives for each value of a datum.
    """

    takes_exposure = True
    usual: Tensor | None

    def __init__(
        self, data_shape: Sequence[int], columns: Columns | None = None, *, outputs: int = 1
    ) -> None:
        super().__init__(data_shape, columns, outputs=outputs)
        means = numbers_of(columns or (), "loc", 1.0)
        usual = torch.tensor([mean if mean > 0 else 1.0 for mean in means]) if means else None
        self.register_buffer("usual", usual, persistent=False)

    def log_mean(self, output: Tensor, exposure: Tensor | None) -> Tensor:
        """The logarithm of the mean."""
        log_mean = log_growth(output)
        if self.usual is not None:
            log_mean = log_mean + self.usual.log()
        if exposure is None:
            return log_mean
        missing = 1 + len(self.data_shape) - exposure.dim()
        return log_mean + exposure.reshape(*exposure.shape, *(1,) * missing).log()

    def read(self, x: Tensor) -> Tensor:
        read = x.clamp(min=0).log1p()  # finite whatever x is: its own density refuses it
        return read if self.usual is None else read - self.usual.log1p()


def log_growth(raw: Tensor) -> Tensor:
    r"""The logarithm of :math:`e^r`, or beyond r = 20 of its tangent there.

    Example:
        >>> (log_growth(torch.tensor([19.0, 20.0, 21.0])) - 20).exp()
        tensor([0.3679, 1.0000, 2.0000])
    """
    return raw.clamp(max=KNEE) + (raw - KNEE).clamp(min=0).log1p()


class Poisson(Counts):
    """Counts whose variance is their mean.

    Example:
        >>> Poisson((2,))(torch.zeros(1, 2), exposure=torch.tensor([3.0])).mean
        tensor([[3., 3.]])
        >>> Poisson((2,))(torch.zeros(2)).log_prob(torch.tensor([1.0, 0.5]))
        Traceback (most recent call last):
        ValueError: 0.5 lies outside the support of the Poisson likelihood; for real numbers ...
    """

    def forward(self, output: Tensor, exposure: Tensor | None = None) -> dist.Distribution:
        return PoissonDistribution(log_rate=self.log_mean(output, exposure)).named(self.names)
