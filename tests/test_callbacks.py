"""What a fit tells while it runs: the row of each epoch, and how far it has come."""

import re

import pyro
import pytest
import torch

from ppl_vae import Posterior, Run, Settings, fit
from ppl_vae.runs.config import Config

from .programs import Minimal
from .test_training import DATA, SHORT, small


def test_each_row_is_told_with_the_weights_of_its_epoch(digits):
    vae, told = small(digits), []

    def measure(row):
        elbo = Posterior(vae, digits.fixed("validation")).log_weight(1).mean().item()
        assert elbo == pytest.approx(row["elbo"], abs=1e-4)
        told.append(row)

    # A rate this high makes the validation ELBO go up and down.
    settings = Settings(epochs=4, learning_rate=0.3)
    assert fit(vae, digits, settings, on_epoch=measure, progress=False).epochs == told


def test_callbacks_do_not_change_the_fit():
    def call(row):
        torch.rand(3)
        pyro.sample("noise", pyro.distributions.Normal(0.0, 1.0))
        pyro.param("mine", torch.ones(3))
        row.clear()

    found = []
    for on_epoch in (None, call):
        torch.manual_seed(0)
        program = Minimal()
        history = fit(program, DATA, SHORT, on_epoch=on_epoch, progress=False)
        found.append([{**row, "seconds": 0} for row in history.epochs])
    assert found[0] == found[1]


def test_a_callback_can_stop_the_fit(tmp_path):
    run = Run.create(tmp_path / "run", Config.of("tests.programs:Minimal", {}, DATA, SHORT))
    program, told = Minimal(), []

    def stop(row):
        told.append(row["epoch"])
        return row["epoch"] == 2

    history = fit(program, DATA, SHORT, run=run, on_epoch=stop, progress=False)
    assert history.stopped_early
    assert len(history.epochs) == 2
    # It stays stopped, and what logs rows is given all of them again.
    again = fit(Minimal(), DATA, SHORT, run=run, resume=True, on_epoch=stop, progress=False)
    assert again.stopped_early
    assert again.epochs == history.epochs
    assert told == [1, 2, 1, 2]


def test_a_callback_that_fails_loses_no_epoch(tmp_path):
    run = Run.create(tmp_path / "run", Config.of("tests.programs:Minimal", {}, DATA, SHORT))

    def fail(row):
        raise OSError("no connection")

    with pytest.raises(OSError, match="no connection"):
        fit(Minimal(), DATA, SHORT, run=run, on_epoch=fail, progress=False)
    assert len(run.metrics()) == 1


@pytest.mark.parametrize("patience", [None, 1])
def test_progress_sums_to_one_and_says_how_good_it_is(digits, patience):
    told = []
    settings = Settings(epochs=5, learning_rate=0.3, patience=patience)
    history = fit(
        small(digits), digits, settings, on_progress=lambda share, note: told.append((share, note))
    )
    assert sum(share for share, _ in told) == pytest.approx(1.0)
    notes = [note for _, note in told if note]
    assert any(re.fullmatch(r"epoch 2/5: loss \d+\.\d\d, validation ELBO -\d+.*", n) for n in notes)
    for number, row in enumerate(history.epochs, start=1):
        assert f"epoch {number}/5, validation ELBO {row['elbo']:.2f}" in notes
    assert max(map(len, notes)) < 50  # beside a bar, in 80 columns
