r"""Likelihoods: from the decoder's output to the distribution p(x | z).

Each is a module that takes the decoder's output, of shape (\*, data shape), and returns a Pyro
distribution of that batch shape. With Pyro's validation on, as it is by default, the log
probability of a value outside the support raises a ``ValueError`` that names a suitable likelihood.
"""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .networks import inverse_positive, positive


class _Advised:
    """A distribution whose error about a value names a suitable likelihood."""

    def _validate_sample(self, value: Tensor) -> None:
        try:
            super()._validate_sample(value)  # type: ignore[misc]
        except ValueError:
            inside = self.support.check(value)  # type: ignore[attr-defined]
            if inside.all():
                raise  # about shapes
            outlier = value[~inside.expand(value.shape)][0].item()
            name = type(self).__mro__[2].__name__
            raise ValueError(
                f"{outlier:.6g} lies outside the support of the {name} likelihood; "
                f"{_remedy(outlier)}"
            ) from None


def _remedy(value: float) -> str:
    if math.isnan(value):
        return "remove or impute missing values"
    if 0 <= value <= 1:
        return "for grey pixels in [0, 1] use continuous-bernoulli, or binarize the data"
    if 1 < value <= 255:
        return (
            "for levels of grey, store them as bytes (uint8) or divide by the highest; "
            "for real numbers use gaussian or laplace"
        )
    return "for real numbers use gaussian or laplace"


class _BernoulliDistribution(_Advised, dist.Bernoulli):
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


class _ContinuousBernoulliDistribution(_Advised, dist.ContinuousBernoulli):
    """Computed from the logit l = 2h, of any size.

    torch's is computed from probabilities, which saturate beyond |l| = 16 in float32: there its
    density is not normalized, and its mean stops at 0.06 and 0.94.
    """

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


class _NormalDistribution(_Advised, dist.Normal):
    pass


class _LaplaceDistribution(_Advised, dist.Laplace):
    pass


class Bernoulli(nn.Module):
    """Binary data; the decoder's output is the logit.

    Example:
        >>> Bernoulli((2,))(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.6931, -0.6931])
        >>> Bernoulli((2,))(torch.zeros(2)).log_prob(torch.tensor([0.0, 0.5]))
        Traceback (most recent call last):
        ValueError: 0.5 lies outside the support of the Bernoulli likelihood; for grey pixels ...
    """

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()

    def forward(self, output: Tensor) -> dist.Distribution:
        return _BernoulliDistribution(logits=output)


class ContinuousBernoulli(nn.Module):
    """Values in [0, 1], such as grey pixels; the decoder's output is the logit.

    Its density is normalized over [0, 1], unlike the Bernoulli formula for grey values
    (Loaiza-Ganem & Cunningham 2019, eq. 3).
    """

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()

    def forward(self, output: Tensor) -> dist.Distribution:
        return _ContinuousBernoulliDistribution(logits=output)


class _LocationScale(nn.Module):
    """Real data around the decoder's output, with a scale that is fixed or learned.

    A learned scale is shared by all pixels of an image (Rybkin et al. 2021, eq. 5), since the
    scales of pixels that never vary would go to zero; each column of a table has its own.

    Arguments:
        data_shape: Shape of one datum.
        scale: The fixed scale, in units of the data; ``None`` learns it, from 1.
    """

    family: Callable[[Tensor, Tensor], dist.Distribution]
    fixed_scale: Tensor | None

    def __init__(self, data_shape: Sequence[int], scale: float | None = None) -> None:
        super().__init__()
        fixed = None if scale is None else _as_scale(scale)
        self.register_buffer("fixed_scale", fixed, persistent=False)
        if fixed is None:
            shape = tuple(data_shape) if len(data_shape) == 1 else ()
            self.raw_scale = nn.Parameter(inverse_positive(torch.ones(shape)))

    @property
    def scale(self) -> Tensor:
        """The scale, a scalar or of shape (D,), in units of the data."""
        return positive(self.raw_scale) if self.fixed_scale is None else self.fixed_scale

    def forward(self, output: Tensor) -> dist.Distribution:
        return self.family(output, self.scale)


def _as_scale(scale: float) -> Tensor:
    number = isinstance(scale, Real) and not isinstance(scale, bool)
    # As float32, and with a value even while torch's default device is meta.
    rounded = torch.tensor(float(scale) if number else math.nan, device="cpu").item()
    if not (0 < rounded < math.inf):
        raise ValueError(f"likelihood_scale must be a positive number, got {scale!r}")
    return torch.tensor(rounded)


class Gaussian(_LocationScale):
    """Real data around the decoder's output with Gaussian noise: squared error, in nats.

    Example:
        >>> Gaussian((2,), scale=0.5)(torch.zeros(2)).log_prob(torch.tensor([0.0, 1.0]))
        tensor([-0.2258, -2.2258])
    """

    family = _NormalDistribution


class Laplace(_LocationScale):
    """Real data around the decoder's output with Laplace noise: absolute error, in nats."""

    family = _LaplaceDistribution


LIKELIHOODS: dict[str, type[nn.Module]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "laplace": Laplace,
}


def make_likelihood(
    likelihood: str | nn.Module, data_shape: Sequence[int], scale: float | None
) -> nn.Module:
    """Make a likelihood from its name; a module is returned unchanged.

    Raises:
        ValueError: If the name is unknown, or the likelihood has no scale.
    """
    named = isinstance(likelihood, str) and likelihood in LIKELIHOODS
    if not named and not isinstance(likelihood, nn.Module):
        known = ", ".join(LIKELIHOODS)
        raise ValueError(f"likelihood must be one of {known}, or a module, got {likelihood!r}")
    kind = LIKELIHOODS[likelihood] if isinstance(likelihood, str) else None
    if scale is None:
        return (
            likelihood if isinstance(likelihood, nn.Module) else LIKELIHOODS[likelihood](data_shape)
        )
    if kind is None or not issubclass(kind, _LocationScale):
        raise ValueError(
            f"likelihood_scale={scale} was given, but the likelihood {likelihood!r} has no scale: "
            "leave it out, or use gaussian or laplace"
        )
    return kind(data_shape, scale)
