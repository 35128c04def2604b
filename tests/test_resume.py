"""A fit that is stopped goes on to the same bits, and only if it is the same fit."""

import copy
import json
import shutil

import pytest
import torch
from filelock import FileLock

from ppl_vae import Config, InputError, Run, Settings, fit, make_data
from ppl_vae.models import VAE
from ppl_vae.runs import checkpoints
from ppl_vae.runs.checkpoints import CheckpointWarning
from ppl_vae.storage.files import replacing
from ppl_vae.training.tensorboard import TensorBoard

from .programs import WithDropout
from .resuming import (
    DATA,
    SHORT,
    assert_same,
    bernoulli,
    files_of,
    new,
    resume,
    state_of,
    stop_after,
)
from .tables import Conditional


@pytest.mark.parametrize(("steps", "seed"), [(0, 0), (60, 1), (128, 2), (200, 3), (500, 4)])
def test_an_interrupted_fit_goes_on_to_the_same_bits(tmp_path, monkeypatch, steps, seed):
    settings = Settings(epochs=4, batch_size=2, engine="eager", seed=seed)
    program = bernoulli()
    start = copy.deepcopy(program)
    whole = fit(program, DATA, settings, run=new(tmp_path / "a", program, settings), progress=False)
    stopped = copy.deepcopy(start)
    stop_after(monkeypatch, steps)
    with pytest.raises(KeyboardInterrupt):
        fit(stopped, DATA, settings, run=new(tmp_path / "b", program, settings), progress=False)
    again = bernoulli()  # other weights: those of the checkpoint count
    run = Run.open(tmp_path / "b")
    history = fit(again, DATA, settings, run=run, resume=True, progress=False)
    assert history.best_epoch == whole.best_epoch
    assert all(torch.equal(again.state_dict()[k], v) for k, v in program.state_dict().items())
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "iw", "particles": 2},
        {"kl_warmup_epochs": 2, "free_bits": 0.1, "clip_norm": 0.5},
        {"learning_rate": 0.3, "patience": 1},
        {"warmup_epochs": 0, "batch_size": 7},
        {"batch_size": 1000, "epochs": 130},
    ],
    ids=str,
)
def test_whatever_is_optimized(tmp_path, monkeypatch, options):
    settings = Settings(**{"epochs": 4, "batch_size": 2, "engine": "eager", **options})
    program = bernoulli()
    start = copy.deepcopy(program)
    fit(program, DATA, settings, run=new(tmp_path / "a", program, settings), progress=False)
    run, program = new(tmp_path / "b", start, settings), start
    for steps in (75, 40, 150):  # stopped again and again
        stop_after(monkeypatch, steps)
        try:
            fit(program, DATA, settings, run=run, resume=run.path.exists(), progress=False)
        except KeyboardInterrupt:
            run, program = Run.open(tmp_path / "b"), bernoulli()
    monkeypatch.undo()
    fit(bernoulli(), DATA, settings, run=run, resume=True, progress=False)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_graphs_are_graphs_again(tmp_path, monkeypatch):
    # Steps that are compiled round otherwise than those that are not: 1, 2, 18, 34, 66, ...
    settings = Settings(epochs=2, batch_size=2, engine="compiled")
    program = bernoulli()
    start = copy.deepcopy(program)
    fit(program, DATA, settings, run=new(tmp_path / "a", program, settings), progress=False)
    stop_after(monkeypatch, 130)
    run = new(tmp_path / "b", start, settings)
    with pytest.raises(KeyboardInterrupt):
        fit(start, DATA, settings, run=run, progress=False)
    fit(bernoulli(), DATA, settings, run=run, resume=True, progress=False)
    assert_same(tmp_path / "a", tmp_path / "b")
    (counts,) = state_of(tmp_path / "b")[1]["state"]["engine"].values()
    assert counts == [
        256,
        2,
        256,
        1,
        0,
        0,
        1,
    ]  # calls, compiled at, next check, graphs made, misses, refused, has a graph


