"""Programs whose posterior is known, and guides that are off by a known amount."""

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import ppl_vae
from ppl_vae.models import LinearGaussian
from ppl_vae.models.networks import inverse_positive

from .tables import Incomplete


def ppca(strengths=(2.0, 1.0), dim=6, seed=0):
    """Probabilistic PCA with orthogonal loadings of given lengths, unit noise, and its exact guide.

    The posterior has no correlations: its variances are 1 / (1 + strength²).
    """
    program = LinearGaussian((dim,), len(strengths))
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    with torch.no_grad():
        program.loading.copy_(basis[:, : len(strengths)] * torch.tensor(strengths))
    program.set_exact_guide()
    return program


@torch.no_grad()
def spoil(program, scale=1.0, shift=0.0):
    """Scale the guide of :func:`ppca`, and move its means by posterior standard deviations."""
    tril = program.guide_tril
    program.encoder.bias.add_(shift * tril.diagonal())
    program.raw_guide_tril.copy_(torch.diag(inverse_positive(scale * tril.diagonal())))
    return program


@torch.no_grad()
def draw(program, size, seed=0):
    """Data from the model."""
    torch.manual_seed(seed)
    return program.model(size=size)


def with_covariates(kind, size, seed=0):
    """A program that takes a class or a mask, and a batch that it made."""
    torch.manual_seed(seed)
    program = kind().double()
    observed = torch.rand(size, 5) < 0.7
    observed[:, 0] = True
    covariates = {"mask": observed} if kind is Incomplete else {"y": torch.randint(3, (size,))}
    return program, ppl_vae.prior_predictive(program, (5,), size, seed, covariates).batch


def by_quadrature(posterior, half_width=8.0, points=321):
    """log p(x) and E[z | x] of a posterior of two units, on a grid."""
    axis = torch.linspace(-half_width, half_width, points, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)[:, None].expand(-1, len(posterior), 2)
    with posterior.evaluation_mode(0):
        terms = posterior.score({"z": z}, with_guide=False)
    log_joint = terms.prior["z"] + terms.reconstruction
    evidence = log_joint.logsumexp(0) + 2 * (axis[1] - axis[0]).log()
    return evidence, (log_joint.softmax(0)[..., None] * z).sum(0)


class MeanField(nn.Module):
    """Probabilistic PCA with a correlated posterior, and the best guide without correlations."""

    def __init__(self, correlation=0.9, strength=20.0):
        super().__init__()
        self.exact = ppca((1.0, 1.0))
        one, off = torch.eye(2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
        off[0, 1] = off[1, 0] = -correlation
        root = torch.linalg.cholesky(strength * (one + off) - one)
        with torch.no_grad():
            self.exact.loading.copy_(self.exact.loading @ root.T)
        self.exact.set_exact_guide()

    def model(self, x=None, size=1):
        return self.exact.model(x, size)

    def guide(self, x):
        pyro.module(f"mean-field-{id(self)}", self)
        with pyro.plate("data", len(x)):
            q = self.exact.posterior(x)
            scale = q.precision_matrix.diagonal(dim1=-2, dim2=-1).rsqrt()
            pyro.sample("z", dist.Normal(q.loc, scale).to_event(1))


class OffGuide(nn.Module):
    """A program of :func:`ppca` whose guide is the posterior, but for what ``change`` makes of its
    means and standard deviations, each of shape (N, L)."""

    def __init__(self, exact, change):
        super().__init__()
        self.exact, self.change = exact, change

    def model(self, x=None, size=1):
        return self.exact.model(x, size)

    def guide(self, x):
        pyro.module(f"off-{id(self)}", self)
        with pyro.plate("data", len(x)):
            q = self.exact.posterior(x)
            pyro.sample("z", dist.Normal(*self.change(q.mean, q.stddev)).to_event(1))


def first_unit(value):
    """A change of the first unit alone."""
    return torch.cat([value[..., :1], torch.zeros_like(value[..., 1:])], dim=-1)
