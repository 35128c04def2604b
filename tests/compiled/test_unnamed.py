"""State that no name in the code leads to at first sight: seen when it changes."""

import collections
import copy
import dataclasses
import enum
import functools
import operator
from types import SimpleNamespace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from .both import X, compare, loc, normal, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.scale = nn.Linear(3, 3), 1.0

    def forward(self, x):
        return self.scale * self.body(x)


class Twice(Scaled):
    def forward(self, x):
        return 2 * self.body(x)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([Scaled(), Scaled()])


@dataclasses.dataclass
class Config:
    scale: float = 1.0

    def __call__(self):
        return 1.0


class Table(collections.UserDict):
    pass


class Base:
    scale = 1.0


class Derived(Base):
    scale = 3.0

    def of_base(self):
        return super().scale


class Meta(type):
    scale = 1.0


class Kind(enum.Enum):
    ONE = 1


def two():
    return 2.0


def of_a_net(net, read=lambda net: 1.0):
    def model():
        pyro.module("net", net)
        normal(net(X), scale=read(net))

    return model


def of_a_child():
    net = Nested()

    def model():
        pyro.module("net", net)
        normal(net.parts[0](X) * net.parts[1].scale)

    return model, lambda: setattr(net.parts[1], "scale", 2.0)


def of_a_loop_over_modules():
    net = Nested()

    def model():
        pyro.module("net", net)
        scales = [part.scale for part in net.modules() if isinstance(part, Scaled)]
        normal(net.parts[0].body(X), scale=sum(scales))

    return model, lambda: setattr(net.parts[0], "scale", 2.0)


def of_an_attribute_that_comes():
    holder = SimpleNamespace()
    model = lambda: normal(loc(), scale=getattr(holder, "scale", 1.0))  # noqa: E731
    return model, lambda: setattr(holder, "scale", 2.0)


def of_a_module_that_comes():
    net = Scaled()
    read = lambda net: 2.0 if hasattr(net, "aux") else 1.0  # noqa: E731
    return of_a_net(net, read), lambda: setattr(net, "aux", nn.Identity())


def of_a_subclass():
    class Model(Base):
        def __call__(self):
            normal(loc(), scale=self.scale)

    return Model(), lambda: setattr(Model, "scale", 2.0)


def of_a_global_that_comes():
    globals().pop("COMES", None)

    def model():
        try:
            scale = COMES
        except NameError:
            scale = 1.0
        normal(loc(), scale=scale)

    return model, lambda: globals().update(COMES=2.0)


def holding(read, change):
    def make():
        holder = Config()
        return (lambda: normal(loc(), scale=read(holder))), lambda: change(holder)

    make.__name__ = read.__name__
    return make


def set_scale(holder):
    holder.scale = 2.0


def as_a_dictionary(holder):
    return dataclasses.asdict(holder)["scale"]


def by_a_copy(holder):
    return copy.copy(holder).scale


def by_a_pattern(holder):
    match holder:
        case Config(scale=found):
            return found


def by_attrgetter(holder):
    return operator.attrgetter("scale")(holder)


def of_an_import():
    from . import both

    both.COMES = 1.0

    def model():
        from .both import COMES

        normal(loc(), scale=COMES)

    return model, lambda: setattr(both, "COMES", 2.0)


def of_a_user_dict():
    holder = Table(scale=1.0)
    return lambda: normal(loc(), scale=holder["scale"]), lambda: holder.update(scale=2.0)


def of_keys():
    class Key:
        scale = 1.0

    key = Key()
    terms = {key: 1.0}
    model = lambda: normal(loc(), scale=sum(term.scale for term in terms))  # noqa: E731
    return model, lambda: setattr(key, "scale", 2.0)


def of_a_metaclass():
    made = Meta("Made", (), {})
    Meta.scale = 1.0
    return lambda: normal(loc(), scale=made.scale), lambda: setattr(Meta, "scale", 2.0)


def of_a_base():
    Base.scale, holder = 1.0, Derived()
    return lambda: normal(loc(), scale=holder.of_base()), lambda: setattr(Base, "scale", 2.0)


