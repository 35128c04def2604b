"""Whose parameters a graph moves, what gradients are left, and what else stock SVI does."""

import warnings
from collections import namedtuple

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoIAFNormal, AutoNormalizingFlow
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.nn.utils import parametrizations

from ppl_vae import CompiledSVI, EagerWarning
from ppl_vae.models import VAE

from .both import X, compare, loc, normal, steps, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


def one_tensor_twice(kind):
    def model(inputs, targets):
        normal(inputs @ pyro.param("w", torch.eye(3)), targets)

    svi = svi_of(kind, model)
    for step in range(12):
        yield svi.step(X if step < 5 else X + 3.0, X)


def an_argument_that_is_a_global(kind):
    def model(x):
        normal(loc() + x.mean() - X.mean())

    svi = svi_of(kind, model)
    for step in range(12):
        yield svi.step(X if step < 5 else X + 3.0)


def trees_of_tensors(kind):
    Pair = namedtuple("Pair", ["x", "more"])

    def model(pair, *, flag, options):
        normal(loc() + options["shift"][0] + (1.0 if flag else 0.0), pair.x + pair.more)

    svi = svi_of(kind, model)
    for step in range(12):
        shift = torch.full((3,), float(step))
        options = {"shift": [shift], "name": "a"}
        yield svi.step(Pair(X + step, 0.1 * step), flag=step % 2 == 0, options=options)


def parametrized(kind):
    net = parametrizations.weight_norm(nn.Linear(3, 3))

    def model():
        pyro.module("net", net)
        normal(net(X))

    yield from steps(kind, model)


def batch_normalized(kind):
    # A bias before normalization has a gradient of nothing but rounding, which Adam enlarges.
    net = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3))

    def model():
        pyro.module("net", net)
        normal(net(X))

    yield from steps(kind, model)
    yield net[1].running_var.sum()


class Coder(nn.Module):
    """An encoder and a decoder, of the same weight if they are tied."""

    def __init__(self, tied=False):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 3), nn.Linear(3, 3)
        if tied:
            self.decoder.weight = self.encoder.weight

    def model(self):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(X)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=X)

    def guide_of_the_encoder(self):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", len(X)):
            pyro.sample("z", dist.Normal(self.encoder(X), 0.3).to_event(1))

    def guide_of_all(self):
        pyro.module("all", self)
        with pyro.plate("data", len(X)):
            pyro.sample("z", dist.Normal(self.encoder(X), 0.3).to_event(1))


def weights_that_are_tied(kind):
    net = Coder(tied=True)
    yield from steps(kind, net.model, net.guide_of_the_encoder)


def a_module_registered_twice(kind):
    net = Coder()
    yield from steps(kind, net.model, net.guide_of_all)


