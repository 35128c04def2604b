"""Run directories: bit for bit, whole or not at all, and never a way to run code."""

import json
import os

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae import InputError, Run, Settings, fit, load
from ppl_vae.models import VAE
from ppl_vae.runs.config import Config
from ppl_vae.training.tensorboard import TensorBoard

from .programs import Minimal

OURS = "ppl_vae.models.vae:VAE"
ARGUMENTS = {"latent_dim": 2, "hidden": [16]}


def config(program=OURS, arguments=ARGUMENTS, shape=(1, 8, 8)):
    return Config(program, dict(arguments), {"shape": list(shape)}, {})


@pytest.fixture
def fitted(tmp_path, digits):
    vae = VAE(digits.shape, **ARGUMENTS)
    run = Run.create(tmp_path / "run", config())
    history = fit(vae, digits, Settings(epochs=2), run=run, progress=False)
    return run, vae, history


def test_a_program_comes_back_bit_for_bit(fitted):
    run, vae, _ = fitted
    again = load(run.path)
    assert type(again) is VAE
    assert again.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(v, vae.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_type_comes_back_too(tmp_path, dtype):
    vae = VAE((1, 8, 8), **ARGUMENTS).to(dtype)
    run = Run.create(tmp_path / "run", config())
    run.start()
    run.save_weights(vae.state_dict())
    again = load(run.path)
    assert all(torch.equal(v, vae.state_dict()[k]) for k, v in again.state_dict().items())
    assert again.prior.loc.dtype == dtype


def test_every_tensor_keeps_its_own_type(tmp_path):
    class Mixed(Minimal):
        def __init__(self, data_shape=(5,)):
            super().__init__(data_shape)
            self.register_buffer("a_center", torch.randn(5, dtype=torch.float64))
            self.register_buffer("a_count", torch.tensor(3))

    program = Mixed()
    run = Run.create(tmp_path / "run", config("x:Mixed", {}, (5,)))
    run.start()
    run.save_weights(program.state_dict())
    for key, value in load(run.path, Mixed).state_dict().items():
        assert value.dtype == program.state_dict()[key].dtype
        assert torch.equal(value, program.state_dict()[key])


def test_a_second_fit_does_not_wipe_the_run_of_the_first(fitted, digits):
    run, vae, history = fitted
    for again in (run, Run.open(run.path)):
        with pytest.raises(InputError, match="holds a run: choose another"):
            fit(vae, digits, Settings(epochs=2), run=again, progress=False)
    assert run.metrics() == history.epochs


def test_a_run_is_described_in_a_line(fitted):
    run, _, history = fitted
    assert repr(run) == f"Run({run.path}: {OURS} on None)"
    elbo = history.epochs[history.best_epoch - 1]["elbo"]
    assert repr(history) == (
        f"History(2 epochs, the best {history.best_epoch}: validation ELBO {elbo:.2f})"
    )


def test_metrics_hold_every_epoch(fitted):
    run, _, history = fitted
    assert run.metrics() == history.epochs


def test_no_temporary_file_is_left(fitted):
    assert sorted(os.listdir(fitted[0].path)) == [
        ".lock",
        "checkpoints",
        "config.json",
        "metrics.csv",
        "pictures",
        "weights.safetensors",
    ]


def test_config_is_plain_data_that_says_what_wrote_it(fitted):
    fields = json.loads((fitted[0].path / "config.json").read_text())
    assert fields["program"] == OURS
    assert fields["arguments"] == ARGUMENTS
    assert {"ppl-vae", "torch", "pyro-ppl", "python"} == fields["versions"].keys()


def test_a_users_program_is_loaded_only_when_named(tmp_path):
    run = Run.create(tmp_path / "run", config("tests.programs:Minimal", {}, (5,)))
    run.start()
    program = Minimal()
    run.save_weights(program.state_dict())
    with pytest.raises(InputError, match="code from outside ppl_vae: if you trust that code"):
        load(run.path)
    for given in (Minimal, Minimal()):
        again = load(run.path, given)
        assert torch.equal(again.encoder.weight, program.encoder.weight)


@pytest.mark.parametrize(
    "reference",
    [
        "evil:Evil",
        "./evil.py:Evil",
        "{run}/evil.py:Evil",
        "ppl_vae.models.py:Evil",
        "ppl_vae.models./evil.py:Evil",
        "ppl_vae.models.../evil.py:Evil",
        "os:system",
        "antigravity:x",
    ],
)
def test_a_strangers_run_runs_no_code(fitted, reference, tmp_path, monkeypatch):
    run, _, _ = fitted
    witness = tmp_path / "witness"
    (run.path / "ppl_vae.models.").mkdir()
    for name in ("evil.py", "ppl_vae.models.py", "ppl_vae.models./evil.py"):
        (run.path / name).write_text(f"open({str(witness)!r}, 'w')\n")
    monkeypatch.chdir(run.path)
    file = run.path / "config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({**fields, "program": reference.format(run=run.path)}))
    with pytest.raises(InputError, match="code from outside ppl_vae"):
        load(run.path)
    assert not witness.exists()


def test_a_place_that_is_taken_is_left_alone(fitted, tmp_path):
    run, _, _ = fitted
    before = (run.path / "weights.safetensors").read_bytes()
    with pytest.raises(InputError, match="holds a run: choose another path, pass overwrite=True"):
        Run.create(run.path, config())
    Run.create(run.path, config(), overwrite=True)  # and nothing happens before start
    assert (run.path / "weights.safetensors").read_bytes() == before
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("...")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "config.json").write_text('{"name": "something else"}')
    (tmp_path / "file").write_text("...")
    for taken in ("thesis", "site", "file"):
        with pytest.raises(InputError, match="exists and is not a run"):
            Run.create(tmp_path / taken, config(), overwrite=True)


