"""A fit goes on for more epochs, at the rates of the longer fit."""

import json

import pytest
import torch

from ppl_vae import InputError, Run, Settings, extend, fit
from ppl_vae.training.schedule import Schedule

from .resuming import DATA, assert_same, bernoulli, new, stop_after

FEW = Settings(epochs=2, batch_size=20, engine="eager")
MORE = Settings(epochs=5, batch_size=20, engine="eager")


def resumed(run, settings=MORE):
    return fit(bernoulli(), DATA, settings, run=run, resume=True, progress=False)


@pytest.fixture
def finished(tmp_path):
    program = bernoulli()
    run = new(tmp_path / "run", program, FEW)
    fit(program, DATA, FEW, run=run, progress=False)
    return run


def test_what_was_done_stays_and_the_rest_has_the_rates_of_the_longer_fit(finished):
    before = finished.metrics()
    history = resumed(extend(finished.path, 5))
    assert history.epochs[:2] == before
    batches = 13  # of 256 data points
    for settings, epochs in ((FEW, (0, 1)), (MORE, (2, 3, 4))):
        schedule = Schedule.of(settings, batches)
        for epoch in epochs:
            assert history.epochs[epoch]["learning_rate"] == schedule.lr(epoch * batches)
    config = Run.open(finished.path).config
    assert (config.settings["epochs"], config.epochs_before) == (5, [2])
    score = max(row["elbo"] for row in history.epochs)
    assert history.epochs[history.best_epoch - 1]["elbo"] == score


def test_it_is_resumed_to_the_same_bits_from_wherever_it_stopped(tmp_path, monkeypatch):
    torch.manual_seed(3)
    program = bernoulli()
    start = {name: t.clone() for name, t in program.state_dict().items()}
    for name, stops in (("a", []), ("b", [0, 8, 1, 20])):
        program.load_state_dict(start)
        run = new(tmp_path / name, program, FEW)
        fit(program, DATA, FEW, run=run, progress=False)
        extend(run.path, 5)
        for steps in stops:
            stop_after(monkeypatch, steps)
            with pytest.raises(KeyboardInterrupt):
                resumed(Run.open(run.path))
        monkeypatch.undo()
        assert len(resumed(Run.open(run.path)).epochs) == 5
    assert_same(tmp_path / "a", tmp_path / "b")


def test_it_is_extended_again(finished):
    extend(finished.path, 3)
    run = extend(finished.path, 5)  # before anything was done
    assert run.config.epochs_before == [2, 3]
    assert len(resumed(run).epochs) == 5


def test_what_cannot_go_on_is_refused(tmp_path, finished):
    config = (finished.path / "config.json").read_bytes()
    for epochs in (1, 2):
        with pytest.raises(InputError, match=f"epochs must be more than the 2 of .*, got {epochs}"):
            extend(finished.path, epochs)
    with pytest.raises(InputError, match="epochs must be an integer"):
        extend(finished.path, 2.5)
    program = bernoulli()
    run = new(tmp_path / "early", program, FEW)
    fit(program, DATA, FEW, run=run, on_epoch=lambda row: True, progress=False)
    with pytest.raises(InputError, match="was stopped early, .*: fit again with more patience"):
        extend(run.path, 9)
    assert (finished.path / "config.json").read_bytes() == config
    for file in finished.checkpoints.files():
        file.unlink()
    with pytest.raises(InputError, match="has no checkpoint to continue from"):
        extend(finished.path, 9)


def test_epochs_that_were_written_by_hand_are_refused(finished):
    file = finished.path / "config.json"
    fields = json.loads(file.read_text())
    fields["settings"]["epochs"] = 5
    file.write_text(json.dumps(fields))
    with pytest.raises(InputError, match="was begun with epochs 2, not 5"):
        resumed(Run.open(finished.path))


def test_the_command_line_says_what_it_is(fitted, tmp_path):
    code, out, err = fitted("train", "--resume", "run", "--epochs", 3, "--json")
    assert code == 0, err
    assert json.loads(out)["epochs"] == 3
    assert "not the same as 3 epochs from scratch" in err
    code, _, err = fitted("train", "--resume", "run", "--epochs", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert "--epochs must be more than the 3 of run" in err
    assert fitted("refit", "run", "--epochs", 1)[0] == 0
    assert fitted("train", "--resume", "run-refit", "--epochs", 2)[0] == 0
    config = json.loads((tmp_path / "run-refit" / "config.json").read_text())
    assert (config["epochs_before"], config["parent"]["on"]) == ([1], "data")
