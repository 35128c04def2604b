"""What annealing gives: weights, a bound, and its error."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from ..programs.scoring import log_mean
from ..programs.sites import Latents


@dataclass(frozen=True)
class Annealed:
    """What came out of annealing.

    Attributes:
        log_weight: Of every chain and datum, of shape (C, N), in nats. The mean of its
            exponential is p(x) for a forward run, 1 / p(x) for a reverse one.
        acceptance: Mean probability of acceptance of the trajectories, of shape (N,); NaN where
            a single temperature leaves none.
        shared: Standard deviation that the bound has because all chains of a datum start at one
            draw, in nats; ``None`` where they start at draws of their own. See
            :func:`spread_of_starts`.
        latents: Where chains end, of shape (C, N, *event shape) by site; empty unless asked for.
            With the weights they stand for the posterior.
    """

    log_weight: Tensor
    acceptance: Tensor
    shared: float | None = None
    latents: Latents = field(default_factory=dict)

    @property
    def bound(self) -> Tensor:
        """Log of the mean weight of each data point, of shape (N,), in nats."""
        return log_mean(self.log_weight)[0]

    @property
    def error(self) -> Tensor:
        """Standard error of :attr:`bound`, of shape (N,), in nats.

        By the delta method over chains; NaN for a single chain. Chains that share their start tell
        nothing of what another start would give, which :attr:`shared` adds; NaN for a single datum.
        """
        error = log_mean(self.log_weight)[1]
        if self.shared is None:
            return error
        return (error.nan_to_num(0.0).square() + self.shared**2).sqrt()


def spread_of_starts(lower: Annealed, upper: Annealed) -> float:
    r"""What the one exact draw of each datum adds to the standard deviation of its upper bound.

    Chains tell how bounds vary given where they start. The gap between the bounds varies over data
    by that and by the start; log p(x) cancels in it. Hence, as in a random-effects analysis of
    variance (Hedges 1983), of errors :math:`e_n` over chains,

    .. math:: s^2 = \max\Big(0,\, \mathrm{Var}_n(\mathrm{gap}_n)
        - \frac1N \sum_n (e_{n,\mathrm{lower}}^2 + e_{n,\mathrm{upper}}^2)\Big).

    One value serves all data. It is on the safe side: what few chains understate of their own
    errors, and what the two bounds' biases vary by from datum to datum, is in it too.

    Arguments:
        lower: The forward run.
        upper: The reverse run, whose chains share their starts.

    Returns:
        The standard deviation s in nats; NaN for a single datum.

    Example:
        >>> import torch
        >>> draws = torch.zeros(2, 3).double(), torch.tensor([[-1.0, 0, 1]]).double().expand(2, 3)
        >>> spread_of_starts(*(Annealed(log_weight, torch.ones(3)) for log_weight in draws))
        1.0
    """
    gap = -upper.bound - lower.bound
    if len(gap) == 1:
        return math.nan
    lower_error, upper_error = (log_mean(run.log_weight)[1] for run in (lower, upper))
    within = (lower_error.square() + upper_error.square()).nan_to_num(0.0).mean()
    return float((gap.var() - within).clamp(min=0.0).sqrt())
