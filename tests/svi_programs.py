"""Programs of several kinds, with the data and the estimator that fit them by SVI."""

from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import (
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn
from torch.distributions import constraints

import ppl_vae
from ppl_vae.models import VAE

from .programs import Discrete, Minimal, TwoLayers, WithDropout


@dataclass
class Case:
    """Model, guide and estimator, and what their functions are called with."""

    model: Any
    guide: Any
    loss: Any = field(default_factory=Trace_ELBO)
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)


def table(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def binary(*shape):
    return (table(*shape) > 0).float()


class TutorialVAE(nn.Module):
    """The VAE of Pyro's tutorial: two modules registered by name, softplus, sigmoid, exp."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc21, self.fc22 = nn.Linear(12, 8), nn.Linear(8, 3), nn.Linear(8, 3)
            self.softplus = nn.Softplus()

        def forward(self, x):
            hidden = self.softplus(self.fc1(x.reshape(-1, 12)))
            return self.fc21(hidden), torch.exp(self.fc22(hidden))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc21 = nn.Linear(3, 8), nn.Linear(8, 12)

        def forward(self, z):
            return torch.sigmoid(self.fc21(nn.functional.softplus(self.fc1(z))))

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = self.Encoder(), self.Decoder()

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            image = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(image, validate_args=False).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = self.encoder(x)
            pyro.sample("latent", dist.Normal(loc, scale).to_event(1))


def tutorial_vae():
    vae = TutorialVAE()
    return Case(vae.model, vae.guide, args=(binary(20, 12),))


class Regression(PyroModule):
    """Weights with a prior, as in Pyro's tutorial on Bayesian regression."""

    def __init__(self):
        super().__init__()
        self.linear = PyroModule[nn.Linear](3, 1)
        self.linear.weight = PyroSample(dist.Normal(0.0, 1.0).expand([1, 3]).to_event(2))
        self.linear.bias = PyroSample(dist.Normal(0.0, 10.0).expand([1]).to_event(1))

    def forward(self, x, y=None):
        sigma = pyro.sample("sigma", dist.Uniform(0.0, 10.0))
        mean = self.linear(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(mean, sigma), obs=y)


def regression(guide=AutoNormal):
    model = Regression()
    return Case(model, guide(model), args=(table(30, 3), table(30)))


def constrained():
    """No module: parameters that Pyro keeps, one of them positive."""

    def model(x):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Exponential(rate), obs=x)

    def guide(x):
        concentration = pyro.param("a", torch.tensor(3.0), constraint=constraints.positive)
        rate = pyro.param("b", torch.tensor(2.0), constraint=constraints.greater_than(0.5))
        pyro.sample("rate", dist.Gamma(concentration, rate))

    return Case(model, guide, args=(table(25).abs() + 0.1,))


def local_and_global():
    """A mean for all, one for each datum, and a plate that takes ten of fifty at a time."""

    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 3.0))
        with pyro.plate("data", len(x), subsample_size=10) as rows:
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x[rows])

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.1))
        scale = pyro.param("scale", torch.tensor(0.7), constraint=constraints.positive)
        slope = pyro.param("slope", torch.tensor(0.5))
        pyro.sample("mean", dist.Normal(loc, scale))
        with pyro.plate("data", len(x), subsample_size=10) as rows:
            pyro.sample("z", dist.Normal(slope * x[rows], 0.5))

    return Case(model, guide, args=(table(50) + 2.0,))


def poisson(loss=None):
    """A latent count, which no reparameterization moves: the score function's gradient."""

    def model(x):
        with pyro.plate("data", len(x)):
            count = pyro.sample("count", dist.Poisson(x.new_tensor(3.0)))
            pyro.sample("x", dist.Normal(count, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.4))
        with pyro.plate("data", len(x)):
            pyro.sample("count", dist.Poisson(torch.nn.functional.softplus(slope * x + 1.0)))

    return Case(model, guide, loss or Trace_ELBO(num_particles=2), (table(15).abs() * 3,))


class SemiSupervised(nn.Module):
    """M2 of Kingma et al. (2014): a class that is observed for some of the data."""

    def __init__(self):
        super().__init__()
        self.classify, self.encode = nn.Linear(6, 3), nn.Linear(6 + 3, 4)
        self.decode = nn.Linear(2 + 3, 6)

    def model(self, x, y=None):
        pyro.module("m2", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            logits = x.new_zeros(len(x), 3)
            y = pyro.sample("y", dist.OneHotCategorical(logits=logits), obs=y)
            logits = self.decode(torch.cat([z.expand(*y.shape[:-1], 2), y], -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x, y=None):
        pyro.module("m2", self)
        with pyro.plate("data", len(x)):
            if y is None:
                y = pyro.sample("y", dist.OneHotCategorical(logits=self.classify(x)))
            both = torch.cat([x.expand(*y.shape[:-1], 6), y], -1)
            loc, raw = self.encode(both).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


def labelled():
    m2 = SemiSupervised()
    y = torch.eye(3)[torch.arange(18) % 3]
    return Case(m2.model, m2.guide, args=(binary(18, 6),), kwargs={"y": y})


def unlabelled():
    m2 = SemiSupervised()
    return Case(m2.model, m2.guide, args=(binary(18, 6),))


def enumerated():
    m2 = SemiSupervised()
    guide = config_enumerate(m2.guide, "parallel", expand=True)
    return Case(m2.model, guide, TraceEnum_ELBO(max_plate_nesting=1), (binary(18, 6),))


def of(kind, loss, *args):
    program = kind()
    return Case(program.model, program.guide, loss, args or (table(9, 5),))


CASES = {
    "tutorial VAE": tutorial_vae,
    "regression, AutoNormal": regression,
    "regression, AutoMultivariateNormal": lambda: regression(AutoMultivariateNormal),
    "constrained pyro.param": constrained,
    "local and global, subsampled": local_and_global,
    "Poisson latent": poisson,
    "Poisson latent, TraceGraph": lambda: poisson(TraceGraph_ELBO()),
    "semi-supervised, labelled": labelled,
    "semi-supervised, unlabelled": unlabelled,
    "semi-supervised, enumerated": enumerated,
    "discrete latent": lambda: of(Discrete, Trace_ELBO(4, 1, vectorize_particles=True)),
    "dropout and batch normalization": lambda: of(WithDropout, Trace_ELBO()),
    "two layers, analytic KL": lambda: of(Minimal, TraceMeanField_ELBO()),
    "two layers, Renyi": lambda: of(TwoLayers, RenyiELBO(0.5, 5, 1, vectorize_particles=True)),
    "two layers, DReG": lambda: of(TwoLayers, ppl_vae.PathwiseELBO(3, importance_weighted=True)),
    "several particles in a loop": lambda: of(TwoLayers, Trace_ELBO(num_particles=3)),
    "our VAE": lambda: of(lambda: VAE((5,), 2, (8,)), Trace_ELBO(), binary(9, 5)),
    "our VAE, flows": lambda: of(
        lambda: VAE((5,), 2, (8,), guide="flow", prior="flow"), Trace_ELBO(), binary(9, 5)
    ),
}