def heads_in_turns(kind):
    heads = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])

    def model(head):
        pyro.module("heads", heads)
        normal(heads[head](X), X + 1)

    svi = svi_of(kind, model)
    for step in range(18):
        yield svi.step((step // 3) % 2)


def parameters_by_argument(kind):
    def model(task):
        normal(pyro.param(f"loc{task}", torch.zeros(3)), X + task)

    svi = svi_of(kind, model)
    for step in range(18):
        yield svi.step(step % 2)


def gradients_between_steps(kind):
    svi = svi_of(kind, lambda: normal(loc()))
    for _ in range(8):
        yield svi.step()
        yield loc().unconstrained().grad.norm()


def checkpoints_that_are_evaluated(kind):
    svi = svi_of(kind, lambda: normal(loc()))
    yield svi.evaluate_loss()
    states = []
    for value in (0.0, 5.0, 20.0):
        pyro.get_param_store()["loc"] = torch.full((3,), value)
        states.append(pyro.get_param_store().get_state())
    for state in states:
        pyro.get_param_store().set_state(state)
        for _ in range(4):
            yield svi.evaluate_loss()


def a_frozen_network(kind):
    net = Coder()

    def freeze(step):
        net.encoder.requires_grad_(step < 6)

    yield from steps(kind, net.model, net.guide_of_all, change=freeze)
    yield net.encoder.weight.sum()


def another_optimizer(kind):
    svi = svi_of(kind, lambda: normal(loc()))
    for step in range(12):
        if step == 6:
            svi.optim = pyro.optim.SGD({"lr": 0.0})
        yield svi.step()
        yield loc().sum()


class Mean(PyroModule):
    def forward(self):
        normal(pyro.sample("mean", dist.Normal(torch.zeros(3), 10.0).to_event(1)))


class MeanGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.zeros(3))
        self.scale = PyroParam(torch.full((3,), 0.5), dist.constraints.positive)

    def forward(self):
        pyro.sample("mean", dist.Normal(self.loc, self.scale).to_event(1))


def parameters_in_modules(kind):
    with pyro.settings.context(module_local_params=True):
        model, guide = Mean(), MeanGuide()
        yield from steps(kind, model, guide)
        yield guide.loc.sum()


def flow_guide(make):
    def model():
        center = pyro.sample("center", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        normal(center, scale=pyro.sample("scale", dist.LogNormal(0.0, 1.0)))

    return lambda kind: steps(kind, model, make(model), count=6)


def coupling(size):
    return transforms.iterated(2, transforms.affine_autoregressive, size, hidden_dims=[6])


COMPILED = {
    "one tensor for two arguments": one_tensor_twice,
    "an argument that is a global, too": an_argument_that_is_a_global,
    "trees of tensors and flags": trees_of_tensors,
    "weight normalization": parametrized,
    "batch normalization": batch_normalized,
    "tied weights": weights_that_are_tied,
    "a module registered twice": a_module_registered_twice,
    "heads in turns": heads_in_turns,
    "parameters by argument": parameters_by_argument,
    "gradients between steps": gradients_between_steps,
    "checkpoints that are evaluated": checkpoints_that_are_evaluated,
    "a frozen network": a_frozen_network,
    "another optimizer": another_optimizer,
    "parameters in modules": parameters_in_modules,
    "AutoIAFNormal": flow_guide(lambda model: AutoIAFNormal(model, hidden_dim=[6])),
    "AutoNormalizingFlow": flow_guide(lambda model: AutoNormalizingFlow(model, coupling)),
}


@pytest.mark.parametrize("name", COMPILED)
def test_what_a_graph_can_follow_is_compiled(name):
    outcome = compare(COMPILED[name])
    assert outcome.graphs >= 1
    assert outcome.reasons == []


def sides(decaying):
    def model():
        with pyro.plate("data", len(X)):
            side = pyro.sample("side", dist.Bernoulli(torch.full((len(X),), 0.3)))
            pyro.sample("x", dist.Normal(3 * side, 1.0), obs=X[:, 0])

    def guide():
        slope = pyro.param("slope", torch.tensor(0.1))
        infer = {"baseline": {"use_decaying_avg_baseline": True}} if decaying else {}
        with pyro.plate("data", len(X)):
            pyro.sample("side", dist.Bernoulli(logits=slope * X[:, 0]), infer=infer)

    return model, guide


def a_decaying_baseline(kind):
    svi = svi_of(kind, *sides(decaying=True), loss=TraceGraph_ELBO())
    for _ in range(8):
        yield svi.step()


def a_loss_of_constants(kind):
    svi = svi_of(kind, *sides(decaying=False), loss=TraceGraph_ELBO())
    for _ in range(8):
        yield svi.evaluate_loss()


def a_sparse_embedding(kind):
    table = nn.Embedding(30, 3, sparse=True)

    def model(rows):
        pyro.module("table", table)
        normal(table(rows), torch.ones(len(rows), 3))

    svi = kind(model, lambda rows: None, pyro.optim.SparseAdam({"lr": 0.1}), Trace_ELBO())
    for _ in range(8):
        yield svi.step(torch.randint(30, (8,)))


EAGER = {
    "a baseline that decays": (a_decaying_baseline, "that no name in its code leads to"),
    "a loss of constants": (a_loss_of_constants, "a constant to its graph"),
    "a sparse embedding": (a_sparse_embedding, "layout torch.sparse_coo"),
}


@pytest.mark.parametrize("name", EAGER)
def test_what_a_graph_cannot_follow_is_told(name):
    program, reason = EAGER[name]
    outcome = compare(program)
    assert outcome.graphs == 0
    ((_, told),) = outcome.reasons
    assert reason in told


def test_a_second_cause_is_told_beside_the_first():
    class Model:
        scale = 1.0

        def model(self, x, mask=None):
            normal(loc(), x if mask is None else x[mask], self.scale)

    def program(kind):
        model = Model()
        svi = svi_of(kind, model.model)
        for _ in range(3):
            yield svi.step(X, torch.ones(20, dtype=torch.bool))
        for step in range(12):
            model.scale = 1.0 + step // 6
            yield svi.step(X)

    causes = [reason for _, reason in compare(program).reasons]
    assert ["control flow" in causes[0], "self.scale" in causes[1]] == [True, True]


def test_a_warning_is_one_line_without_pyros_table():
    def model():
        center = pyro.sample("center", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        normal(center, scale=1.0 if center.sum() > 0 else 2.0)

    def guide():
        pyro.sample("center", dist.Normal(loc(), 0.1).to_event(1))

    ((_, reason),) = compare(lambda kind: steps(kind, model, guide)).reasons
    assert "\n" not in reason
    assert "test_parameters.py, line" in reason


def test_a_hook_is_run_from_the_step_after_it_was_registered():
    vae, x, seen = VAE((5,), latent_dim=2, hidden=(8,)), torch.ones(20, 5), []
    svi = CompiledSVI(
        vae.model, vae.guide, pyro.optim.SGD({"lr": 0.01}), Trace_ELBO(), engine="compiled"
    )
    for _ in range(4):
        svi.step(x)
    assert svi.gradients.graphs == 1
    weight = next(vae.parameters())
    weight.register_hook(lambda gradient: seen.append(1) or 0 * gradient)
    before = weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerWarning)
        for _ in range(5):
            svi.step(x)
    assert len(seen) == 5
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", ["num_samples", "num_steps"])
def test_deprecated_arguments_are_taken_with_pyros_warning(name):
    arguments = (lambda: None, lambda: None, pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    for kind in (SVI, CompiledSVI):
        with pytest.warns(FutureWarning, match=f"The `{name}` argument to SVI is deprecated"):
            assert getattr(kind(*arguments, **{name: 5}), name) == 5


def test_handlers_around_each_step_are_told_where_compilation_was_asked_for():
    def program(kind):
        with pyro.poutine.block():
            yield from steps(kind, lambda: normal(loc()), count=4)

    outcome = compare(program)
    assert outcome.graphs == 0
    assert "handlers around it" in outcome.reasons[0][1]


def test_a_small_gradient_that_turns_round_is_seen_beside_a_large_one():
    """In single precision: by the guard of what turned it, and not by the size of the whole."""
    many, zero = X.float().repeat(1000, 1), torch.zeros(1)

    class Model:
        target = 1.0

        def model(self):
            mean = pyro.param("mean", torch.zeros(3, dtype=torch.float32))
            prior = pyro.param("prior", zero.clone())
            pyro.sample("p", dist.Normal(prior, 1.0).to_event(1), obs=zero + self.target)
            normal(mean, many, 0.3)

    def program(kind):
        model = Model()
        svi = svi_of(kind, model.model, lr=0.001)
        for step in range(30):
            model.target = 1.0 if step < 6 else -1.0
            svi.step()
            yield pyro.param("prior").sum()

    compare(program, tolerance=1e-4)
