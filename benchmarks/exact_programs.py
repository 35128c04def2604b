"""Programs whose guide is exact, to put faults into: what benchmarks/diagnostic_power.py asks of.

Beside probabilistic PCA: a hierarchy of two levels, a mixture with a discrete latent, and a curve
with one latent unit whose posterior has two modes, known on a fine grid.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import torch
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


class Curve(nn.Module):
    """x ~ N((z², sin z), (0.3, 1.2)): two modes at about ±root of x, told apart by little.

    The guide is the posterior on a grid, smoothed by normals as wide as its steps.
    """

    data_shape = (2,)
    STEP = 0.008
    grid: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Parameter(torch.tensor([0.3, 1.2], **KIND))
        self.register_buffer("grid", torch.arange(-4, 4 + self.STEP / 2, self.STEP, **KIND))

    def model(self, x: Tensor | None = None, size: int = 1) -> Any:
        """p(x, z)."""
        pyro.module("curve", self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), **KIND), 1.0))
            return pyro.sample("x", self._likelihood(z).to_event(1), obs=x)

    def _likelihood(self, z: Tensor) -> Any:
        return dist.Normal(torch.stack([z.square(), z.sin()], dim=-1), self.noise)

    def guide(self, x: Tensor) -> Any:
        """p(z | x), smoothed."""
        pyro.module("curve", self)
        near = self._likelihood(self.grid).log_prob(x.double()[..., None, :]).sum(-1)
        weights = dist.Normal(0.0, 1.0).log_prob(self.grid) + near
        with pyro.plate("data", len(x)):
            kernels = dist.Normal(self.grid.expand(weights.shape), self.STEP)
            pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=weights), kernels))


PROGRAMS = {"hierarchy": Hierarchy, "classes": Classes, "curve": Curve}
