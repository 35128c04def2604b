"""Guides that have parameters of their own for each data point."""

from collections.abc import Mapping
from typing import Any, Self, cast

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.transforms import ComposeTransform, ReshapeTransform, Transform

from .protocol import Program


class PerDatum(nn.Module):
    """A program for one batch: the model of another, and a guide with a row for each data point.

    Arguments:
        program: The program whose model it has; its parameters stay as they are.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = cast(nn.Module, program)

    def model(self, x: Tensor, **covariates: Tensor) -> Any:
        """The program's own."""
        return cast(Program, self.program).model(x, **covariates)

    def rows(self, index: slice | Tensor) -> Self:
        """The same for some of the data points, which share memory with it where they can."""
        raise NotImplementedError


class _Correlated(dist.MultivariateNormal):
    """Draws by one product a data point: torch copies the factor for each draw."""

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        noise = self.loc.new_empty(self._extended_shape(torch.Size(sample_shape))).normal_()
        factor = self._unbroadcasted_scale_tril  # of shape (N, D, D), whatever the draws
        return self.loc + torch.einsum("nij,...nj->...ni", factor, noise)


class JointGaussian(PerDatum):
    r"""A normal guide over all latents of each data point, in unconstrained coordinates.

    .. math:: u = \mu_n + L_n \epsilon, \quad \epsilon \sim N(0, I), \quad z = T(u)

    where u holds the coordinates of all latent sites, one after the other, and L is diagonal or
    lower triangular. Site after site it is sampled from the normal distribution given the sites
    before, so that every density is known at any value.

    Arguments:
        program: The program whose model it has.
        transforms: From real numbers to the values of each latent site.
        shapes: The event shape of each site's coordinates u.
        loc: Means, of shape (N, D), D coordinates in all.
        factor: Standard deviations, of shape (N, D), or lower triangular factors L, (N, D, D).

    Example:
        >>> import torch
        >>> from torch.distributions.transforms import identity_transform
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(3, 5, dtype=torch.float64)
        >>> loc, factor = torch.zeros(3, 2).double(), torch.eye(2).double().expand(3, 2, 2)
        >>> guide = JointGaussian(ppca, {"z": identity_transform}, {"z": (2,)}, loc, factor)
        >>> guide.guide(x)["z"].shape
        torch.Size([3, 2])
    """

    loc: Tensor
    factor: Tensor

    def __init__(
        self,
        program: Program,
        transforms: Mapping[str, Transform],
        shapes: Mapping[str, tuple[int, ...]],
        loc: Tensor,
        factor: Tensor,
    ) -> None:
        super().__init__(program)
        self.transforms, self.shapes = dict(transforms), dict(shapes)
        # Neither parameters nor buffers: they are of the data, not of the program.
        self.loc, self.factor = loc, factor

    @property
    def is_diagonal(self) -> bool:
        """Whether coordinates are independent."""
        return self.factor.dim() == self.loc.dim()

    def guide(self, x: Tensor, **covariates: Tensor) -> dict[str, Tensor]:
        """q(z | x). Takes the one batch that its rows are of; returns the values of each site."""
        values: dict[str, Tensor] = {}
        noise: list[Tensor] = []
        first = 0
        with pyro.plate("data", len(x)):
            for site, shape in self.shapes.items():
                size = torch.Size(shape).numel()
                place = slice(first, first + size)
                base = self._given(place, noise)
                steps = self._steps(site, size)
                q = dist.TransformedDistribution(base, steps) if steps else base
                value = pyro.sample(site, q)
                if len(self.shapes) > 1:
                    noise.append(self._noise(base, ComposeTransform(steps).inv(value)))
                values[site], first = value, first + size
        return values

    def _given(self, place: slice, noise: list[Tensor]) -> Any:
        """The distribution of some coordinates, given the noise of those before."""
        loc = self.loc[:, place]
        if self.is_diagonal:
            return dist.Normal(loc, self.factor[:, place]).to_event(1)
        if noise:
            before = torch.cat(noise, -1)[..., None]
            loc = loc + (self.factor[:, place, : place.start] @ before)[..., 0]
        return _Correlated(loc, scale_tril=self.factor[:, place, place])

    def _noise(self, base: Any, u: Tensor) -> Tensor:
        if self.is_diagonal:
            return u
        off = (u - base.mean)[..., None]
        return torch.linalg.solve_triangular(base.scale_tril, off, upper=False)[..., 0]

    def _steps(self, site: str, size: int) -> list[Transform]:
        shape, transform = self.shapes[site], self.transforms[site]
        reshape = (
            [] if shape == (size,) else [ReshapeTransform(torch.Size((size,)), torch.Size(shape))]
        )
        is_identity = isinstance(transform, ComposeTransform) and not transform.parts
        return [*reshape, *([] if is_identity else [transform])]

    def widened(self, by: float) -> "JointGaussian":
        """The same with all scales so many times as large."""
        program = cast(Program, self.program)
        return JointGaussian(program, self.transforms, self.shapes, self.loc, by * self.factor)

    def rows(self, index: slice | Tensor) -> "JointGaussian":
        """The same for some of the data points."""
        loc, factor = self.loc[index], self.factor[index]
        return JointGaussian(cast(Program, self.program), self.transforms, self.shapes, loc, factor)
