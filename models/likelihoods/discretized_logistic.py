"""Images of 256 levels: logistic distributions cut into levels, and mixtures of them."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from .base import Advised, Columns, Likelihood

SCALE_FLOOR = 1e-3  # an eighth of a level of 256; -7 is the least log scale of PixelCNN++
SPREAD = 0.8  # of the means that a mixture begins with


class Levels(constraints.Constraint):
    """Multiples of 1 / L from 0 to 1, as closely as single precision has them."""

    is_discrete = True
    event_dim = 0

    def __init__(self, levels: int) -> None:
        self.levels = levels
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        level = value * self.levels
        return ((level - level.round()).abs() < 1e-3) & (value >= 0) & (value <= 1)


class LevelDistribution(Advised, dist.TorchDistribution):
    r"""A mixture of logistic variables y on a scale from -1 to 1, cut into levels.

    .. math::
        P(k) = \sum_j \pi_j \Big[ \sigma\Big(\frac{y_k + 1 / L - \mu_j}{s_j}\Big)
             - \sigma\Big(\frac{y_k - 1 / L - \mu_j}{s_j}\Big) \Big], \quad y_k = 2 k / L - 1

    where the first term is one at the highest level L, and the second zero at the lowest (Salimans
    et al. 2017, eq. 2). Values are k / L.

    Arguments:
        levels: The highest level L.
        loc: Means :math:`\mu` of shape (\*, components).
        width: Scales s of that shape.
        logits: Logarithms of the shares :math:`\pi`, up to a constant, of that shape.
        title: What errors call the likelihood.
        validate_args: As of any distribution.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.independent(constraints.real, 1),
        "width": constraints.independent(constraints.positive, 1),
        "logits": constraints.independent(constraints.real, 1),
    }

    def __init__(
        self,
        levels: int,
        loc: Tensor,
        width: Tensor,
        logits: Tensor,
        title: str,
        validate_args: bool | None = None,
    ) -> None:
        self.levels, self.title = levels, title
        self.loc, self.width, self.logits = loc, width, logits
        super().__init__(loc.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return Levels(self.levels)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "LevelDistribution":
        shape = torch.Size(batch_shape) + self.loc.shape[-1:]
        loc, width, logits = (t.expand(shape) for t in (self.loc, self.width, self.logits))
        new = LevelDistribution(self.levels, loc, width, logits, self.title, self._validate_args)
        expanded: LevelDistribution = new.named(self.names)
        return expanded

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        level = (value * self.levels).round().unsqueeze(-1)
        middle, half = 2 * level / self.levels - 1, 1 / self.levels
        above = F.logsigmoid((middle + half - self.loc) / self.width)
        below = F.logsigmoid((self.loc - middle + half) / self.width)
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a))
        between = (-(-2 * half / self.width).expm1()).log()
        lowest, highest = level <= 0, level >= self.levels
        each = (
            torch.where(highest, 0.0, above)
            + torch.where(lowest, 0.0, below)
            + torch.where(lowest | highest, 0.0, between)
        )
        return (each + self.logits.log_softmax(-1)).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            shares = self.logits.softmax(-1).expand(*shape, -1)
            picked = shares.reshape(-1, shares.shape[-1]).multinomial(1).reshape(*shape, 1)
            loc, width = (
                t.expand(shares.shape).gather(-1, picked).squeeze(-1)
                for t in (self.loc, self.width)
            )
            u = torch.rand_like(loc).clamp(torch.finfo(loc.dtype).tiny, 1 - 1e-7)
            y = loc + width * u.logit()
            return ((y + 1) / 2 * self.levels).round().clamp(0, self.levels) / self.levels

    @property
    def mean(self) -> Tensor:
        return self._moments()[0]

    @property
    def variance(self) -> Tensor:
        mean, square = self._moments()
        return square - mean.square()

    def _moments(self) -> tuple[Tensor, Tensor]:
        """E k / L and E k^2 / L^2, by the sum over j of P(k >= j) and of (2 j - 1) P(k >= j)."""
        first, second = torch.zeros_like(self.loc[..., 0]), torch.zeros_like(self.loc[..., 0])
        shares = self.logits.softmax(-1)
        for j in range(1, self.levels + 1):
            edge = (2 * j - 1) / self.levels - 1
            reached = (shares * ((self.loc - edge) / self.width).sigmoid()).sum(-1)
            first, second = first + reached, second + (2 * j - 1) * reached
        return first / self.levels, second / self.levels**2

    def remedy(self, value: float) -> str:
        return (
            f"its values are multiples of 1/{self.levels} from 0 to 1: store images as bytes "
            "(uint8), or use continuous-bernoulli for values in [0, 1] and gaussian for others"
        )


