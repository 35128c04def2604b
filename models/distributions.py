"""Distributions of vectors that Pyro lacks: mixtures with a gradient along draws, and couplings."""

from collections.abc import Iterable
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn
from torch.distributions.transforms import AffineTransform, Transform

from .networks import MLP


class VectorMixture(dist.MixtureSameFamily):
    """A mixture of distributions over real vectors, whose support says so.

    PyTorch's has a support of its own kind, which gradient-based samplers cannot map.
    """

    support = constraints.real_vector


class NormalMixture(VectorMixture):
    r"""A mixture of K normals with diagonal covariances, whose draws have a gradient.

    A draw z is held fixed, and moves with the parameters as the distribution functions of its
    coordinates do, each given those before: with :math:`u_d = F_d(z_d \mid z_{<d})`,

    .. math::
        \partial_\phi z = -\Big(\frac{\partial u}{\partial z}\Big)^{-1} \partial_\phi u

    (Graves 2016; Figurnov et al. 2018, section 4). The triangular Jacobian is in closed form. The
    gradient is right to first order: it cannot be differentiated again.

    Arguments:
        loc: Means of shape (\*, K, L).
        scale: Standard deviations of shape (\*, K, L).
        logits: Log shares of the components, of shape (\*, K), up to a constant.
        validate_args: As of any distribution.

    Example:
        >>> loc = torch.tensor([[-3.0, 0.0], [3.0, 0.0]])
        >>> NormalMixture(loc, torch.ones(2, 2), torch.zeros(2)).rsample((7,)).shape
        torch.Size([7, 2])
    """

    arg_constraints: ClassVar = {
        "loc": constraints.independent(constraints.real, 2),
        "scale": constraints.independent(constraints.positive, 2),
        "logits": constraints.real_vector,
    }
    has_rsample = True

    def __init__(
        self, loc: Tensor, scale: Tensor, logits: Tensor, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.logits = loc, scale, logits
        kernels = dist.Normal(loc, scale).to_event(1)
        super().__init__(dist.Categorical(logits=logits), kernels, validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> "NormalMixture":
        shape = torch.Size(batch_shape)
        loc, scale = (t.expand(shape + t.shape[-2:]) for t in (self.loc, self.scale))
        logits = self.logits.expand(shape + self.logits.shape[-1:])
        return NormalMixture(loc, scale, logits, self._validate_args)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        z = self.sample(sample_shape)
        if not torch.is_grad_enabled():
            return z
        normals = self.component_distribution.base_dist
        each = z.unsqueeze(-2)
        log_density, below = normals.log_prob(each), normals.cdf(each)  # (*, K, L)
        # The shares of the components at each coordinate, given those before.
        before = log_density.cumsum(-1) - log_density
        share = (self.logits.unsqueeze(-1) + before).softmax(-2)
        u = (share * below).sum(-2)
        with torch.no_grad():
            slope = (self.loc - each) / self.scale.square()  # of the log densities
            jacobian = (share * (below - u.unsqueeze(-2))).mT @ slope  # (*, L, L)
            diagonal = (share * log_density.exp()).sum(-2)
            jacobian = jacobian.tril(-1) + diagonal.diag_embed()
        # Zero, but for its gradient.
        step = torch.linalg.solve_triangular(
            jacobian, (u.detach() - u).unsqueeze(-1), upper=False
        ).squeeze(-1)
        return z + step


class Coupling(nn.Module):
    """One half of a vector moves by an affine map that the other half chooses.

    The affine coupling of RealNVP (Dinh et al. 2017, eqs. 7 and 8). It begins as the identity, and
    a scale is between exp(-2) and exp(2), so that it can be inverted at any vector.

    Arguments:
        latent_dim: Length L of the vector.
        context: Number C of further numbers that the map depends on.
        second: Whether the second half moves, or the first one.
    """

    WIDTH = 64
    LOG_SCALE = 2.0
    NUMBERS = 2  # for each coordinate that moves: shift and log scale

    def __init__(self, latent_dim: int, context: int, second: bool) -> None:
        super().__init__()
        if latent_dim < 2:
            raise ValueError(
                "latent_dim must be at least 2 for a flow, where one half of z moves given the "
                f"other, got {latent_dim}"
            )
        self.second = second
        self.sizes = [latent_dim // 2, latent_dim - latent_dim // 2]
        fixed, moved = self.sizes if second else self.sizes[::-1]
        self.network = MLP(fixed + context, self.NUMBERS * moved, (self.WIDTH,))
        last: Any = self.network[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        r"""The vector of shape (\*, L) that x goes to, and log \|dy / dx\| of shape (\*)."""
        fixed, moved = self._halves(x)
        shift, log_scale = self._map(fixed, context)
        return self._whole(fixed, moved * log_scale.exp() + shift), log_scale.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        r"""The vector of shape (\*, L) that y comes from, and log \|dy / dx\| of shape (\*)."""
        fixed, moved = self._halves(y)
        shift, log_scale = self._map(fixed, context)
        return self._whole(fixed, (moved - shift) * (-log_scale).exp()), log_scale.sum(-1)

    def _map(self, fixed: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        context = context.expand(*fixed.shape[:-1], context.shape[-1])
        shift, raw = self.network(torch.cat([fixed, context], -1)).chunk(2, -1)
        return shift, self.LOG_SCALE * torch.tanh(raw / self.LOG_SCALE)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.sizes, -1)
        return (first, second) if self.second else (second, first)

    def _whole(self, fixed: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([fixed, moved] if self.second else [moved, fixed], -1)


def make_couplings(
    latent_dim: int, context: int = 0, kind: type[nn.Module] = Coupling
) -> nn.ModuleList:
    """Four couplings that move each half in turn; see :class:`Coupling`."""
    return nn.ModuleList(kind(latent_dim, context, i % 2 == 0) for i in range(4))


class Coupled(Transform):
    """A :class:`Coupling` as a transform, which keeps its last volume beside its last values."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, coupling: Coupling, context: Tensor) -> None:
        super().__init__(cache_size=1)
        self.coupling, self.context = coupling, context

    def _call(self, x: Tensor) -> Tensor:
        y, self._volume = self.coupling(x, self.context)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x, self._volume = self.coupling.inverse(y, self.context)
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        last_x, last_y = self._cached_x_y
        return self._volume if x is last_x and y is last_y else self.coupling(x, self.context)[1]


def make_flow(
    loc: Tensor, scale: Tensor, couplings: Iterable[Any], context: Tensor
) -> dist.TransformedDistribution:
    r"""Standard normal draws that couplings move, scaled and shifted at last.

    Arguments:
        loc: What is added, of shape (\*, L).
        scale: What is multiplied, of shape (\*, L).
        couplings: The couplings; see :class:`Coupling`.
        context: What they depend on, of shape (\*, C).

    Example:
        >>> couplings = make_couplings(latent_dim=2)  # the identity, until they are trained
        >>> flow = make_flow(torch.zeros(2), torch.ones(2), couplings, torch.zeros(0))
        >>> flow.log_prob(torch.zeros(2)).item()
        -1.8378770351409912
    """
    base = dist.Normal(torch.zeros_like(loc), torch.ones_like(scale)).to_event(1)
    bent: list[Transform] = [Coupled(coupling, context) for coupling in couplings]
    placed = AffineTransform(loc, scale, event_dim=1, cache_size=1)
    return dist.TransformedDistribution(base, [*bent, placed])


class Revealed(dist.TorchDistribution):
    r"""A class where it is known, and -1 where it is not: no randomness is left in it.

    Arguments:
        label: The class of each datum, of shape (\*, N).
        known: Whether it is shown, of shape (N,).
        like: A tensor of K numbers, one a class, of the type that log probabilities are to have.

    Example:
        >>> label, known = torch.tensor([2, 0]), torch.tensor([True, False])
        >>> revealed = Revealed(label, known, like=torch.zeros(3))
        >>> revealed.sample(), revealed.log_prob(torch.tensor([1, -1]))
        (tensor([ 2, -1]), tensor([-inf, 0.]))
    """

    arg_constraints: ClassVar = {}

    def __init__(
        self, label: Tensor, known: Tensor, like: Tensor, validate_args: bool | None = None
    ) -> None:
        self.shown, self.like = torch.where(known, label, -1), like
        super().__init__(self.shown.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Revealed":
        new = self._get_checked_instance(Revealed, _instance)
        new.shown, new.like = self.shown.expand(batch_shape), self.like
        super(Revealed, new).__init__(torch.Size(batch_shape), validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(-1, len(self.like) - 1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        return self.shown.expand(*sample_shape, *self.shown.shape)

    def _validate_sample(self, value: Tensor) -> None:
        try:
            super()._validate_sample(value)
        except ValueError:
            if (inside := self.support.check(value)).all():
                raise  # about shapes
            raise ValueError(
                f"y holds {value[~inside][0].item()}, but must be a class in 0 ... "
                f"{len(self.like) - 1}, or -1 where it is not known"
            ) from None

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        return (value == self.shown).to(self.like).log()
