"""What is done and seen through libraries and hooks: at each step, or the program is told."""

import ctypes
import functools
import pprint
import sys

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from .both import X, compare, loc, normal, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")


class Kept:
    last = None


kept = Kept()


def of_hooks_on_all_modules():
    net, handles = nn.Linear(3, 3), []

    def model():
        pyro.module("net", net)
        normal(net(X))

    def change():
        if handles:
            handles.pop().remove()
        else:
            handles.append(register_module_forward_hook(lambda net, x, y: 2 * y))

    return model, change


def test_hooks_on_all_modules_are_seen():
    def program(kind):
        torch.manual_seed(0)
        model, change = of_hooks_on_all_modules()
        svi = svi_of(kind, model)
        for step in range(24):  # over a check
            if step in (5, 8):
                change()
            yield svi.step()

    outcome = compare(program)
    assert outcome.graphs == 1
    assert "a hook on all modules" in outcome.reasons[0][1]


def test_another_hook_on_a_parameter_is_another_graph():
    def program(kind):
        value = loc().unconstrained()
        handle = value.register_hook(lambda gradient: gradient)
        svi = kind(
            lambda: normal(loc()),
            lambda: None,
            pyro.optim.SGD({"lr": 1e-3}),
            pyro.infer.Trace_ELBO(),
        )
        for step in range(9):
            if step == 5:
                handle.remove()
                value.register_hook(lambda gradient: 0.1 * gradient)
            yield svi.step()

    assert compare(program).graphs == 1


@pytest.mark.parametrize("kind_of_net", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_networks_are_compiled(kind_of_net):
    def program(kind):
        torch.manual_seed(0)
        net = kind_of_net(3, 3, batch_first=True)

        def model():
            pyro.module("net", net)
            normal(net(X.view(4, 5, 3))[0], x=X.view(4, 5, 3))

        svi = svi_of(kind, model)
        for _ in range(6):
            yield svi.step()

    outcome = compare(program)
    assert (outcome.graphs, outcome.reasons) == (1, [])


def splitting(x, at):
    first, *_ = torch.tensor_split(x, at)
    normal(loc() + first.sum())


def packing(x, at):
    packed = nn.utils.rnn.pack_padded_sequence(x.view(4, 5, 3), at.repeat(2), batch_first=True)
    normal(loc() + nn.utils.rnn.pad_packed_sequence(packed)[0][0].sum())


@pytest.mark.parametrize("model", [splitting, packing])
def test_lengths_that_are_read_from_tensors_are_no_graph(model):
    def program(kind):
        svi = svi_of(kind, model, lambda x, at: None)
        for step in range(8):
            yield svi.step(X, torch.tensor([4, 4] if step < 4 else [3, 3]))

    outcome = compare(program)
    assert outcome.graphs == 0
    assert "reads the values of a tensor" in outcome.reasons[0][1]


say = functools.partial(print, "x", end="")
state = ctypes.c_double(1.0)


def saying(path):
    say()


def mapping(path):
    list(map(print, "x"))


def pretty(path):
    pprint.pprint("x")  # noqa: T203


def reading(path):
    path.read_text()


def looking(path):
    path.exists()


def saving(path):
    torch.save(torch.ones(1), path)


def saving_arrays(path):
    np.savetxt(path, np.ones(1))


def in_c_alone(path):
    return state.value


def all_modules(path):
    return sys.modules["math"].pi


def setting(path):
    object.__setattr__(kept, "last", X.sum())


OUTSIDE = {
    saying: "it prints",
    mapping: "it prints",
    pretty: "it prints",
    reading: "it opens a file",
    looking: "it calls stat of posix",
    saving: "it calls save of torch.serialization",
    saving_arrays: "it opens a file",
    in_c_alone: "a c_double, whose state no graph sees",
    all_modules: "it reads sys.modules",
    setting: "it changes",
}


@pytest.mark.parametrize("act", OUTSIDE, ids=lambda act: act.__name__)
def test_what_is_done_through_libraries_is_done_at_each_step(act, tmp_path, capsys):
    path = tmp_path / "file"
    path.write_text("x")

    def program(kind):
        def model():
            act(path)
            normal(loc())

        svi = svi_of(kind, model)
        for _ in range(4):
            yield svi.step()

    outcome = compare(program)
    assert outcome.graphs == 0
    assert OUTSIDE[act] in outcome.reasons[0][1]
    printed = capsys.readouterr().out.count("x")
    assert printed == (8 if OUTSIDE[act] == "it prints" else 0)


def test_a_hook_that_keeps_gradients_is_called_at_each_step():
    def program(kind):
        seen = []
        loc().unconstrained().register_hook(seen.append)
        svi = svi_of(kind, lambda: normal(loc()))
        for _ in range(4):
            yield svi.step()
            yield float(len(seen))

    assert compare(program).graphs == 0


def of_all_optimizers(svi, count):
    return [register_optimizer_step_post_hook(lambda *args: count.append(1))]


def of_each_optimizer(svi, count):
    for optimizer in svi.optim.optim_objs.values():
        optimizer.step = lambda step=optimizer.step: (count.append(1), step())[1]
    return []


@pytest.mark.parametrize("watched", [of_all_optimizers, of_each_optimizer])
def test_who_watches_optimizers_sees_each(watched):
    def program(kind):
        count = []
        svi = svi_of(kind, lambda: normal(loc() + pyro.param("b", torch.zeros(3))))
        yield svi.step()
        handles = watched(svi, count)
        for _ in range(5):
            yield svi.step()
            yield float(len(count))
        for handle in handles:
            handle.remove()

    assert compare(program).graphs == 1
