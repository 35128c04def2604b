"""CompiledSVI is pyro.infer.SVI: the same gradients, steps and losses from the same draws."""

import copy
import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, ReweightedWakeSleep, Trace_ELBO
from torch import nn

from ppl_vae import CompiledSVI, InputError
from ppl_vae.compiled.engine import EagerWarning
from ppl_vae.compiled.kernels import compile_graph, step_by_step
from ppl_vae.models import VAE
from ppl_vae.objectives.kl_weight import KLWeight

from .programs import Explodes, Minimal
from .svi_programs import CASES, binary, table


def sgd():
    return pyro.optim.SGD({"lr": 1e-3})


def compiled(model, guide, optim=None, loss=None, **options):
    return CompiledSVI(model, guide, optim or sgd(), loss or Trace_ELBO(), **options)


def error_of(gradients, others):
    """Relative to the others' norm, all parameters taken together."""
    pairs = [(a, b) for a, b in zip(gradients, others, strict=True) if b is not None]
    assert all(a is None for a, b in zip(gradients, others, strict=True) if b is None)
    one, other = (torch.cat([g.flatten() for g in column]) for column in zip(*pairs, strict=True))
    return ((one - other).norm() / other.norm()).item()


# Compiling takes most of the time: of the others, the graph as it was captured.
COMPILED = {"our VAE", "discrete latent", "two layers, DReG", "semi-supervised, enumerated"}
OTHERS = [name for name in CASES if name not in COMPILED]


@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        *((name, compile_graph) for name in sorted(COMPILED)),
        *((name, step_by_step) for name in OTHERS),
        *(pytest.param(name, compile_graph, marks=pytest.mark.slow) for name in OTHERS),
    ],
)
def test_loss_and_gradients_are_svis_on_the_same_draws(name, compiler):
    case = CASES[name]()
    svi = compiled(case.model, case.guide, loss=case.loss, engine="compiled")
    svi.gradients.compiler = compiler
    for _ in range(3):  # an automatic guide grows its modules in the first one
        svi.step(*case.args, **case.kwargs)
    assert svi.gradients.graphs == 1
    torch.manual_seed(5)
    expected = case.loss.loss_and_grads(case.model, case.guide, *case.args, **case.kwargs)
    stock = [parameter.grad for parameter in svi.parameters]
    for parameter in svi.parameters:
        parameter.grad = None
    gradients = []
    svi.gradients.on_result = lambda results: gradients.extend(p.grad for p in results[1].tensors)
    torch.manual_seed(5)
    loss = svi.gradients(*case.args, **case.kwargs)[0]
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert error_of(gradients, stock) < 1e-5


@pytest.mark.parametrize("decay", [False, True])
def test_steps_are_svis(decay):
    """Parameters after 12 steps, the last of two batches of ten smaller, with a scheduler."""
    start, x = VAE((5,), latent_dim=2, hidden=(8,)), binary(96, 5)
    ends = []
    for kind in (SVI, CompiledSVI):
        vae, optim = copy.deepcopy(start), pyro.optim.Adam({"lr": 1e-2})
        if decay:
            options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.5}
            optim = pyro.optim.ExponentialLR(options)
        options = {"engine": "compiled"} if kind is CompiledSVI else {}
        svi = kind(vae.model, vae.guide, optim, Trace_ELBO(), **options)
        torch.manual_seed(2)
        for _ in range(4):
            losses = [svi.step(batch) for batch in x.split(40)]
            if decay:
                optim.step()
        ends.append((losses, svi.evaluate_loss(x), nn.utils.parameters_to_vector(vae.parameters())))
    assert svi.gradients.graphs == 1
    assert ends[0][0] == pytest.approx(ends[1][0], rel=1e-4)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-4)
    torch.testing.assert_close(ends[0][2], ends[1][2], rtol=1e-3, atol=1e-4)


def weighted(x, weight):
    """A model whose latent is weighed by an argument, and its guide."""
    loc = pyro.param("loc", torch.tensor(0.3))
    with pyro.plate("data", len(x)):
        with pyro.poutine.scale(scale=weight):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(loc + z, 1.0), obs=x)


def weighted_guide(x, weight):
    slope = pyro.param("slope", torch.tensor(0.3))
    with pyro.plate("data", len(x)), pyro.poutine.scale(scale=weight):
        pyro.sample("z", dist.Normal(slope * x, 0.7))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_weight_changes_without_another_graph(as_tensor):
    x, svi = table(20), compiled(weighted, weighted_guide, engine="compiled")
    for weight in (0.1, 0.2, 0.3, 0.7, 1.0):
        given = torch.tensor(weight) if as_tensor else weight
        torch.manual_seed(3)
        expected = SVI(weighted, weighted_guide, sgd(), Trace_ELBO()).evaluate_loss(x, given)
        torch.manual_seed(3)
        assert svi.step(x, given) == pytest.approx(expected, rel=1e-5)
    assert svi.gradients.graphs == 1


@pytest.mark.parametrize("free_bits", [0.0, 0.3])
def test_the_weight_of_the_kl_is_followed(free_bits):
    program, x, kl_weight = Minimal(), table(20, 5), KLWeight(free_bits)

    def loss_and_grads(model, guide, x):
        with kl_weight:
            return Trace_ELBO().loss_and_grads(model, guide, x)

    svi = CompiledSVI(
        program.model, program.guide, sgd(), Trace_ELBO().loss, loss_and_grads, engine="compiled"
    )
    for weight in (0.1, 0.2, 0.5, 1.0):
        kl_weight.weight = weight
        before = copy.deepcopy(program)
        torch.manual_seed(3)
        loss = svi.step(x)
        torch.manual_seed(3)
        assert loss == pytest.approx(loss_and_grads(before.model, before.guide, x), rel=1e-5)
    assert svi.gradients.graphs == 1