def test_labels_that_a_program_takes_come_back(tmp_path, monkeypatch):
    rows = torch.randn(200, 5)
    data = make_data(rows, [f"class {int(x > 0)}" for x in rows[:, 0]])
    program = Conditional()
    start, settings = copy.deepcopy(program), Settings(epochs=3, batch_size=2)
    fit(program, data, settings, run=new(tmp_path / "a", program, settings, data), progress=False)
    stop_after(monkeypatch, 111)
    run = new(tmp_path / "b", start, settings, data)
    with pytest.raises(KeyboardInterrupt):
        fit(start, data, settings, run=run, progress=False)
    fit(Conditional(), data, settings, run=run, resume=True, progress=False)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_statistics_of_layers_come_back(tmp_path, monkeypatch):
    data = make_data(torch.randn(200, 5))
    program = WithDropout()
    start = copy.deepcopy(program)
    settings = Settings(epochs=3, batch_size=2)
    fit(program, data, settings, run=new(tmp_path / "a", program, settings, data), progress=False)
    stop_after(monkeypatch, 111)
    run = new(tmp_path / "b", start, settings, data)
    with pytest.raises(KeyboardInterrupt):
        fit(start, data, settings, run=run, progress=False)
    fit(WithDropout(), data, settings, run=run, resume=True, progress=False)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_what_is_written_when_makes_no_difference(tmp_path, monkeypatch):
    for name, share in (("never", 0.0), ("always", 1e9)):
        torch.manual_seed(0)
        program = bernoulli()
        monkeypatch.setattr(checkpoints, "SHARE", max(share, 1e-30))
        fit(program, DATA, SHORT, run=new(tmp_path / name, program), progress=False)
    assert_same(tmp_path / "never", tmp_path / "always")
    assert [f.name[5:14] for f in Run.open(tmp_path / "always").checkpoints.files()] == [
        "000000512",
        "000000486",
    ]
    assert [f.name[5:14] for f in Run.open(tmp_path / "never").checkpoints.files()] == [
        "000000512",
        "000000000",
    ]


