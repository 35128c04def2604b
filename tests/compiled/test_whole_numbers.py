"""Python may decide by whole numbers that no rounding has touched: the graph compares them."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from .both import X, compare, loc, normal, svi_of

pytestmark = pytest.mark.usefixtures("as_it_is")
LENGTHS = torch.tensor([2, 3, 1] * 6 + [3, 2])


def chain(lengths, size=None):
    """A random walk over the rows, as long as the longest."""
    mean = loc()
    with pyro.plate("rows", len(X), subsample_size=size) as rows:
        chosen = lengths[rows]
        assert chosen.max() <= X.shape[1]
        before = torch.zeros(len(chosen))
        for t in range(chosen.max()):
            with pyro.poutine.mask(mask=t < chosen):
                before = pyro.sample(f"x{t}", dist.Normal(mean[t] + before, 1.0), obs=X[rows, t])


def of_lengths(*given, size=None, count=12):
    def program(kind):
        svi = svi_of(kind, lambda lengths: chain(lengths, size))
        for step in range(count):
            yield svi.step(given[step * len(given) // count])

    return compare(program)


def test_a_loop_as_long_as_the_longest_row_is_compiled():
    outcome = of_lengths(LENGTHS, LENGTHS.flip(0))
    assert (outcome.graphs, outcome.reasons) == (1, [])


def test_another_length_runs_eagerly_and_is_told_once():
    outcome = of_lengths(LENGTHS, LENGTHS.clamp(max=2), LENGTHS)
    assert outcome.graphs == 1
    ((step, told),) = outcome.reasons
    assert step == 4
    assert "which was 3 when it was compiled, and now is 2 (test_whole_numbers.py, line" in told


def test_lengths_of_rows_that_are_drawn():
    outcome = of_lengths(LENGTHS, size=2, count=40)  # a row of three is among most pairs
    assert outcome.graphs == 1
    assert len(outcome.reasons) == 1


def test_what_decides_otherwise_too_often_is_compiled_no_more():
    outcome = of_lengths(LENGTHS, LENGTHS.clamp(max=2), count=60)
    assert outcome.graphs == 0
    assert [step for step, _ in outcome.reasons] == [30, 45]
    assert "its graph fits too rarely: control flow" in outcome.reasons[1][1]


def test_draws_and_changes_of_another_path_are_undone():
    count = torch.zeros(3, dtype=torch.float64)

    def program(kind):
        count.zero_()

        def model(lengths):
            count.add_(torch.rand(3))
            normal(loc() + (count if lengths.max() > 2 else -count))

        svi = svi_of(kind, model)
        for step in range(20):
            yield svi.step(LENGTHS if step % 4 else LENGTHS.clamp(max=2))
            yield count.sum()

    outcome = compare(program)
    assert outcome.graphs == 1


@pytest.mark.parametrize(
    "decide",
    [
        lambda mean: (mean > 0.01).any(),
        lambda mean: int(mean.sum().round().long()) > 5,
        lambda mean: torch.zeros(3, dtype=torch.long)[:2].copy_(mean[:2].round()).sum() > 5,
        lambda mean: torch.multinomial(mean.exp(), 1) == 5,
        lambda mean: dist.Categorical(logits=mean).sample() == 5,
    ],
    ids=["comparison", "rounded", "copied", "drawn", "categorical"],
)
def test_numbers_that_come_of_others_are_refused(decide):
    def program(kind):
        def model():
            mean = loc()
            normal(-mean if decide(mean) else mean)

        svi = svi_of(kind, model)
        for _ in range(4):
            yield svi.step()

    outcome = compare(program)
    assert outcome.graphs == 0
    assert "control flow depends" in outcome.reasons[0][1]


def test_what_is_read_by_way_of_another_view_is_refused():
    def program(kind):
        def model():
            mean, numbers = loc(), torch.zeros(3, dtype=torch.long)
            numbers[:2].copy_(mean[:2].round())
            normal(-mean if numbers.sum() > 5 else mean)

        svi = svi_of(kind, model)
        for _ in range(4):
            yield svi.step()

    assert compare(program).graphs == 0
