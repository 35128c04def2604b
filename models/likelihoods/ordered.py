"""Ordered categories, as codes from 0."""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..networks import inverse_positive, positive
from .base import Columns, Likelihood
from .categorical import CodeDistribution, class_counts


class Cutpoints(nn.Module):
    r"""Learned cutpoints :math:`c_1 < \dots < c_{K-1}` of each of D columns, for

    .. math:: P(x \le k) = \sigma(c_{k + 1} - m)

    (the cumulative logit model of McCullagh 1980, eq. 2.3). At m = 0 all codes of a column are as
    probable at first.

    Arguments:
        classes: How many codes each column has.
        shape: The shape of what there are cutpoints for: (D,), or () for one set.
    """

    inner: Tensor

    def __init__(self, classes: Sequence[int], shape: tuple[int, ...]) -> None:
        super().__init__()
        most = max(classes)
        first = torch.tensor([-math.log(k - 1) for k in classes])
        steps = [[_step(i, k) if i < k - 1 else 1.0 for i in range(1, most - 1)] for k in classes]
        self.first = nn.Parameter(first.reshape(shape))
        if most > 2:
            self.raw_steps = nn.Parameter(
                inverse_positive(torch.tensor(steps).reshape(*shape, most - 2))
            )
        inner = torch.arange(most) < torch.tensor(classes).reshape(*shape, 1) - 1
        self.register_buffer("inner", inner, persistent=False)  # all codes but the last
        self.most = most

    def forward(self, output: Tensor) -> Tensor:
        r"""Log probabilities of shape (\*, D, K), whatever behind a column's last."""
        first = (self.first - output).unsqueeze(-1)
        zero = torch.zeros_like(first)
        reached, log_steps = first, zero[..., :0]
        if self.most > 2:
            steps = positive(self.raw_steps)
            reached = torch.cat([first, first + steps.cumsum(-1)], -1)
            log_steps = (-(-steps).expm1()).log().expand(*zero.shape[:-1], -1)
        # sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - e^(b - a))
        above = torch.cat([F.logsigmoid(reached), zero], -1)
        below = torch.cat([zero, F.logsigmoid(-reached)], -1)
        between = torch.cat([zero, log_steps, zero], -1)
        return below + torch.where(self.inner, above + between, 0.0)


def _step(i: int, classes: int) -> float:
    """From cutpoint i to the next, where codes are as probable as each other."""
    return math.log((i + 1) / (classes - i - 1)) - math.log(i / (classes - i))


class Ordered(Likelihood):
    """Ordered categories, as codes 0 ... K - 1: a logistic variable around the decoder's output,
    cut at learned points, for each column of a table or all of an image.

    The encoder reads codes on a scale from -1 to 1.

    Arguments:
        data_shape: Shape of one datum.
        columns: What is known of each column of a table: its ``categories``.
        classes: The number of codes K, the same for all values, if columns do not say it.

    Raises:
        ValueError: If the number of codes is not known, or less than 2.

    Example:
        >>> Ordered((2,), classes=4)(torch.zeros(2)).log_prob(torch.tensor([0.0, 3.0])).exp()
        tensor([0.2500, 0.2500], grad_fn=<ExpBackward0>)
    """

    classes: Tensor
    title = "ordered"

    def __init__(
        self,
        data_shape: Sequence[int],
        columns: Columns | None = None,
        classes: int | None = None,
    ) -> None:
        super().__init__(data_shape, columns)
        counts = class_counts(data_shape, columns, classes)
        shape = self.parameter_shape()
        if columns is None:
            counts *= math.prod(shape)
        self.cutpoints = Cutpoints(counts, shape)
        self.register_buffer("classes", torch.tensor(counts).reshape(shape), persistent=False)

    def forward(self, output: Tensor) -> dist.Distribution:
        return CodeDistribution(self.cutpoints(output), self.classes, self.title).named(self.names)

    def read(self, x: Tensor) -> Tensor:
        return 2 * x / (self.classes - 1) - 1
