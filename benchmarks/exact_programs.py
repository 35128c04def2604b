"""Programs whose guide is exact, to put faults into: what benchmarks/diagnostic_power.py asks of.

Beside probabilistic PCA: a hierarchy of two levels, a mixture with a discrete latent, and a curve
with one latent unit whose posterior has two modes, known on a fine grid.
"""

from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor, nn

KIND: Any = {"dtype": torch.float64}


class Hierarchy(nn.Module):
    """x ~ N(V z, 1/4), z ~ N(W a, 1/4), a ~ N(0, 1): two units at each level.

    The exact guide goes upwards: p(z | x), then p(a | z).
    """

    data_shape = (6,)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        basis = torch.linalg.qr(torch.randn(6, 2, generator=generator, **KIND))[0]
        self.up = nn.Parameter(torch.tensor([[1.0, 0.5], [-0.5, 1.0]], **KIND))
        self.loading = nn.Parameter((1.5 * basis).contiguous())
        self.guide_shift = nn.Parameter(torch.zeros(2, **KIND))

    def model(self, x: Tensor | None = None, size: int = 1) -> Any:
        """p(x, z, a)."""
        pyro.module("hierarchy", self)
        with pyro.plate("data", size if x is None else len(x)):
            a = pyro.sample("a", dist.Normal(torch.zeros(2, **KIND), 1.0).to_event(1))
            z = pyro.sample("z", dist.Normal(a @ self.up.T, 0.5).to_event(1))
            return pyro.sample("x", dist.Normal(z @ self.loading.T, 0.5).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Any:
        """p(z | x) p(a | z)."""
        pyro.module("hierarchy", self)
        one = torch.eye(2, **KIND)
        prior = self.up @ self.up.T + one / 4
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _conditional(x.double(), self.loading, prior, 0.25))
            z = z + self.guide_shift
            pyro.sample("a", _conditional(z, self.up, one, 0.25))


def _conditional(x: Tensor, loading: Tensor, prior: Tensor, noise: float) -> Any:
    """p(z | x) of x ~ N(loading z, noise), z ~ N(0, prior)."""
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + loading.T @ loading / noise)
    covariance = (covariance + covariance.T) / 2
    mean = x @ loading @ covariance / noise
    return dist.MultivariateNormal(mean, covariance_matrix=covariance)


class Classes(nn.Module):
    """x ~ N(centre of class k, 0.8), k of four classes, two of which lie close together."""

    data_shape = (2,)

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(
            torch.tensor([[-1.5, 0.0], [1.2, 1.0], [0.9, 0.7], [0.5, -1.5]], **KIND)
        )
        self.shares = nn.Parameter(torch.tensor([0.3, 0.25, 0.25, 0.2], **KIND))

    def model(self, x: Tensor | None = None, size: int = 1) -> Any:
        """p(x, k)."""
        pyro.module("classes", self)
        with pyro.plate("data", size if x is None else len(x)):
            k = pyro.sample("z", dist.Categorical(self.shares))
            return pyro.sample("x", dist.Normal(self.centres[k.long()], 0.8).to_event(1), obs=x)

    def guide(self, x: Tensor) -> Any:
        """p(k | x)."""
        pyro.module("classes", self)
        with pyro.plate("data", len(x)):
            near = dist.Normal(self.centres, 0.8).log_prob(x.double()[..., None, :]).sum(-1)
            pyro.sample("z", dist.Categorical(logits=self.shares.log() + near))


class Steps(dist.TorchDistribution):
    """A density that is constant on each of K intervals of one length.

    A mixture of K kernels would need all of them for every density; this needs one.

    Arguments:
        logits: Log probabilities of the intervals, but for a constant, of shape (N, K).
        start: Where the first of them begins, of shape (N,).
        step: Their length, of shape (N,).
        shape: The batch shape, whose last entry is N.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(
        self, logits: Tensor, start: Tensor, step: Tensor, shape: torch.Size | None = None
    ) -> None:
        self.logits = logits.log_softmax(-1)
        self.probs = self.logits.exp()
        self.start, self.step = start.expand(len(logits)), step.expand(len(logits))
        super().__init__(shape or logits.shape[:-1], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Steps":
        """The same of another batch shape, by whose last entry data are told apart."""
        return Steps(self.logits, self.start, self.step, torch.Size(batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, by the inverse of the distribution function."""
        shape = torch.Size(sample_shape) + self.batch_shape
        u = torch.rand(shape, dtype=self.logits.dtype).reshape(-1, len(self.logits))
        places = torch.searchsorted(self.probs.cumsum(-1), u.T.contiguous()).T
        places = places.clamp(max=self.logits.shape[-1] - 1).reshape(shape)
        return self.start + (places + torch.rand(shape, dtype=self.logits.dtype)) * self.step

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density; minus infinity outside of all intervals."""
        places = ((value - self.start) / self.step).floor()
        inside = (places >= 0) & (places < self.logits.shape[-1])
        places = torch.where(inside, places, 0).long()
        found = self.logits[torch.arange(len(self.logits)), places] - self.step.log()
        return torch.where(inside, found, -torch.inf)

    @property
    def places(self) -> Tensor:
        """Middles of the intervals, in steps from the start, of shape (K,)."""
        return torch.arange(self.logits.shape[-1], dtype=self.logits.dtype) + 0.5

    @property
    def mean(self) -> Tensor:
        """Of shape (N,)."""
        return self.start + self.step * (self.probs @ self.places)

    @property
    def variance(self) -> Tensor:
        """Of shape (N,)."""
        mean, square = self.probs @ self.places, self.probs @ self.places.square()
        return self.step.square() * (square - mean.square() + 1 / 12)


class Curve(nn.Module):
    """x ~ N((z², sin z), (0.3, 1.2)): two modes at about ±root of x, told apart by little.

    The guide is the posterior by quadrature, constant within each step of a fine grid.
    """

    data_shape = (2,)
    STEP, END = 0.02, 6.0  # beyond which z lies once in 5e8 draws

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Parameter(torch.tensor([0.3, 1.2], **KIND))

    def model(self, x: Tensor | None = None, size: int = 1) -> Any:
        """p(x, z)."""
        pyro.module("curve", self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), **KIND), 1.0))
            return pyro.sample("x", self._likelihood(z).to_event(1), obs=x)

    def _likelihood(self, z: Tensor) -> Any:
        return dist.Normal(torch.stack([z.square(), z.sin()], dim=-1), self.noise)

    def guide(self, x: Tensor) -> Any:
        """p(z | x), by steps."""
        pyro.module("curve", self)
        middles = torch.arange(-self.END + self.STEP / 2, self.END, self.STEP, **KIND)
        # log p(x, z), but for what depends on x alone.
        mean, variance = self._likelihood(middles).mean, self.noise.square()
        weights = x.double() / variance @ mean.T - (mean.square() / variance).sum(-1) / 2
        weights = weights - middles.square() / 2
        edge, step = (torch.tensor(value, **KIND) for value in (-self.END, self.STEP))
        with pyro.plate("data", len(x)):
            pyro.sample("z", Steps(weights, edge, step))


PROGRAMS = {"hierarchy": Hierarchy, "classes": Classes, "curve": Curve}
