"""What Python sees of a step is what it sees of stock SVI's: types, gradients, errors, copies."""

import argparse
import copy
import cProfile
import pickle
import re
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import CompiledSVI

from .both import X, compare, loc, normal, steps, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


def parameter(name="loc"):
    """A parameter, unconstrained, as the store has it."""
    return pyro.get_param_store()._params[name]


# Each takes another path where a tensor is in the place of a number, or where a graph is made.
def by_the_type_of_an_argument(scale):
    normal(loc(), scale=2 * scale if isinstance(scale, float) else scale)


def by_what_is_a_tensor(scale):
    normal(loc(), scale=scale if torch.is_tensor(scale) else torch.tensor(2 * scale))


def by_the_type_of_an_item(scale):
    spread = X.std().item()
    normal(loc(), scale=spread + scale if type(spread) is float else scale)


def as_precise_as_numbers(scale):
    x = X[:, 0].float()
    with pyro.plate("data", len(x)):  # numbers draw in the default type, and tensors in their own
        z = pyro.sample("z", dist.Normal(x.mean().item(), x.std().item()))
        pyro.sample("x", dist.Normal(z + pyro.param("loc", torch.zeros(20)), scale), obs=X[:, 1])


def while_it_compiles(scale):
    normal(loc(), scale=scale + torch.compiler.is_compiling())


def with_a_hook(scale):
    loc().register_hook(lambda gradient: 0.9 * gradient)
    normal(loc(), scale=scale)


def with_a_hook_for_later(scale):
    loc().register_post_accumulate_grad_hook(lambda parameter: None)
    normal(loc(), scale=scale)


PROGRAMS = {
    by_the_type_of_an_argument: "asks for types",
    by_what_is_a_tensor: "asks for types",
    by_the_type_of_an_item: "asks for types",
    as_precise_as_numbers: "",
    while_it_compiles: "",
    with_a_hook: "registers a hook",
    with_a_hook_for_later: "registers a hook",
}


@pytest.mark.parametrize("model", PROGRAMS)
def test_a_program_takes_the_path_that_it_takes_under_pyro(model):
    def program(kind):
        svi = svi_of(kind, model)
        for step in range(8):
            yield svi.step(1.0 + step / 10)

    outcome = compare(program)
    assert (outcome.graphs == 0) == bool(PROGRAMS[model])
    assert all(re.search(PROGRAMS[model], told) for _, told in outcome.reasons)


def test_floats_are_as_precise_as_parameters():
    def program(kind):
        start = torch.zeros(3, dtype=torch.float64)
        torch.set_default_dtype(torch.float32)
        svi = svi_of(kind, lambda scale: normal(pyro.param("loc", start), scale=scale))
        for step in range(8):
            yield svi.step(1.1 + step / 7)

    assert compare(program, tolerance=1e-13).graphs == 1


def by_data(gradient, flat):
    gradient.data.add_(5.0)


def by_numpy(gradient, flat):
    gradient.numpy()[:] = 5.0


def of_a_view(gradient, flat):
    flat.append(gradient.view(-1))


def kept(gradient, flat):
    flat.append(gradient)
    flat[-3 if len(flat) > 3 else 0].add_(1.0)


def in_a_bucket(gradient, flat):
    flat.append(torch.zeros(3))
    parameter().grad = flat[-1]


@pytest.mark.parametrize("change", [by_data, by_numpy, of_a_view, kept, in_a_bucket])
def test_gradients_are_added_to_where_they_lie(change):
    def program(kind):
        flat = []
        svi = svi_of(kind, lambda: normal(loc()))
        for step in range(20):
            yield svi.step()
            yield from (sum(kept) for kept in flat[-3:])
            if step % 5 > 1:
                change(parameter().grad, flat)

    outcome = compare(program)
    assert outcome.graphs == 1
    assert outcome.reasons == []


@pytest.mark.parametrize("at", [1, 5, 17, 18], ids=["captured", "run", "checked", "after"])
def test_errors_are_the_programs_own_and_happen_once(at):
    def program(kind):
        count = torch.zeros(3)

        def model(matrix):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            count.add_(1)
            factor = torch.linalg.cholesky(matrix)
            pyro.sample("x", dist.MultivariateNormal(loc() + z, scale_tril=factor), obs=count / 9)

        def guide(matrix):
            pyro.sample("z", dist.Normal(pyro.param("mean", torch.zeros(3)), 1.0).to_event(1))

        svi = svi_of(kind, model, guide)
        for step in range(22):
            matrix = -torch.eye(3) if step == at else torch.eye(3)
            try:
                yield svi.step(matrix)
            except torch.linalg.LinAlgError:
                yield torch.tensor(-1.0)
            yield count.sum()

    outcome = compare(program)
    assert outcome.graphs == 1
    assert outcome.reasons == []