class DiscretizedLogistic(Likelihood):
    """Levels of grey or colour, as logistic variables cut into levels (Kingma et al. 2016).

    The decoder gives mean and scale for each value, on a scale from -1 to 1, which is also what the
    encoder reads. Probabilities are those of levels, so that there are bits per dimension.

    Arguments:
        data_shape: Shape of one datum.
        columns: What is known of each column of a table.
        levels: The highest level L, by which values have been divided.

    Raises:
        ValueError: If ``levels`` is not an integer of at least 1.

    Example:
        >>> p = DiscretizedLogistic((1, 2, 2), levels=16)(torch.zeros(2, 2, 2))
        >>> p.batch_shape, p.mean[0, 0, 0]
        (torch.Size([1, 2, 2]), tensor(0.5000))
    """

    title = "discretized logistic"

    def __init__(
        self,
        data_shape: Sequence[int],
        columns: Columns | None = None,
        levels: int = 255,
        *,
        outputs: int = 2,
    ) -> None:
        super().__init__(data_shape, columns, outputs=outputs)
        if isinstance(levels, bool) or not isinstance(levels, int) or levels < 1:
            raise ValueError(f"levels must be an integer of at least 1, got {levels!r}")
        self.levels, self.outputs = levels, outputs

    def forward(self, output: Tensor) -> dist.Distribution:
        given = self.split(output, self.outputs).movedim(-1 - len(self.data_shape), -1)
        loc, raw, logits = self.components_of(given)
        width = F.softplus(raw) + SCALE_FLOOR
        return LevelDistribution(self.levels, loc, width, logits, self.title).named(self.names)

    def components_of(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Means, raw scales and logits of the components, each of shape (\*, components)."""
        loc, raw = given.chunk(2, -1)
        return loc, raw, torch.zeros_like(loc)

    def read(self, x: Tensor) -> Tensor:
        return 2 * x - 1


class DiscretizedLogisticMixture(DiscretizedLogistic):
    """Levels of grey or colour, as mixtures of logistic variables (Salimans et al. 2017).

    The decoder gives share, mean and scale of each component for each value; channels are
    independent given z.

    Arguments:
        data_shape: Shape of one datum.
        columns: What is known of each column of a table.
        levels: The highest level L, by which values have been divided.
        components: Number of components.

    Example:
        >>> likelihood = DiscretizedLogisticMixture((1, 2, 2), levels=16, components=3)
        >>> likelihood.output_shape
        (9, 2, 2)
        >>> p = likelihood(torch.zeros(9, 2, 2))
        >>> levels = torch.arange(17).reshape(17, 1, 1, 1) / 16
        >>> bool(torch.isclose(p.log_prob(levels).exp().sum(0), torch.tensor(1.0)).all())
        True
    """

    title = "discretized logistic mixture"
    begin: Tensor

    def __init__(
        self,
        data_shape: Sequence[int],
        columns: Columns | None = None,
        levels: int = 255,
        components: int = 5,
    ) -> None:
        super().__init__(data_shape, columns, levels, outputs=3 * components)
        # Apart from each other, or all would begin as one.
        begin = torch.linspace(-SPREAD, SPREAD, components)
        self.register_buffer("begin", begin, persistent=False)

    def components_of(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, raw, logits = given.chunk(3, -1)
        return self.begin + loc, raw, logits
