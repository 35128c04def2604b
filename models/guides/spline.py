"""A normal distribution, bent by splines."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import Coupling
from .flow import FlowGuide


class SplineCoupling(Coupling):
    """A coupling whose map is a monotonic spline of rational functions, by zuko.

    Eight pieces between -5 and 5, the identity outside (Durkan et al. 2019, section 3.1). It begins
    as the identity.

    Arguments:
        latent_dim: Length L of the vector.
        context: Number C of further numbers that the map depends on.
        second: Whether the second half moves, or the first one.

    Raises:
        ModuleNotFoundError: If zuko is not installed, which is in the extra ``flows``.
    """

    PIECES = 8
    NUMBERS = 3 * PIECES - 1  # widths, heights, and slopes between pieces
    # Given to zuko, whose own defaults differ between versions, and so would densities of one run.
    # Slopes between 1/100 and 100 bound how far an inverse stretches rounding.
    BOUND, LEAST_SLOPE = 5.0, 1e-2

    def __init__(self, latent_dim: int, context: int, second: bool) -> None:
        super().__init__(latent_dim, context, second)
        validate = Distribution._validate_args
        try:
            from zuko.transforms import MonotonicRQSTransform
        finally:  # zuko turns validation off, of everybody's distributions
            Distribution._validate_args = validate
        self.spline = MonotonicRQSTransform

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        fixed, moved = self._halves(x)
        y, volume = self._spline(fixed, context).call_and_ladj(moved)
        return self._whole(fixed, y), volume.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        fixed, moved = self._halves(y)
        spline = self._spline(fixed, context)
        x = spline.inv(moved)
        return self._whole(fixed, x), spline.call_and_ladj(x)[1].sum(-1)

    def _spline(self, fixed: Tensor, context: Tensor) -> Any:
        context = context.expand(*fixed.shape[:-1], context.shape[-1])
        numbers = self.network(torch.cat([fixed, context], -1)).unflatten(-1, (-1, self.NUMBERS))
        pieces = numbers.split([self.PIECES, self.PIECES, self.PIECES - 1], -1)
        return self.spline(*pieces, bound=self.BOUND, slope=self.LEAST_SLOPE)


class SplineGuide(FlowGuide):
    r"""Normal draws through four spline couplings that depend on the datum.

    As :class:`FlowGuide`, and it begins as the diagonal guide too. A spline bends each unit, so
    that it can have two modes, or a tail on one side; an affine coupling scales and shifts it.

    Arguments:
        latent_dim: Number of latent variables L, at least 2.

    Raises:
        ValueError: If there is one latent variable only.
        ModuleNotFoundError: If zuko is not installed, which is in the extra ``flows``.

    Example:
        >>> family = SplineGuide(latent_dim=2)
        >>> family(torch.zeros(7, family.features)).rsample((3,)).shape
        torch.Size([3, 7, 2])
    """

    coupling: type[nn.Module] = SplineCoupling
