"""FusedOptimizer against Pyro's own stepping, on the same gradients."""

import copy

import pyro
import pytest
import torch

from ppl_vae.compiled.fused import FusedOptimizer, TorchOptimizer

STEPS = 20
SHAPES = {"matrix": (3, 2), "number": (), "double": (4,), "none": (0,)}
ADAM = {"lr": 0.1, "weight_decay": 0.01, "amsgrad": True, "betas": (0.8, 0.99)}
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}


def made(shapes=SHAPES):
    """Values by name, of two precisions."""
    drawn = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(shape, generator=drawn).to(
            torch.float64 if name == "double" else torch.float32
        )
        for name, shape in shapes.items()
    }


def gradients(values, steps=STEPS):
    """One after the other, of sizes that differ."""
    drawn = torch.Generator().manual_seed(2)
    return [
        {
            name: torch.randn(v.shape, generator=drawn, dtype=v.dtype) * 3.0 ** (step % 3)
            for name, v in values.items()
        }
        for step in range(steps)
    ]


class Descent:
    """Parameters in Pyro's store, and what moves them: Pyro, or all at once."""

    def __init__(self, optim, values, joint):
        pyro.clear_param_store()
        self.optim, self.joint = optim, FusedOptimizer(optim) if joint else None
        self.parameters = {}
        self.add(values)

    def add(self, values):
        for name, value in values.items():
            self.parameters[name] = pyro.param(name, value.clone()).unconstrained()

    def follow(self, gradients, after=lambda step: None):
        for step, given in enumerate(gradients):
            for name, parameter in self.parameters.items():
                parameter.grad = copy.deepcopy(given[name])
            parameters = list(self.parameters.values())
            self.optim(parameters) if self.joint is None else self.joint.step(parameters)
            after(step)
        return self

    @property
    def joined(self):
        return self.joint._joint is not None


def assert_close(some, others):
    """Each step rounds a handful of times, to units of the largest number on the way."""
    for name, value in others.items():
        eps, size = torch.finfo(value.dtype).eps, 10.0
        torch.testing.assert_close(some[name], value, rtol=0.0, atol=4 * STEPS * eps * size)


def assert_the_same(make, given, values=None, joins=True, **options):
    """Both ways from the same start, ``make`` being how to make the optimizer."""
    values = made() if values is None else values
    stock = Descent(make(), values, joint=False).follow(given, **options)
    joint = Descent(make(), values, joint=True).follow(given, **options)
    assert joint.joined == joins
    moved = {name: parameter.data for name, parameter in stock.parameters.items()}
    assert_close({name: p.data for name, p in joint.parameters.items()}, moved)
    for name, value in moved.items():
        assert value.numel() == 0 or not torch.equal(value, values[name])


@pytest.mark.parametrize(
    ("kind", "options", "joins"),
    [
        ("Adam", {"lr": 0.1}, True),
        ("Adam", ADAM, True),
        ("Adam", {"lr": 0.1, "maximize": True}, True),
        ("AdamW", ADAM, True),
        ("SGD", {"lr": 0.1}, True),
        ("SGD", SGD, True),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}, True),
        ("ClippedAdam", {"lr": 0.1, "clip_norm": 2.0, "lrd": 0.99}, False),
        ("RMSprop", {"lr": 0.1}, False),
        ("Adam", {"lr": 0.1, "foreach": True}, False),
    ],
)
def test_parameters_move_as_by_pyro(kind, options, joins):
    values = made()
    make = lambda: getattr(pyro.optim, kind)(dict(options))  # noqa: E731
    assert_the_same(make, gradients(values), joins=joins)


def test_each_parameter_has_the_options_that_its_name_gets():
    def options(name):
        return {"matrix": {"lr": 0.1}, "number": {"lr": 0.01}}.get(name, {**ADAM, "lr": 0.3})

    assert_the_same(lambda: pyro.optim.Adam(options), gradients(made()))


CLIPS = {
    "norm": {"clip_norm": 0.5},
    "value": {"clip_value": 0.2},
    "by name": lambda module, name: {"clip_norm": 0.5} if name == "matrix" else {},
}