def test_evaluating_changes_nothing_and_is_compiled_too():
    vae, x = VAE((5,), latent_dim=2, hidden=(8,)), binary(9, 5)
    svi = compiled(vae.model, vae.guide, engine="compiled")
    stock = SVI(vae.model, vae.guide, sgd(), Trace_ELBO())
    before = copy.deepcopy(vae.state_dict())
    found = []
    for one in (svi, svi, svi, stock):
        torch.manual_seed(3)
        found.append(one.evaluate_loss(x))
    assert svi.losses.graphs == 1
    assert all(isinstance(loss, float) for loss in found)
    assert found == pytest.approx([found[-1]] * 4, rel=1e-5)
    assert all(torch.equal(before[name], p) for name, p in vae.state_dict().items())
    assert all(p.grad is None for p in vae.parameters())


def test_a_cleared_store_gets_parameters_that_train():
    x, svi = table(20) + 2.0, compiled(weighted, weighted_guide, engine="compiled")
    for _ in range(3):
        svi.step(x, 1.0)
    pyro.clear_param_store()
    for _ in range(3):
        svi.step(x, 1.0)
    assert pyro.param("loc").item() != pytest.approx(0.3, abs=1e-4)
    assert svi.gradients.graphs == 1


def test_instances_in_a_row_train_each_its_own():
    x = binary(9, 5)
    for _ in range(2):
        vae = VAE((5,), latent_dim=2, hidden=(8,))
        before = copy.deepcopy(vae.state_dict())
        svi = compiled(vae.model, vae.guide, engine="compiled")
        for _ in range(3):
            svi.step(x)
        assert not any(torch.equal(before[name], p) for name, p in vae.named_parameters())


def test_what_counts_its_calls_is_called_at_each_step():
    x, found = table(9, 5), []
    for kind in (SVI, compiled):
        torch.manual_seed(0)
        program = Explodes(calls=3)
        options = {} if kind is SVI else {"engine": "compiled"}
        svi = kind(program.model, program.guide, sgd(), Trace_ELBO(), **options)
        with warnings.catch_warnings(record=True) as told, pyro.validation_enabled(False):
            warnings.simplefilter("always")
            found.append([svi.step(x) for _ in range(4)])
    assert math.isnan(found[0][-1])
    assert found[0] == pytest.approx(found[1], nan_ok=True)
    (reason,) = [str(one.message) for one in told if one.category is EagerWarning]
    assert reason.startswith("Explodes runs eagerly: it changes self.calls")


def test_a_loss_that_is_nan_warns_as_under_svi():
    x, svi = table(20), compiled(weighted, weighted_guide, engine="compiled")
    for _ in range(3):
        svi.step(x, 1.0)
    with pytest.warns(UserWarning, match="Encountered NaN: loss"):
        svi.step(torch.full((20,), torch.nan), 1.0)


def test_losses_that_are_pairs_stay_pairs():
    program, x = Minimal(), table(9, 5)
    loss = ReweightedWakeSleep(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    svi = compiled(program.model, program.guide, loss=loss, engine="compiled")
    found = [svi.step(x) for _ in range(4)]
    assert svi.gradients.graphs == 1
    assert all(isinstance(one, tuple) and len(one) == 2 for one in found)


def test_a_loss_may_be_a_function():
    def loss(model, guide, x):
        guide_trace = pyro.poutine.trace(guide).get_trace(x)
        replayed = pyro.poutine.replay(model, trace=guide_trace)
        model_trace = pyro.poutine.trace(replayed).get_trace(x)
        return guide_trace.log_prob_sum() - model_trace.log_prob_sum()

    vae, x = VAE((5,), latent_dim=2, hidden=(8,)), binary(9, 5)
    svi = compiled(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), loss, engine="compiled")
    losses = [svi.step(x) for _ in range(100)]
    assert svi.gradients.graphs == 1
    assert sum(losses[-10:]) < sum(losses[:10])


def test_checks_find_nothing_to_say_of_a_program_that_is_static():
    vae, x = VAE((5,), latent_dim=2, hidden=(8,)), binary(9, 5)
    svi = compiled(vae.model, vae.guide, engine="compiled")
    for _ in range(70):  # among which are checks, at the 16th, 32nd and 64th call of the graph
        assert isinstance(svi.step(x), float)
        svi.evaluate_loss(x)
    assert svi.gradients.graphs == svi.losses.graphs == 1


def test_auto_compiles_nothing_that_does_not_pay():
    vae, x = VAE((5,), latent_dim=2, hidden=(8,)), binary(9, 5)
    svi = compiled(vae.model, vae.guide)
    for _ in range(50):
        svi.step(x)
    assert svi.gradients.graphs == 0


def test_arguments_are_checked_as_by_svi():
    vae = VAE((5,))
    with pytest.raises(InputError, match="engine must be one of .*'fast'"):
        compiled(vae.model, vae.guide, engine="fast")
    with pytest.raises(ValueError, match="Optimizer should be an instance of pyro.optim.PyroOptim"):
        compiled(vae.model, vae.guide, torch.optim.Adam(vae.parameters()))