def of_a_member():
    Kind.ONE.scale = 1.0
    return lambda: normal(loc(), scale=Kind.ONE.scale), lambda: setattr(Kind.ONE, "scale", 2.0)


def of_numbers_in_numpys_object():
    holder = np.poly1d([1.0])
    return (
        lambda: normal(loc(), scale=float(holder(0))),
        lambda: operator.setitem(holder.coeffs, 0, 2.0),
    )


def of_a_trace_that_is_replayed():
    draw = lambda: pyro.sample("z", dist.Normal(0.0, 1.0))  # noqa: E731
    trace = pyro.poutine.trace(draw).get_trace()
    replayed = pyro.poutine.replay(draw, trace=trace)
    trace.nodes["z"]["value"] = torch.tensor(1.0)

    def model():
        with pyro.poutine.block():
            z = replayed()
        normal(loc() + z)

    return model, lambda: trace.nodes["z"].update(value=torch.tensor(3.0))


def of_text():
    space = {"loc": loc, "normal": normal, "scale": 1.0}
    exec("def model():\n    normal(loc(), scale=scale)\n", space)
    return space["model"], lambda: space.update(scale=2.0)


def of_a_forward():
    net = Scaled()
    return of_a_net(net), lambda: setattr(net, "forward", Twice.forward.__get__(net))


def of_a_forward_of_torch():
    net = nn.Linear(3, 3)
    return of_a_net(net), lambda: setattr(net, "forward", lambda x: 2 * x)


def of_a_class():
    net = Scaled()
    return of_a_net(net), lambda: setattr(net, "__class__", Twice)


def of_a_call():
    class Called:
        def __call__(self):
            return 1.0

    called = Called()
    return (
        lambda: normal(loc(), scale=called()),
        lambda: setattr(Called, "__call__", lambda self: 2.0),
    )


def of_code():
    function = lambda: 1.0  # noqa: E731
    return lambda: normal(loc(), scale=function()), lambda: setattr(
        function, "__code__", two.__code__
    )


def of_defaults():
    function = lambda scale=1.0: scale  # noqa: E731
    return lambda: normal(loc(), scale=function()), lambda: setattr(
        function, "__defaults__", (2.0,)
    )


def of_an_order():
    terms = collections.OrderedDict(a=lambda x: x + 1, b=lambda x: 2 * x)

    def model():
        normal(functools.reduce(lambda x, f: f(x), terms.values(), loc()))

    return model, lambda: terms.move_to_end("a")


def of_the_store():
    model = lambda: normal(loc(), scale=2.0 if "b" in pyro.get_param_store() else 1.0)  # noqa: E731
    return model, lambda: pyro.param("b", torch.ones(2))


CHANGED = [
    of_a_child,
    of_a_loop_over_modules,
    of_an_attribute_that_comes,
    of_a_module_that_comes,
    of_a_subclass,
    of_a_global_that_comes,
    holding(as_a_dictionary, set_scale),
    holding(by_a_copy, set_scale),
    holding(by_a_pattern, set_scale),
    holding(by_attrgetter, set_scale),
    of_an_import,
    of_a_user_dict,
    of_keys,
    of_a_metaclass,
    of_a_base,
    of_a_member,
    of_numbers_in_numpys_object,
    of_a_trace_that_is_replayed,
    of_text,
    of_a_forward,
    of_a_forward_of_torch,
    of_a_class,
    of_a_call,
    of_code,
    of_defaults,
    of_an_order,
    of_the_store,
]


@pytest.mark.parametrize("made", CHANGED, ids=lambda made: made.__name__)
def test_what_no_name_shows_is_followed(made):
    def program(kind):
        torch.manual_seed(0)
        model, change = made()
        svi = svi_of(kind, model)
        for step in range(8):
            if step == 5:
                change()
            yield svi.step()

    outcome = compare(program)
    assert outcome.graphs == 1
    ((step, reason),) = outcome.reasons
    assert step == 5
    assert "since it was compiled" in reason