@pytest.mark.parametrize("clip", CLIPS)
def test_gradients_are_clipped_first(clip):
    assert_the_same(lambda: pyro.optim.SGD({"lr": 0.1}, CLIPS[clip]), gradients(made()))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_schedulers_are_followed(kind):
    optims = []

    def make():
        options = {"optimizer": kind, "optim_args": {"lr": 0.5}, "gamma": 0.7}
        optims.append(pyro.optim.ExponentialLR(options))
        return optims[-1]

    def schedule(step):
        if step % 5 == 4:
            optims[-1].step()

    assert_the_same(make, gradients(made()), after=schedule)
    for optim in optims:
        for scheduler in optim.optim_objs.values():
            assert scheduler.get_last_lr() == pytest.approx([0.5 * 0.7**4])


def test_a_scheduler_that_looks_at_the_loss_is_followed():
    optims = []

    def make():
        options = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.5}, "patience": 2}
        optims.append(pyro.optim.ReduceLROnPlateau(options))
        return optims[-1]

    assert_the_same(make, gradients(made()), after=lambda step: optims[-1].step(1.0))
    rates = [o.optimizer.param_groups[0]["lr"] for o in optims[1].optim_objs.values()]
    assert rates == pytest.approx([0.5e-6] * len(SHAPES))  # after each three of nineteen


def halve_the_rate(optimizer):
    optimizer.param_groups[0]["lr"] /= 2


def forget(optimizer):
    optimizer.state.clear()


def go_back(optimizer):
    state = copy.deepcopy(optimizer.state_dict())
    for value in state["state"][0].values():
        value.mul_(0.5)
    optimizer.load_state_dict(state)


@pytest.mark.parametrize("change", [halve_the_rate, forget, go_back])
def test_what_is_changed_by_hand_is_followed(change):
    optims = []

    def make():
        optims.append(pyro.optim.Adam({"lr": 0.1}))
        return optims[-1]

    def at_half(step):
        if step == STEPS // 2:
            for optimizer in optims[-1].optim_objs.values():
                change(optimizer)

    assert_the_same(make, gradients(made()), after=at_half)


OPTIMS = {
    "Adam": lambda: pyro.optim.Adam(dict(ADAM)),
    "SGD": lambda: pyro.optim.SGD({"lr": 0.1}),
    "SGD, momentum": lambda: pyro.optim.SGD(dict(SGD)),
}
MISSING = {
    "at first": lambda step: step < 4,
    "now and then": lambda step: step % 3 == 1,
    "later": lambda step: step > 10,
}


@pytest.mark.parametrize("when", MISSING)
@pytest.mark.parametrize("name", OPTIMS)
def test_a_parameter_without_a_gradient_stays_where_it_is(name, when):
    given = gradients(made())
    for step, gradient in enumerate(given):
        if MISSING[when](step):
            gradient["matrix"] = None
    assert_the_same(OPTIMS[name], given)


def test_a_parameter_that_never_has_a_gradient_stays_where_it_is():
    values = made()
    given = [{**gradient, "matrix": None} for gradient in gradients(values)]
    joint = Descent(pyro.optim.Adam(dict(ADAM)), values, joint=True).follow(given)
    assert joint.joined
    assert torch.equal(joint.parameters["matrix"].data, values["matrix"])


@pytest.mark.parametrize("name", OPTIMS)
def test_parameters_may_appear_later(name):
    early, late = made(), made({"late": (2, 3), "later": (5,)})
    given, ends = gradients({**early, **late}), []
    for joint in (False, True):
        descent = Descent(OPTIMS[name](), early, joint).follow(given[:5])
        descent.add(late)
        descent.follow(given[5:])
        ends.append({name: p.data for name, p in descent.parameters.items()})
    assert_close(ends[1], ends[0])
    assert not torch.equal(ends[1]["late"], late["late"])


@pytest.mark.parametrize("name", OPTIMS)
def test_parameters_that_go_are_left_where_they_are(name):
    values = made()
    given, ends = gradients(values), []
    for joint in (False, True):
        descent = Descent(OPTIMS[name](), values, joint).follow(given[:5])
        gone = descent.parameters.pop("matrix")
        left = gone.detach().clone()
        descent.follow(given[5:])
        assert torch.equal(gone, left)
        ends.append({name: p.data for name, p in descent.parameters.items()})
    assert_close(ends[1], ends[0])


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_complex_parameters_move(kind):
    values = {"complex": torch.tensor([1.0 + 2.0j, -0.5j, 3.0])}
    make = lambda: getattr(pyro.optim, kind)({"lr": 0.1})  # noqa: E731
    ends = [Descent(make(), values, joint).follow(gradients(values)) for joint in (False, True)]
    stock, joint = (torch.view_as_real(end.parameters["complex"].data) for end in ends)
    assert_close({"complex": joint}, {"complex": stock})


