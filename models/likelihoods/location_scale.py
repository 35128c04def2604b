"""Around the decoder's output, with a scale: Gaussian, Laplace, Student's t and log-normal."""

import math
from collections.abc import Sequence
from numbers import Real

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..networks import inverse_positive, positive
from .base import Advised, Columns, Likelihood, location_and_scale


class NormalDistribution(Advised, dist.Normal):
    title = "Gaussian"


class LaplaceDistribution(Advised, dist.Laplace):
    title = "Laplace"


class LogNormalDistribution(Advised, dist.LogNormal):
    title = "lognormal"

    def remedy(self, value: float) -> str:
        return "for real numbers use gaussian or laplace, for counts poisson or negative-binomial"


class StudentTDistribution(Advised, dist.StudentT):
    """Accurate in single precision whatever the degrees of freedom.

    PyTorch's takes the difference of two log gamma functions, which leaves three digits of it at
    10,000 degrees of freedom.
    """

    title = "Student-t"

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        off = (value - self.loc) / self.scale
        return (
            _log_gamma_ratio(self.df / 2)
            - (self.df.log() + math.log(math.pi)) / 2
            - self.scale.log()
            - (self.df + 1) / 2 * (off.square() / self.df).log1p()
        )


def _log_gamma_ratio(a: Tensor) -> Tensor:
    r""":math:`\log \Gamma(a + 1/2) - \log \Gamma(a)`; the series' next term is below 1e-9."""
    large = a > 20
    safe = torch.where(large, a, torch.full_like(a, 20.0))
    series = safe.log() / 2 - 1 / (8 * safe) + 1 / (192 * safe**3)
    below = torch.where(large, torch.ones_like(a), a)
    return torch.where(large, series, (below + 0.5).lgamma() - below.lgamma())


class LocationScale(Likelihood):
    r"""Real data around the decoder's output m, with a scale that is fixed or learned.

    A learned scale is shared by all pixels of an image (Rybkin et al. 2021, eq. 5), since the
    scales of pixels that never vary would go to zero; each column of a table has its own. Where
    mean c and standard deviation u of each column are known, the location is :math:`c + u m` and a
    learned scale is a multiple of u: networks see standardized data, densities are in the units
    of the data.

    Arguments:
        data_shape: Shape of one datum.
        scale: The fixed scale, in units of the data; ``None`` learns it, from 1, or from u.
        columns: What is known of each column of a table: its ``loc`` c and ``scale`` u.
    """

    fixed_scale: Tensor | None
    center: Tensor | None
    unit: Tensor | None

    def __init__(
        self,
        data_shape: Sequence[int],
        scale: float | None = None,
        columns: Columns | None = None,
    ) -> None:
        super().__init__(data_shape, columns)
        fixed = None if scale is None else _as_scale(scale)
        self.register_buffer("fixed_scale", fixed, persistent=False)
        if fixed is None:
            self.raw_scale = nn.Parameter(inverse_positive(torch.ones(self.parameter_shape())))
        center, unit = (None, None) if columns is None else location_and_scale(columns)
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("unit", unit, persistent=False)

    @property
    def scale(self) -> Tensor:
        """The scale, a scalar or of shape (D,), in units of the data."""
        if self.fixed_scale is not None:
            return self.fixed_scale
        scale = positive(self.raw_scale)
        return scale if self.unit is None else self.unit * scale

    def forward(self, output: Tensor) -> dist.Distribution:
        if self.center is not None and self.unit is not None:
            output = self.center + self.unit * output
        return self.around(output).named(self.names)

    def around(self, loc: Tensor) -> Advised:
        """The distribution around a location in units of the data."""
        raise NotImplementedError

    def read(self, x: Tensor) -> Tensor:
        if self.center is not None and self.unit is not None:
            x = (x - self.center) / self.unit
        return x


def _as_scale(scale: float) -> Tensor:
    number = isinstance(scale, Real) and not isinstance(scale, bool)
    # As float32, and with a value even while torch's default device is meta.
    rounded = torch.tensor(float(scale) if number else math.nan, device="cpu").item()
    if not (0 < rounded < math.inf):
        raise ValueError(f"likelihood_scale must be a positive number, got {scale!r}")
    return torch.tensor(rounded)


class Gaussian(LocationScale):
    """Real data around the decoder's output with Gaussian noise: squared error, in nats.

    Example:
        >>> Gaussian((2,), scale=0.5)(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.2258, -2.2258])
        >>> metres = [{"name": "height", "loc": 1.7, "scale": 0.1}]
        >>> Gaussian((1,), columns=metres)(torch.zeros(1)).mean
        tensor([1.7000])
    """

    def around(self, loc: Tensor) -> Advised:
        return NormalDistribution(loc, self.scale)


class Laplace(LocationScale):
    """Real data around the decoder's output with Laplace noise: absolute error, in nats."""

    def around(self, loc: Tensor) -> Advised:
        return LaplaceDistribution(loc, self.scale)


class StudentT(LocationScale):
    """Real data with outliers: Student's t around the decoder's output.

    Its degrees of freedom are learned, from 5, one for each column of a table and one for an
    image. They stay above 1, so that there is a mean.
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        scale: float | None = None,
        columns: Columns | None = None,
    ) -> None:
        super().__init__(data_shape, scale, columns)
        self.raw_df = nn.Parameter(inverse_positive(4 * torch.ones(self.parameter_shape())))

    @property
    def df(self) -> Tensor:
        """Degrees of freedom, a scalar or of shape (D,)."""
        return 1 + positive(self.raw_df)

    def around(self, loc: Tensor) -> Advised:
        return StudentTDistribution(self.df, loc, self.scale)


class LogNormal(LocationScale):
    """Positive data, whose logarithm is normal around the decoder's output.

    Scale, and what is known of columns, are those of the logarithm. Densities are those of the
    data themselves.

    Example:
        >>> LogNormal((1,))(torch.zeros(1)).log_prob(torch.tensor([0.0]))
        Traceback (most recent call last):
        ValueError: 0 lies outside the support of the lognormal likelihood; for real numbers ...
    """

    def around(self, loc: Tensor) -> Advised:
        return LogNormalDistribution(loc, self.scale)

    def read(self, x: Tensor) -> Tensor:
        # Finite whatever x is: data outside the support are refused by their own density.
        return super().read(x.clamp(min=torch.finfo(x.dtype).tiny).log())
