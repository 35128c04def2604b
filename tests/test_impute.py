"""Missing cells: against the conditional normal distribution; intervals hold what they say."""

import math

import pytest
import torch
from scipy.stats import binomtest, kstest

from ppl_vae import InputError, impute
from ppl_vae.models import LinearGaussian

from .tables import Incomplete

SIZE, HELD_OUT, CELLS = 600, 300, 6


@pytest.fixture(scope="module")
def normal():
    """A model whose conditional distributions are known, with half of the cells missing."""
    torch.manual_seed(0)
    program = Incomplete((CELLS,)).double()
    x = torch.randn(SIZE + HELD_OUT, 2).double() @ program.weight.detach().T
    x = x + torch.randn_like(x)
    mask = torch.rand(x.shape) < 0.5
    return program, x, mask


def batch(x, mask, rows):
    return {"x": torch.where(mask, x, 0.0)[rows], "mask": mask[rows]}


def conditional(program, x, mask):
    """Mean and standard deviation of each cell given the observed ones of its row."""
    weight = program.weight.detach()
    covariance = weight @ weight.T + torch.eye(len(weight)).double()
    mean, sd = torch.zeros_like(x), torch.ones_like(x)
    for i, seen in enumerate(mask):
        gain = covariance[~seen][:, seen] @ torch.linalg.inv(covariance[seen][:, seen])
        mean[i, ~seen] = gain @ x[i, seen]
        left = covariance[~seen][:, ~seen] - gain @ covariance[seen][:, ~seen]
        sd[i, ~seen] = left.diagonal().sqrt()
    return mean, sd


def test_cells_are_those_of_the_conditional_normal(normal):
    program, x, mask = normal
    rows = slice(SIZE)
    draws = 400
    found = impute(program, batch(x, mask, rows), draws, target="guide", imputations=draws)
    mean, sd = conditional(program, x[rows], mask[rows])
    hidden = ~mask[rows]
    assert (found["missing"].values == hidden.numpy()).all()
    off = (torch.as_tensor(found["x"].values) - mean)[hidden] / sd[hidden]
    # Means of at most 400 independent draws of what is between 0 and 1 standard deviation wide.
    assert off.square().mean().sqrt() < 1 / math.sqrt(draws) * 1.2
    assert abs(off.mean()) < 4 / math.sqrt(draws * hidden.sum() / CELLS)
    drawn = torch.as_tensor(found["imputation"].values)[:, hidden]
    below = (drawn < x[rows][hidden]).double().mean(0)
    # PIT values of one row are dependent: one of each.
    first = [below[i] for i in first_of_each(hidden)]
    assert kstest(torch.stack(first).numpy(), "uniform").pvalue > 1e-3
    deviation = drawn.std(0) / sd[hidden]
    assert abs(deviation.mean() - 1) < 0.02


def first_of_each(hidden):
    """The place of the first hidden cell of each row among all hidden cells."""
    ends = hidden.sum(1).cumsum(0)
    starts = ends - hidden.sum(1)
    return [int(s) for s, e in zip(starts, ends, strict=True) if e > s]


def covered(found, x, mask):
    """Of one hidden cell of each row, since those of a row are dependent."""
    lower, upper = (torch.as_tensor(found[name].values) for name in ("lower", "upper"))
    inside = ((lower <= x) & (x <= upper))[~mask]
    return inside[first_of_each(~mask)]


def test_intervals_of_a_right_model_hold_what_they_say(normal):
    program, x, mask = normal
    rows = slice(SIZE)
    inside = covered(impute(program, batch(x, mask, rows), target="guide"), x[rows], mask[rows])
    assert binomtest(int(inside.sum()), len(inside), 0.9).pvalue > 1e-3


def test_calibration_mends_the_intervals_of_a_wrong_model(normal):
    program, x, mask = normal
    rows, held_out = slice(SIZE), batch(3 * x, mask, slice(SIZE, None))
    wrong = batch(3 * x, mask, rows)  # a scale that the model does not know
    plain = covered(impute(program, wrong, target="guide"), 3 * x[rows], mask[rows])
    assert plain.double().mean() < 0.6
    found = impute(program, wrong, target="guide", calibration=held_out)
    mended = covered(found, 3 * x[rows], mask[rows])
    # Beside the error of the test data, that of the quantile of some 900 cells, in 300 rows.
    error = math.sqrt(0.9 * 0.1 * (1 / len(mended) + 1 / HELD_OUT))
    assert abs(mended.double().mean() - 0.9) < 3.3 * error


def test_what_is_observed_stays_as_it_is(normal):
    program, x, mask = normal
    given = batch(x, mask, slice(20))
    found = impute(program, given, draws=20, target="guide", imputations=3)
    seen = mask[:20].numpy()
    assert (found["x"].values[seen] == x[:20].numpy()[seen]).all()
    assert (found["imputation"].values[:, seen] == x[:20].numpy()[seen]).all()
    assert found["imputation"].dims[0] == "draw"
    again = impute(program, given, draws=20, target="guide", imputations=3)
    assert found.identical(again)


def test_bad_input_is_refused(normal):
    program, x, mask = normal
    given = batch(x, mask, slice(20))
    few = batch(x, mask, slice(20, 21))
    calls = {
        "LinearGaussian": lambda: impute(LinearGaussian((CELLS,)), given),
        "mask": lambda: impute(program, {"x": x, "mask": mask.float()}),
        "data": lambda: impute(program, {"x": x, "mask": torch.ones_like(mask)}),
        "draws": lambda: impute(program, given, draws=1),
        "coverage": lambda: impute(program, given, coverage=90.0),
        "imputations": lambda: impute(program, given, draws=10, imputations=11),
        "the held-out data": lambda: impute(
            program, given, target="guide", coverage=0.999, calibration=few
        ),
    }
    for culprit, call in calls.items():
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.culprit == culprit
