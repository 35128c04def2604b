"""Programs made at random, changed at random between steps: each step is stock SVI's."""

from dataclasses import dataclass

import hypothesis
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import strategies as st
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import nn
from torch.distributions import constraints

from .both import X, compare

STEPS = 14
PRIORS = {
    "normal": lambda: dist.Normal(torch.zeros(2), 1.0).to_event(1),
    "log-normal": lambda: dist.LogNormal(torch.zeros(2), 0.5).to_event(1),
    "gamma": lambda: dist.Gamma(2.0 * torch.ones(2), 1.0).to_event(1),
    "student": lambda: dist.StudentT(4.0, torch.zeros(2), 1.0).to_event(1),
    "dirichlet": lambda: dist.Dirichlet(torch.ones(2)),
}
LIKELIHOODS = {
    "normal": (lambda mean: dist.Normal(mean, 0.5), lambda x: x),
    "laplace": (lambda mean: dist.Laplace(mean, 0.5), lambda x: x),
    "bernoulli": (lambda mean: dist.Bernoulli(logits=mean), lambda x: (x > 0).double()),
    "poisson": (lambda mean: dist.Poisson(mean.exp().clamp(max=50.0)), lambda x: x.abs().round()),
}
LOSSES = {
    "trace": lambda: Trace_ELBO(),
    "particles": lambda: Trace_ELBO(num_particles=2),
    "vectorized": lambda: Trace_ELBO(2, max_plate_nesting=1, vectorize_particles=True),
    "mean field": lambda: TraceMeanField_ELBO(),
    "graph": lambda: TraceGraph_ELBO(),
    "renyi": lambda: RenyiELBO(alpha=0.5, num_particles=2),
}
# Adam divides gradients that are nothing but rounding, as those before batch normalization, by
# their own size: a large eps keeps it from making steps of them.
EPS = 1e-4
OPTIMIZERS = {
    "adam": lambda: pyro.optim.Adam({"lr": 0.01, "eps": EPS}),
    "clipped": lambda: pyro.optim.ClippedAdam({"lr": 0.01, "lrd": 0.99, "eps": EPS}),
    "momentum": lambda: pyro.optim.SGD({"lr": 1e-4, "momentum": 0.9}),
    "norms": lambda: pyro.optim.Adam({"lr": 0.01, "eps": EPS}, {"clip_norm": 1.0}),
    "each its own": lambda: pyro.optim.Adam(
        lambda name: {"lr": 0.02 if "0" in name else 0.01, "eps": EPS}
    ),
    "decaying": lambda: pyro.optim.ExponentialLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.01, "eps": EPS}, "gamma": 0.9}
    ),
}


@dataclass
class Plan:
    """A program, and what happens to it after which steps."""

    sites: list[str]
    guide: str
    network: str
    likelihood: str
    subsampled: bool
    loss: str
    optimizer: str
    changes: dict[int, str]


class Program(nn.Module):
    """What a plan says, with all that may be changed in attributes."""

    def __init__(self, plan):
        super().__init__()
        self.plan, self.weight, self.on = plan, 1.0, False
        self.register_buffer("shift", torch.zeros(3))
        width = 2 * len(plan.sites)
        middle = {"linear": [], "batch norm": [nn.BatchNorm1d(4)], "dropout": [nn.Dropout(0.3)]}
        body = [nn.Linear(width, 4), nn.Tanh(), *middle[plan.network], nn.Linear(4, 3)]
        self.body, self.table = nn.Sequential(*body), {"scale": 1.0}

    def model(self, x, heat=1.0):
        pyro.module("program", self)
        latents = [pyro.sample(f"z{i}", PRIORS[site]()) for i, site in enumerate(self.plan.sites)]
        joint = torch.cat(latents, -1)
        mean = self.body(joint.expand(*joint.shape[:-2], len(x), -1)) + self.shift
        if self.on:
            mean = 2 * mean
        distribution, data = LIKELIHOODS[self.plan.likelihood]
        size = 8 if self.plan.subsampled else None
        scale = self.weight * heat * self.table["scale"]
        with (
            pyro.plate("data", len(x), subsample_size=size) as rows,
            pyro.poutine.scale(scale=scale),
        ):
            observed = distribution(mean[..., rows, :]).to_event(1)
            pyro.sample("x", observed, obs=data(x)[rows])

    def guide(self, x, heat=1.0):
        for i, site in enumerate(self.plan.sites):
            loc = pyro.param(f"loc{i}", 0.1 * torch.ones(2))
            scale = pyro.param(f"scale{i}", 0.3 * torch.ones(2), constraint=constraints.positive)
            found = dist.Normal(loc, scale).to_event(1)
            if site in ("log-normal", "gamma"):
                found = dist.LogNormal(loc, scale).to_event(1)
            elif site == "dirichlet":
                found = dist.Dirichlet(scale + loc.exp())
            pyro.sample(f"z{i}", found)


