"""Programs and moments that make it hard to go on to the same bits."""

import copy
import random
import signal
import sys

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from ppl_vae import Config, InputError, Run, Settings, fit
from ppl_vae.runs import checkpoints
from ppl_vae.storage import memory
from ppl_vae.training.batches import EpochBatches
from ppl_vae.training.state import Counters, TrainedTensors
from ppl_vae.training.trainer import Trainer
from ppl_vae.training.validation import Validation

from .programs import Minimal
from .resuming import DATA, SHORT, assert_same, bernoulli, new, resume, state_of, stop_after


class Odd(Minimal):
    """What a checkpoint must have beside ``state_dict``, and what Adam never sees."""

    def __init__(self, data_shape=(5,)):
        super().__init__(data_shape)
        self.register_buffer("count", torch.zeros(()), persistent=False)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.unused, self.late = nn.Linear(3, 3), nn.Parameter(torch.zeros(()))

    def model(self, x):
        self.count.add_(self.training)
        shift = self.late if self.count > 200 else 0.0  # no gradient before
        pyro.module(f"odd-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = self.decoder(z) + shift + self.count.sin() + 0 * self.mask[0]
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


class Stumbles(Minimal):
    """Its loss is NaN at one step in a hundred or so, by chance."""

    def model(self, x):
        bad = self.training and torch.rand(()) < 0.008
        pyro.module(f"stumbles-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = self.decoder(z) * (torch.nan if bad else 1.0)
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)


@pytest.mark.filterwarnings("ignore::ppl_vae.training.trainer.DivergenceWarning")
@pytest.mark.parametrize(
    "steps", [100, 300, *(pytest.param(n, marks=pytest.mark.slow) for n in (230, 420))]
)
@pytest.mark.parametrize("kind", [Odd, Stumbles])
def test_whatever_the_program_is(tmp_path, monkeypatch, kind, steps):
    monkeypatch.setattr("ppl_vae.training.state.LR_FACTOR", 0.7)  # or it soon stands still
    program = kind()
    start = copy.deepcopy(program)
    fit(program, DATA, SHORT, run=new(tmp_path / "a", program), progress=False)
    stop_after(monkeypatch, steps)
    run = new(tmp_path / "b", start)
    with pytest.raises(KeyboardInterrupt):
        fit(start, DATA, SHORT, run=run, progress=False)
    fit(kind(), DATA, SHORT, run=run, resume=True, progress=False)
    assert_same(tmp_path / "a", tmp_path / "b")
    if kind is Stumbles:
        assert state_of(tmp_path / "a")[1]["state"]["lr_scale"] < 1  # it did


def test_whatever_the_default_type_is(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_default_dtype", torch.get_default_dtype)  # undone last
    torch.set_default_dtype(torch.float64)
    try:
        program = bernoulli()
        stop_after(monkeypatch, 200)
        run = new(tmp_path / "run", program)
        with pytest.raises(KeyboardInterrupt):
            fit(program, DATA, SHORT, run=run, progress=False)
        assert len(fit(bernoulli(), DATA, SHORT, run=run, resume=True, progress=False).epochs) == 4
    finally:
        torch.set_default_dtype(torch.float32)


END_OF_AN_EPOCH = [
    (Validation, "__call__"),
    (Trainer, "update_best"),
    (Trainer, "snapshot"),
    (TrainedTensors, "weights"),
    (Counters, "begin_epoch"),
    (EpochBatches, "begin_epoch"),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A program as it began, and the run of its fit."""
    torch.manual_seed(0)
    start, path = bernoulli(), tmp_path_factory.mktemp("undisturbed") / "run"
    fit(copy.deepcopy(start), DATA, SHORT, run=new(path, start), progress=False)
    return start, path


@pytest.mark.parametrize(("kind", "name"), END_OF_AN_EPOCH)
def test_between_the_end_of_an_epoch_and_its_checkpoint(
    undisturbed, tmp_path, monkeypatch, kind, name
):
    start, whole = undisturbed
    method, step, taken = getattr(kind, name), Trainer.step, []

    def counted(trainer, batch):
        taken.append(batch)
        return step(trainer, batch)

    def interrupted(self, *arguments):
        if len(taken) == 256:  # the end of the second epoch
            monkeypatch.setattr(kind, name, method)
            raise KeyboardInterrupt
        return method(self, *arguments)

    monkeypatch.setattr(Trainer, "step", counted)
    monkeypatch.setattr(kind, name, interrupted)
    run = new(tmp_path / "b", start)
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(start), DATA, SHORT, run=run, progress=False)
    fit(bernoulli(), DATA, SHORT, run=run, resume=True, progress=False)
    assert_same(whole, tmp_path / "b")


OURS = ("ppl_vae.training", "ppl_vae.runs", "ppl_vae.storage")
FEW = Settings(epochs=3, batch_size=40, patience=2, engine="eager")


class Interruption:
    """Raises at a line of ours, counted from the start."""

    def __init__(self, line):
        self.left, self.raised = line, False

    def __call__(self, frame, event, _):
        if not frame.f_globals.get("__name__", "").startswith(OURS):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.raised = True
                sys.settrace(None)
                raise KeyboardInterrupt
        return self


def test_an_interrupt_at_any_line(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    start = bernoulli()
    whole = new(tmp_path / "whole", start, FEW)
    counted, before = Interruption(0), sys.gettrace()
    sys.settrace(counted)
    try:
        fit(copy.deepcopy(start), DATA, FEW, run=whole, progress=False)
    finally:
        sys.settrace(before)
    for number, line in enumerate(random.Random(0).sample(range(1, -counted.left), 25)):
        run = new(tmp_path / str(number), start, FEW)
        interruption = Interruption(line)
        sys.settrace(interruption)
        try:
            fit(copy.deepcopy(start), DATA, FEW, run=run, progress=False)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert interruption.raised
        run.close()  # as the end of the process does
        again = copy.deepcopy(start)
        begun = (run.path / "config.json").exists()
        run = Run.open(run.path) if begun else new(run.path, start, FEW)
        fit(again, DATA, FEW, run=run, resume=begun, progress=False)
        assert_same(whole.path, run.path)
        assert [file.name for file in run.path.rglob(".*")] == [".lock"]


@pytest.mark.parametrize("error", [InputError("process", "has ended", ""), KeyboardInterrupt()])
def test_a_signal_while_the_end_is_written_waits_for_it(tmp_path, monkeypatch, error):
    program, step, write = bernoulli(), Trainer.step, checkpoints.Checkpoints.write

    def stumble(trainer, batch):
        if trainer.counters.steps == 200:
            raise error
        return step(trainer, batch)

    def interrupted(self, steps, *args):
        if steps:
            signal.raise_signal(signal.SIGINT)
        write(self, steps, *args)

    monkeypatch.setattr(Trainer, "step", stumble)
    monkeypatch.setattr(checkpoints, "SHARE", 1e-30)  # nothing is written before the end
    run = new(tmp_path / "run", program)
    monkeypatch.setattr(checkpoints.Checkpoints, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(program, DATA, SHORT, run=run, progress=False)
    assert int(run.checkpoints.files()[0].name[5:14]) == 179
    assert run.metrics()[-1]["epoch"] == 1


def test_a_program_that_raises_loses_no_more_than_an_interrupt(tmp_path, monkeypatch):
    program, step = bernoulli(), Trainer.step

    def stumble(trainer, batch):
        if trainer.counters.steps == 200:
            raise torch.OutOfMemoryError("no memory on the GPU")
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "step", stumble)
    monkeypatch.setattr(checkpoints, "SHARE", 1e-30)
    run = new(tmp_path / "run", program)
    with pytest.raises(torch.OutOfMemoryError):
        fit(program, DATA, SHORT, run=run, progress=False)
    assert int(run.checkpoints.files()[0].name[5:14]) == 179


def test_a_checkpoint_that_cannot_be_read_is_not_a_torn_one(stopped, monkeypatch):
    run, _ = stopped
    files = run.checkpoints.files()
    monkeypatch.setattr(memory, "memory_limit", lambda: 5 * files[1].stat().st_size)
    files[0].write_bytes(files[0].read_bytes() + bytes(10**6))
    with pytest.raises(InputError, match="would take .* of memory, more than half.*: free some"):
        resume(run)
    assert run.checkpoints.files() == files


def test_only_a_run_is_resumed(tmp_path):
    run = new(tmp_path / "run", bernoulli())
    with pytest.raises(InputError, match="run is not a run, for it has no config.json: make one"):
        resume(run)
    assert not run.path.exists()


@pytest.mark.parametrize("make", [lambda f: f.mkdir(), lambda f: f.symlink_to("elsewhere")])
def test_a_lock_that_is_no_file_of_ours(stopped, make):
    run, _ = stopped
    lock = run.path / ".lock"
    lock.unlink()
    make(lock)
    with pytest.raises(InputError, match="lock is not a file that a fit has made: remove it"):
        resume(run)
    assert not (run.path / "elsewhere").exists()


def test_the_config_says_what_was_fitted(tmp_path):
    config = Config.of("ppl_vae.models.vae:VAE", {}, DATA)  # without settings
    run = Run.create(tmp_path / "run", config)
    fit(bernoulli(), DATA, FEW, run=run, progress=False)
    assert Settings(**Run.open(run.path).config.settings) == FEW
    with pytest.raises(
        InputError, match="other has a config that says epochs 4, not 3: make the config with"
    ):
        fit(bernoulli(), DATA, FEW, run=new(tmp_path / "other", bernoulli()), progress=False)
    assert not (tmp_path / "other").exists()