def test_overwriting_leaves_nothing_of_the_old_run_and_all_that_is_not_its_own(fitted):
    run, _, _ = fitted
    (run.path / "notes.txt").write_text("mine")
    (run.pictures / "curves.png").write_text("old")
    (run.path / "tensorboard").mkdir()
    run.results.mkdir()
    run.report.write_text("of the old run")
    Run.create(run.path, config(), overwrite=True).start()
    assert sorted(os.listdir(run.path)) == [".lock", "config.json", "notes.txt", "pictures"]
    assert os.listdir(run.pictures) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        Run.create(tmp_path / "file" / "run", config()).start()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fields: "", "is broken"),
        (lambda fields: "[" * 100_000, "is broken"),
        (lambda fields: "null", "is broken"),
        (lambda fields: json.dumps({**fields, "extra": 1}), "is broken"),
        (lambda fields: json.dumps({**fields, "data": {}}), "is broken"),
        (lambda fields: json.dumps({**fields, "data": {"shape": ["a"]}}), "is broken"),
        (lambda fields: json.dumps({**fields, "format": 2}), "is of format 2, .*reads format 3"),
        (lambda fields: json.dumps({**fields, "program": 3}), "is broken"),
        (lambda fields: json.dumps({**fields, "program": "ppl_vae.models:MLP"}), "not a program"),
        (lambda fields: json.dumps({**fields, "program": "ppl_vae.models:X"}), "no class 'X'"),
        (
            lambda fields: json.dumps({**fields, "arguments": {"latent_dim": -1}}),
            "cannot be built .latent_dim must hold",
        ),
        (lambda fields: json.dumps({**fields, "arguments": {"depth": 1}}), "cannot be built"),
        (
            lambda fields: json.dumps({**fields, "arguments": {"hidden": [8]}}),
            "does not fit this program",
        ),
    ],
)
def test_a_broken_config_is_named(fitted, change, message):
    file = fitted[0].path / "config.json"
    file.write_text(change(json.loads(file.read_text())))
    with pytest.raises(InputError, match=message) as caught:
        load(fitted[0].path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [None, 0, 7, 1000])
def test_broken_weights_are_named(fitted, keep):
    file = fitted[0].path / "weights.safetensors"
    whole = file.read_bytes()
    file.unlink()
    if keep is not None:
        file.write_bytes(whole[:keep])
    with pytest.raises(
        InputError, match="s is (missing|torn).*resume=True. writes it again"
    ) as caught:
        load(fitted[0].path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_config_is_no_run(tmp_path):
    with pytest.raises(InputError, match="is not a run, for it has no config.json"):
        load(tmp_path)


def test_tensorboard_events_on_request(tmp_path, digits):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = Run.create(tmp_path / "run", config())
    vae, settings = VAE(digits.shape, **ARGUMENTS), Settings(epochs=2)
    with TensorBoard(run.events) as tensorboard:
        history = fit(vae, digits, settings, run=run, on_epoch=tensorboard, progress=False)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    logged = [event.value for event in events.Scalars("elbo")]
    assert logged == pytest.approx([row["elbo"] for row in history.epochs], rel=1e-6)
    assert ppl_vae.load(run.path) is not None


def test_a_run_that_is_being_written_is_called_busy(tmp_path):
    run = Run.create(tmp_path / "run", config())
    run.start()
    try:
        with pytest.raises(InputError, match="is being written by another process: try again"):
            Run.open(run.path).load()
        (run.path / "config.json").unlink()
        with pytest.raises(InputError, match="is being written by another process: try again"):
            Run.open(run.path)
    finally:
        run.close()
    with pytest.raises(InputError, match="is not a run"):
        Run.open(run.path)


def test_a_run_of_data_in_memory_says_so_in_the_shell(tmp_path, shell):
    data = ppl_vae.make_data((torch.rand(200, 6) > 0.5).float())
    recorded = Config.of("ppl_vae.models:VAE", ARGUMENTS, data)
    run = Run.create(tmp_path / "mem", recorded)
    fit(VAE(data.shape, **ARGUMENTS), data, Settings(epochs=1), run=run, progress=False)
    for words in (["evaluate", "mem"], ["train", "--config", "mem"]):
        code, out, err = shell(*words)
        assert (code, out) == (2, "")
        assert "in memory" in err
        assert err.count("\n") == 1


def test_a_path_from_the_home_folder_is_no_data_in_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(100, 3)))
    recorded = Config.of("ppl_vae.models:VAE", ARGUMENTS, ppl_vae.load_data("~/x.npy"))
    assert recorded.data["source"] == str(tmp_path / "x.npy")
