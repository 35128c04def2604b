"""Every registered program, and some that users might write, keep the contract of a program."""

import copy

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO

from ppl_vae.data.batch import Batch
from ppl_vae.models import GUIDES, LIKELIHOODS, PRIORS, PROGRAMS, Categorical, LogNormal, Ordered
from ppl_vae.programs.batches import covariates_of
from ppl_vae.programs.conformance import check_program
from ppl_vae.programs.protocol import dtype_of
from ppl_vae.programs.sites import Sites, trace_draws

from . import programs, tables

SHAPE = (1, 6, 7)
NEEDED = {name: {"classes": 3} for name in ("conditional-vae", "semi-supervised-vae")}
VARIANTS = {
    "vae-convolutional": lambda: PROGRAMS["vae"](SHAPE, 3, (16,), channels=(4, 8)),
    "vae-linear": lambda: PROGRAMS["vae"](SHAPE, 3, ()),
    **{
        f"vae-{name}": lambda name=name: PROGRAMS["vae"](SHAPE, 3, (16,), likelihood=name)
        for name in LIKELIHOODS
        if name not in ("categorical", "ordered", "columns")
    },
    **{
        f"vae-{kind.__name__.lower()}": lambda kind=kind: PROGRAMS["vae"](
            SHAPE, 3, (16,), channels=(4,), likelihood=kind(SHAPE, classes=3)
        )
        for kind in (Categorical, Ordered)
    },
    "autoencoder-counts": lambda: PROGRAMS["autoencoder"](SHAPE, 3, (8,), likelihood="poisson"),
    **{
        f"vae-{name}-guide": lambda name=name: PROGRAMS["vae"](SHAPE, 3, (16,), guide=name)
        for name in GUIDES
    },
    **{
        f"vae-{name}-prior": lambda name=name: PROGRAMS["vae"](SHAPE, 3, (16,), prior=name)
        for name in PRIORS
    },
    **{
        f"vae-{name}-guide-vamp": lambda name=name: PROGRAMS["vae"](
            SHAPE, 3, (16,), guide=name, prior="vamp", components=4, encoder_hidden=(32, 8)
        )
        for name in ("mixture", "flow")
    },
    "vae-fixed-scale": lambda: PROGRAMS["vae"](
        SHAPE, 3, (16,), likelihood="gaussian", likelihood_scale=0.1
    ),
    **{
        name: lambda kind=kind, name=name: kind(SHAPE, latent_dim=3, **NEEDED.get(name, {}))
        for name, kind in PROGRAMS.items()
    },
    **{
        f"{name}-{part}": lambda name=name, part=part: PROGRAMS[name](
            SHAPE, 3, (), guide="full", prior=part, channels=(4,), classes=3
        )
        for name in NEEDED
        for part in ("flow", "vamp")
    },
    "conditional-vae-covariates": lambda: PROGRAMS["conditional-vae"](
        SHAPE, 3, (16,), covariates={"dose": (1.0, 2.0), "place": ([0.0, 1.0], [1.0, 3.0])}
    ),
}
USERS = {
    kind.__name__: lambda kind=kind: kind((5,))
    for kind in (
        *(programs.Minimal, programs.TwoLayers, programs.Discrete),
        *(tables.Conditional, tables.Incomplete, tables.Labelled),
    )
}
ours = pytest.mark.parametrize("make", VARIANTS.values(), ids=VARIANTS.keys())
everyone = pytest.mark.parametrize(
    "make", (VARIANTS | USERS).values(), ids=(VARIANTS | USERS).keys()
)


def data_for(program, size=8):
    """A batch with what the program takes."""
    shape = getattr(program, "data_shape", (5,))
    positive = isinstance(getattr(program, "likelihood", None), LogNormal)
    batch = Batch(x=(torch.randint(2, (size, *shape)) + positive).to(dtype_of(program)))
    needed, _ = covariates_of(program)
    given = {"y": torch.arange(size) % 3, "mask": torch.rand(size, *shape) < 0.5}
    if isinstance(program, PROGRAMS["semi-supervised-vae"]):
        given["y"][::2], needed = -1, {"y"}
    if isinstance(program, PROGRAMS["conditional-vae"]):
        given |= {"dose": torch.rand(size), "place": torch.rand(size, 2)}
        needed = program.condition.widths.keys() | ({"y"} if program.condition.classes else set())
    return Batch({**batch, **{name: given[name] for name in sorted(needed)}})


