"""A step may use some rows of a parameter: Pyro notes which on it, and an optimizer asks."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.easyguide import easy_guide
from pyro.infer import Trace_ELBO
from pyro.optim import DCTAdam

from .both import X, compare

pytestmark = pytest.mark.usefixtures("as_it_is")
ROWS, HALF = len(X), len(X) // 2


def local(x, rows):
    """Each row has a location of its own, of which a step sees some."""
    with pyro.plate("rows", ROWS, subsample=rows, subsample_size=HALF) as rows:
        loc = pyro.param("loc", torch.zeros(ROWS, 3), event_dim=1)
        pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x[rows])


def nothing(x, rows):
    pass


@pytest.mark.parametrize("drawn", [True, False], ids=["drawn", "given"])
def test_an_optimizer_that_asks_for_rows_is_told_those_of_this_step(drawn):
    def program(kind):
        optim = DCTAdam({"lr": 0.1, "subsample_aware": True})
        svi = kind(local, nothing, optim, Trace_ELBO())
        for step in range(8):
            rows = torch.arange(ROWS).roll(3 * step)[:HALF]
            yield svi.step(X, None if drawn else rows)
            yield pyro.get_param_store()["loc"].sum()

    assert compare(program).graphs == 1


def test_a_guide_that_keeps_parameters_in_itself_and_uses_some_rows_of_them():
    def model(x, rows):
        with pyro.plate("rows", ROWS, subsample=rows):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None], 1.0).expand(x.shape).to_event(1), obs=x)

    def program(kind):
        @easy_guide(model)
        def guide(self, x, rows):
            with self.plate("rows", ROWS, subsample=rows):
                self.map_estimate("z")

        rows = torch.arange(HALF)
        svi = kind(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        for step in range(8):
            rows = torch.arange(ROWS).roll(3 * step)[:HALF]
            yield svi.step(X[rows], rows)

    outcome = compare(program)
    assert (outcome.graphs, outcome.reasons) == (1, [])