@pytest.mark.parametrize("harm", ["cut", "empty", "flip", "folder", "gone"])
def test_a_torn_checkpoint_is_told_and_the_one_before_used(stopped, harm):
    run, whole = stopped
    newest, before = run.checkpoints.files()
    content = newest.read_bytes()
    newest.unlink()
    if harm == "cut":
        newest.write_bytes(content[: len(content) // 2])
    elif harm == "empty":
        newest.write_bytes(b"")
    elif harm == "flip":
        newest.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif harm == "folder":
        newest.mkdir()
    if harm == "gone":
        resume(run)
    else:
        with pytest.warns(CheckpointWarning, match=f"307.safetensors is .*from {before.name}"):
            resume(run)
    assert_same(whole.path, run.path)


def test_no_whole_checkpoint_is_an_error_that_changes_nothing(stopped):
    run, _ = stopped
    for file in run.checkpoints.files():
        file.write_bytes(file.read_bytes()[:-1])
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    with pytest.raises(
        InputError, match="307.safetensors is torn.*the checkpoint before it: fit again with"
    ):
        resume(run)
    assert {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()} == before


def test_what_a_crash_left_half_written_is_removed(stopped, tmp_path):
    run, whole = stopped
    for name in ("config.json", "weights.safetensors", "checkpoints/step-000000400.safetensors"):
        with pytest.raises(KeyboardInterrupt), replacing(run.path / name) as (left,):
            left.write_bytes(b"half")
            left.rename(tmp_path / "half")
            raise KeyboardInterrupt
        (tmp_path / "half").rename(left)
    mine = run.path / ".weights.safetensors"
    mine.write_text("the user's")
    resume(run)
    assert sorted(f.name for f in run.path.rglob(".*")) == [".lock", mine.name]
    assert_same(whole.path, run.path)


def test_a_fit_whose_run_was_moved_touches_no_other(stopped, tmp_path, monkeypatch):
    run, whole = stopped
    other = shutil.copytree(whole.path, tmp_path / "other")
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}

    def moving(step, *rest, write=checkpoints.write_tensors):
        if run.path.exists() and other.exists():
            run.path.rename(tmp_path / "moved")
            other.rename(run.path)
        write(step, *rest)

    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    monkeypatch.setattr(checkpoints, "write_tensors", moving)
    with pytest.raises(InputError, match="was moved or removed|another folder is in its place"):
        resume(run)
    after = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert {file.name for file in after} == {file.name for file in before}
    assert sorted(after.values()) == sorted(before.values())
    monkeypatch.undo()
    resume(Run.open(tmp_path / "moved"))
    assert_same(whole.path, tmp_path / "moved")


def test_checkpoints_that_are_a_link_are_neither_read_nor_removed(stopped, tmp_path):
    run, _ = stopped
    folder = run.checkpoints.folder
    outside = folder.rename(tmp_path / "outside")
    (outside / "step-000000999.safetensors").write_bytes(b"not torn, but another's")
    folder.symlink_to(outside)
    before = sorted(outside.iterdir())
    with pytest.raises(InputError, match="checkpoints is a link, which may lead anywhere: put"):
        resume(run)
    assert sorted(outside.iterdir()) == before


def test_resuming_a_fit_that_is_complete_repairs_what_is_broken(stopped):
    _, whole = stopped
    before = files_of(whole.path)
    (whole.path / "weights.safetensors").write_bytes(b"")
    (whole.path / "metrics.csv").unlink()
    assert len(resume(whole).epochs) == 4
    assert files_of(whole.path) == before


def test_a_run_without_checkpoints_begins_at_the_beginning(stopped):
    run, whole = stopped
    for file in run.checkpoints.files():
        file.unlink()
    with pytest.raises(
        InputError, match="run has weights, but no checkpoint to continue from: fit again"
    ):
        resume(run)
    (run.path / "weights.safetensors").unlink()  # as if it had been killed before it had any
    torch.manual_seed(0)
    program = bernoulli()
    fit(copy.deepcopy(program), DATA, SHORT, run=run, resume=True, progress=False)
    other = new(whole.path.parent / "other", program)
    fit(program, DATA, SHORT, run=other, progress=False)
    assert_same(other.path, run.path)


def test_another_fit_than_the_one_that_was_begun_is_refused(stopped):
    run, _ = stopped
    other = make_data(torch.rand(320, 5) / 2, binarize="dynamic")
    with pytest.raises(
        InputError, match="run has a config that says other data: make the config with"
    ):
        resume(run, data=other)
    with pytest.raises(
        InputError, match="run has a config that says epochs 4, not 5: make the config with"
    ):
        resume(run, settings=Settings(epochs=5, batch_size=2, engine="eager"))
    fields = json.loads((run.path / "config.json").read_text())
    fields["settings"]["epochs"] = 5
    (run.path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(InputError, match="was begun with epochs 4, not 5: continue with the same"):
        settings = Settings(epochs=5, batch_size=2, engine="eager")
        resume(Run.open(run.path), settings=settings)
    fields["settings"]["epochs"] = 4
    (run.path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(
        InputError, match="has a checkpoint that is not of this fit .*: fit again with"
    ):
        program = VAE((5,), latent_dim=3, hidden=(8,))
        fit(program, DATA, SHORT, run=run, resume=True, progress=False)
    with pytest.raises(InputError, match="run must be given to resume a fit: open it"):
        fit(bernoulli(), DATA, SHORT, resume=True, progress=False)


def test_another_machine_is_told(stopped, monkeypatch):
    run, _ = stopped
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    with pytest.warns(CheckpointWarning, match="not to the same bits: threads was 1, and is 7 now"):
        resume(run)


def test_two_fits_in_one_folder(stopped):
    run, _ = stopped
    before = {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()}
    lock = FileLock(run.path / ".lock")
    replaced = Run.create(run.path, run.config, overwrite=True)
    with lock:
        with pytest.raises(InputError, match="is being fitted by another process: wait for it"):
            resume(run)
        with pytest.raises(InputError, match="is being fitted by another process: wait for it"):
            fit(bernoulli(), DATA, SHORT, run=replaced, progress=False)
    assert {f: f.read_bytes() for f in run.path.rglob("*") if f.is_file()} == before
    resume(run)


def test_events_follow_no_link(tmp_path, stopped):
    run, _ = stopped
    (tmp_path / "elsewhere").mkdir()
    (run.path / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="tensorboard is a link, which may lead anywhere"):
        resume(run, on_epoch=TensorBoard(run.events))
    assert not list((tmp_path / "elsewhere").iterdir())


def test_events_go_on_where_they_were(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    program = bernoulli()
    config = Config.of("ppl_vae.models.vae:VAE", {}, DATA, SHORT)
    run = Run.create(tmp_path / "run", config)
    stop_after(monkeypatch, 300)
    with pytest.raises(KeyboardInterrupt), TensorBoard(run.events) as tensorboard:
        fit(program, DATA, SHORT, run=run, on_epoch=tensorboard, progress=False)
    with TensorBoard(run.events) as tensorboard:
        resume(Run.open(run.path), on_epoch=tensorboard)
    events = EventAccumulator(str(run.events))
    events.Reload()
    assert [event.step for event in events.Scalars("elbo")] == [1, 2, 3, 4]