def loss_for(program):
    """Pyro's ELBO, of sums where the guide asks for them."""
    enumerated = Sites.of(program, data_for(program)).enumerated
    return TraceEnum_ELBO(max_plate_nesting=1) if enumerated else Trace_ELBO()


def conditions_for(program, size):
    """What the model is given when it draws data: how many, if not what they are given."""
    given = data_for(program, size).covariates
    return given or {"size": size}


@everyone
def test_conforms(make):
    program = make()
    check_program(program, data_for(program))


@ours
def test_samples_without_data(make):
    program = make()
    assert program.model(**conditions_for(program, 3)).shape == (3, *SHAPE)


@everyone
def test_conditions_on_data_and_finds_finite_densities(make):
    program = make()
    batch = data_for(program)
    guide = batch.call(poutine.trace(program.guide).get_trace)
    model = batch.call(poutine.trace(poutine.replay(program.model, trace=guide)).get_trace)
    model.compute_log_prob()
    guide.compute_log_prob()
    assert "x" in model.observation_nodes
    for site in model.observation_nodes:
        assert torch.equal(model.nodes[site]["value"], batch[site])
    for trace in (model, guide):
        for site in trace.stochastic_nodes + trace.observation_nodes:
            node = trace.nodes[site]
            if site == "data":
                continue
            assert node["log_prob"].shape == (8,)
            assert node["log_prob"].isfinite().all()
            assert [frame.name for frame in node["cond_indep_stack"]] == ["data"]


@everyone
def test_broadcasts_over_draws(make):
    program = make()
    x = data_for(program)
    guide, model = trace_draws(program, x, draws=4)
    model.compute_log_prob()
    assert model.nodes["x"]["log_prob"].shape == (4, 8)
    for site in guide.stochastic_nodes:
        value = guide.nodes[site]["value"]
        assert value.shape[:2] == (4, 8)


@everyone
def test_two_steps_of_stock_svi_move_every_parameter_of_two_instances_in_a_row(make):
    """Two: a flow begins as the identity, so that in the first one only its last layers move."""
    for _ in range(2):
        program = make()
        before = {name: p.detach().clone() for name, p in program.named_parameters()}
        adam = pyro.optim.Adam({"lr": 1e-2})
        svi = SVI(program.model, program.guide, adam, loss_for(program))
        for _ in range(2):
            svi.step(**data_for(program))
        still = [n for n, p in program.named_parameters() if torch.equal(p, before[n])]
        assert still == []


@ours
def test_a_deep_copy_trains_apart(make):
    program = make()
    x = data_for(program)
    SVI(program.model, program.guide, pyro.optim.Adam({"lr": 1e-2}), loss_for(program)).step(**x)
    twin = copy.deepcopy(program)
    before = copy.deepcopy(program.state_dict())
    SVI(twin.model, twin.guide, pyro.optim.Adam({"lr": 1e-2}), loss_for(program)).step(**x)
    assert all(torch.equal(v, before[k]) for k, v in program.state_dict().items())
    assert not any(torch.equal(p, before[k]) for k, p in twin.named_parameters())


@ours
def test_predictive_draws_from_the_prior(make):
    program = make()
    drawn = Predictive(program.model, num_samples=10)(None, **conditions_for(program, 4))
    assert drawn["x"].shape == (10, 4, *SHAPE)
    assert drawn["z"].shape == (10, 4, 3)
    assert drawn["x"].isfinite().all()


@ours
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moves_to_another_dtype(make, dtype):
    program = make().to(dtype)
    x = data_for(program)
    drawn = program.model(**conditions_for(program, 2))
    assert program.guide(**x).dtype == drawn.dtype == dtype
    check_program(program, x)


@ours
def test_same_seed_same_program_and_draws(make):
    def once():
        pyro.set_rng_seed(3)
        program = make()
        return program.model(**conditions_for(program, 5))

    assert torch.equal(once(), once())


@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_sizes_that_no_network_has_are_refused(name, bad):
    with pytest.raises(ValueError, match="latent_dim must hold integers"):
        PROGRAMS[name](SHAPE, latent_dim=bad)
    with pytest.raises(ValueError, match="data_shape must hold integers"):
        PROGRAMS[name]((bad, 3))
    with pytest.raises(ValueError, match="data_shape must have"):
        PROGRAMS[name](())
