"""Where terms cancel, as in a gradient at the optimum, what is left of them is rounding."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.infer.autoguide.initialization import init_to_value

from .both import compare

COUNTS = torch.tensor([1500, 6000, 2500])
PRIOR = torch.full((3,), 0.1, dtype=torch.float64)


def model(classes):
    probs = pyro.sample("probs", dist.Dirichlet(PRIOR))
    with pyro.plate("data", len(classes)):
        pyro.sample("classes", dist.OneHotCategorical(probs), obs=classes)


@pytest.mark.usefixtures("as_it_is")
def test_a_gradient_that_is_rounding_keeps_its_graph():
    classes = torch.eye(3, dtype=torch.float64)[torch.arange(3).repeat_interleave(COUNTS)]
    best = COUNTS + PRIOR - 1
    best = init_to_value(values={"probs": best / best.sum()})

    def program(kind):
        guide = AutoDelta(model, init_loc_fn=best)
        svi = kind(model, guide, pyro.optim.SGD({"lr": 1e-9}), Trace_ELBO())
        for _ in range(40):
            yield svi.step(classes)

    outcome = compare(program)
    assert (outcome.graphs, outcome.reasons) == (1, [])