def test_an_interrupted_capture_loses_no_gradient():
    def program(kind):
        interrupts = torch.zeros(())

        class Hasty(nn.Module):
            def forward(self, x):
                if len(asked) == 2:
                    raise KeyboardInterrupt
                return x

        asked, hasty = [], Hasty()
        svi = svi_of(kind, lambda: normal(hasty(loc())))
        for step in range(8):
            asked[:] = range(step + 1) if step < 3 else []
            if step == 1:
                parameter().grad.add_(3.0)
            try:
                yield svi.step()
            except KeyboardInterrupt:
                interrupts += 1
                yield parameter().grad.sum()
        yield interrupts

    compare(program)


@pytest.mark.parametrize(
    ("how", "after"),
    [(copy.deepcopy, 0), (copy.deepcopy, 5), (lambda svi: pickle.loads(pickle.dumps(svi)), 0)],
)
def test_copies_go_on(how, after):
    def program(kind):
        svi = svi_of(kind, model_of_a_module, guide_of_a_module)
        for _ in range(after):
            yield svi.step()
        other = how(svi)
        for one in (svi, other):
            for _ in range(5):
                yield one.step()

    compare(program)


def model_of_a_module():
    normal(loc())


def guide_of_a_module():
    pass


def test_names_are_free_for_subclasses_and_users():
    def program(kind):
        svi = svi_of(kind, lambda: normal(loc()))
        svi.losses, svi.gradients, svi.parameters = [], None, ()
        for _ in range(5):
            svi.losses.append(svi.step())
            yield svi.losses[-1]
        yield svi.evaluate_loss()

    def ours(*args, **kwargs):
        class Mine(CompiledSVI):
            def update(self, loss):
                self.mean = 0.5 * getattr(self, "mean", 0.0) + 0.5 * loss

            def step(self, *args):
                self.update(loss := super().step(*args))
                return loss

        return Mine(*args, **kwargs, engine="compiled")

    pyro.clear_param_store()
    stock = list(program(pyro.infer.SVI))
    pyro.clear_param_store()
    assert list(program(ours)) == pytest.approx(stock)


def itself():
    namespace = argparse.Namespace(scale=1.0)
    namespace.me = namespace
    return namespace


def marked():
    x = X.clone()
    x.weight = 2.0
    return x


ARGUMENTS = {
    "a slice": (lambda: slice(0, 5), ""),
    "a namespace in itself": (itself, "holds itself"),
    "a tensor with attributes": (marked, "a tensor with attributes, weight"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_all_kinds_are_taken(name):
    make, reason = ARGUMENTS[name]

    def program(kind):
        given = make()
        if isinstance(given, slice):
            model = lambda given: normal(loc(), x=X[given])  # noqa: E731
        else:
            model = lambda given: normal(loc(), scale=getattr(given, "weight", 1.0))  # noqa: E731
        yield from (svi.step(given) for svi in [svi_of(kind, model)] for _ in range(6))

    outcome = compare(program)
    assert (outcome.graphs == 0) == bool(reason)
    assert all(reason in told for _, told in outcome.reasons)


def under_anomaly_mode(kind):
    with torch.autograd.set_detect_anomaly(mode=True):
        yield from steps(kind, lambda: normal(loc()))


def under_a_profiler(kind):
    svi, profiler = svi_of(kind, lambda: normal(loc())), cProfile.Profile()
    for _ in range(6):
        profiler.enable()
        loss = svi.step()
        profiler.disable()
        yield loss


def with_a_hook_on_all_modules(kind):
    seen = torch.zeros(())
    hook = nn.modules.module.register_module_forward_hook(lambda *_: seen.add_(1))
    net = nn.Linear(3, 3)
    yield from steps(kind, lambda: normal(net(loc()).detach() + loc()))
    hook.remove()
    yield seen


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (under_anomaly_mode, "anomaly mode is on"),
        pytest.param(
            under_a_profiler,
            "a profiler sees its calls",
            # Later ones are no profile hooks, and see nothing of ours.
            marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="no profile hook"),
        ),
        (with_a_hook_on_all_modules, "a hook on all modules"),
    ],
)
def test_what_watches_each_operation_is_named(program, reason):
    outcome = compare(program)
    assert outcome.graphs == 0
    ((_, told),) = outcome.reasons
    assert reason in told


@pytest.mark.parametrize("kind_of_net", [nn.GRU, nn.LSTM])
def test_recurrent_networks_are_compiled(kind_of_net):
    def program(kind):
        torch.manual_seed(0)
        net = kind_of_net(3, 3, batch_first=True)

        def model(x):
            pyro.module("net", net)
            normal(net(x[None])[0][0])

        yield from (svi.step(X) for svi in [svi_of(kind, model)] for _ in range(8))

    assert compare(program).graphs == 1