def change(name, program, svi):
    """Do to a program, or an SVI, what users do between steps."""
    first = program.body[0]
    if name == "weight":
        program.weight += 0.5
    elif name == "flag":
        program.on = not program.on
    elif name == "table":
        program.table["scale"] *= 1.5
    elif name == "mode":
        program.train(not program.training)
    elif name == "freeze":
        first.weight.requires_grad_(not first.weight.requires_grad)
    elif name == "buffer":
        program.shift = program.shift + 1.0
    elif name == "in place":
        program.shift.add_(1.0)
    elif name == "parameter":
        with torch.no_grad():
            first.bias.fill_(0.5)
    elif name == "data":
        first.bias.data = torch.ones(4)
    elif name == "hook":
        first.bias.register_hook(lambda gradient: 0.5 * gradient)
    elif name == "clear":
        pyro.clear_param_store()
    elif name == "optimizer":
        svi.optim = pyro.optim.SGD({"lr": 1e-4})
    elif name == "gradient":
        first.bias.grad = torch.ones(4)


CHANGES = [
    *("weight", "flag", "table", "mode", "freeze", "buffer", "in place", "parameter", "data"),
    *("hook", "clear", "optimizer", "gradient"),
]
PLANS = st.builds(
    Plan,
    sites=st.lists(st.sampled_from(sorted(PRIORS)), min_size=1, max_size=2),
    guide=st.sampled_from(["by hand", "by hand", "AutoNormal", "AutoDelta", "AutoMultivariate"]),
    network=st.sampled_from(["linear", "batch norm", "dropout"]),
    likelihood=st.sampled_from(sorted(LIKELIHOODS)),
    subsampled=st.booleans(),
    loss=st.sampled_from(sorted(LOSSES)),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    changes=st.dictionaries(st.integers(1, STEPS - 1), st.sampled_from(CHANGES), max_size=3),
)
GUIDES = {
    "AutoNormal": AutoNormal,
    "AutoDelta": AutoDelta,
    "AutoMultivariate": AutoMultivariateNormal,
}


def assert_it_is_svi(plan):
    # Batch normalization takes no further dimension.
    hypothesis.assume((plan.network, plan.loss) != ("batch norm", "vectorized"))

    def program(kind):
        torch.manual_seed(0)
        made = Program(plan)
        guide = made.guide if plan.guide == "by hand" else GUIDES[plan.guide](made.model)
        with pyro.validation_enabled(False):
            svi = kind(made.model, guide, OPTIMIZERS[plan.optimizer](), LOSSES[plan.loss]())
            for step in range(STEPS):
                yield svi.step(X, 1.0 + step / 10)
                yield svi.evaluate_loss(X)
                if step in plan.changes:
                    change(plan.changes[step], made, svi)

    compare(program, tolerance=1e-6)


def check_programs(seed, count):
    settings = hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    hypothesis.seed(seed)(settings(hypothesis.given(PLANS)(assert_it_is_svi)))()


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize("seed", range(10))
def test_each_step_of_five_programs_is_svis(seed):
    check_programs(seed, 5)


@pytest.mark.slow
@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize("seed", range(100, 120))
def test_each_step_of_fifty_programs_is_svis(seed):
    check_programs(seed, 50)