def test_parameters_move_along_sparse_gradients():
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        gradient = {"rows": torch.tensor([[1.0, 2.0], [0.0, 0.0]]).to_sparse()}
    values = {"rows": torch.ones(2, 2)}
    for joint in (False, True):
        descent = Descent(pyro.optim.SGD({"lr": 0.5}), values, joint).follow([gradient] * 3)
        expected = torch.tensor([[-0.5, -2.0], [1.0, 1.0]])
        assert torch.equal(descent.parameters["rows"].data, expected)


@pytest.mark.parametrize("name", OPTIMS)
@pytest.mark.parametrize("first", ["stock", "joint"])
def test_a_state_goes_from_one_way_to_the_other(name, first, tmp_path):
    values = made()
    given, file = gradients(values), str(tmp_path / "state")
    whole = Descent(OPTIMS[name](), values, joint=False).follow(given)
    moved = {name: parameter.data for name, parameter in whole.parameters.items()}

    half = Descent(OPTIMS[name](), values, joint=first == "joint").follow(given[: STEPS // 2])
    half.optim.save(file)
    reached = {name: parameter.data for name, parameter in half.parameters.items()}
    rest = Descent(OPTIMS[name](), reached, joint=first == "stock")
    rest.optim.load(file)
    rest.follow(given[STEPS // 2 :])
    assert_close({name: p.data for name, p in rest.parameters.items()}, moved)


@pytest.mark.parametrize("name", OPTIMS)
def test_a_state_is_that_of_pyro(name):
    values = made()
    stock, joint = (
        Descent(OPTIMS[name](), values, joint).follow(gradients(values)).optim.get_state()
        for joint in (False, True)
    )
    assert joint.keys() == stock.keys() == values.keys()
    for parameter, expected in stock.items():
        assert joint[parameter]["param_groups"] == expected["param_groups"]
        state, expected = joint[parameter]["state"].get(0, {}), expected["state"].get(0, {})
        assert state.keys() == expected.keys()
        for key, value in expected.items():
            if value is not None:
                size = max(1.0, value.abs().max().item()) if value.numel() else 1.0
                atol = 4 * STEPS * torch.finfo(value.dtype).eps * size
                torch.testing.assert_close(state[key], value, rtol=0.0, atol=atol)


def test_a_scheduler_keeps_its_state():
    options = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.5}, "gamma": 0.7}
    values = made()
    given = gradients(values)
    ends = []
    for first in (False, True):
        half = Descent(pyro.optim.ExponentialLR(copy.deepcopy(options)), values, joint=first)
        half.follow(given[:10], after=lambda step, half=half: half.optim.step())
        state = half.optim.get_state()
        reached = {name: parameter.data for name, parameter in half.parameters.items()}
        rest = Descent(pyro.optim.ExponentialLR(copy.deepcopy(options)), reached, joint=not first)
        rest.optim.set_state(state)
        rest.follow(given[10:])
        ends.append({name: parameter.data for name, parameter in rest.parameters.items()})
    assert_close(ends[1], ends[0])


@pytest.mark.parametrize("joint", [False, True])
def test_a_torch_optimizer_takes_the_place_of_pyros(joint):
    values = made()
    given = gradients(values)
    weights = {name: value.clone().requires_grad_() for name, value in values.items()}
    alone = torch.optim.Adam(weights.values(), lr=0.1)
    for gradient in given:
        for name, weight in weights.items():
            weight.grad = gradient[name]
        alone.step()

    moved = {name: value.clone().requires_grad_() for name, value in values.items()}
    descent = Descent(TorchOptimizer(torch.optim.Adam(moved.values(), lr=0.1)), {}, joint)
    descent.parameters = moved
    descent.follow(given)
    for name, weight in weights.items():
        assert torch.equal(moved[name], weight)
