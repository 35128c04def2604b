"""Divergence: back to what was sound, at a lower rate; and never NaN on the disk."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch

from ppl_vae import Config, InputError, Run, Settings, fit, load, make_data
from ppl_vae.models import VAE, Autoencoder, LinearGaussian
from ppl_vae.runtime import isolated
from ppl_vae.training.trainer import DivergenceWarning, Trainer

from .programs import Hiccups, Minimal, Narrowing, WithDropout

TABLE = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6.0)
DATA = make_data(TABLE)
TEN_STEPS = Settings(epochs=5, batch_size=16, warmup_epochs=0)  # an epoch


def adam_steps(trainer):
    return {int(state["step"]) for state in trainer.svi_step.optimizer.state.values()}


def run_epochs(program, count, settings=TEN_STEPS):
    trainer = Trainer(program, DATA, settings)
    with isolated(0), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered")
        for _ in range(count):
            trainer.update_best(trainer.epoch())
            trainer.snapshot()
    return trainer


@pytest.mark.parametrize("gradient_only", [False, True])
def test_one_divergence_goes_back_to_the_last_snapshot_at_a_tenth_of_the_rate(gradient_only):
    program = Hiccups(steps=[33], gradient_only=gradient_only)
    # A gradient is found out by what it does to the next loss.
    found = 34 if gradient_only else 33
    message = (
        f"the loss became nan by step {found}: rolled back to step 30, learning rate scaled by 0.1"
    )
    with pytest.warns(DivergenceWarning, match=message):
        trainer = run_epochs(program, 4)
    assert adam_steps(trainer) == {30 + 40 - found}
    assert trainer.counters.steps == 40
    assert trainer.counters.lr_scale == pytest.approx(0.1)
    trainer.step(DATA.batch("train"))
    (group,) = trainer.svi_step.optimizer.param_groups
    assert group["lr"] == pytest.approx(0.1 * trainer.schedule.lr(40))
    assert all(p.isfinite().all() for p in program.parameters())


def test_a_gradient_of_the_last_step_is_found_before_it_counts():
    program = Hiccups(steps=[30], gradient_only=True)
    message = (
        "a gradient was not finite by step 30: rolled back to step 20, learning rate scaled by 0.1"
    )
    with pytest.warns(DivergenceWarning, match=message):
        trainer = run_epochs(program, 3)
    assert adam_steps(trainer) == {20}
    assert all(p.isfinite().all() for p in program.parameters())


def test_going_back_is_exact():
    program = Hiccups(steps=[30], gradient_only=True)
    seen = []
    trainer = Trainer(program, DATA, TEN_STEPS)
    trainer.on_snapshot = lambda: seen.append(copy.deepcopy(program.state_dict()))
    with isolated(0):
        for _ in range(2):
            trainer.epoch()
            trainer.snapshot()
        with pytest.warns(DivergenceWarning):
            trainer.epoch()
        trainer.snapshot()
    # Snapshots at steps 0, 10, 20, and at 30, when it has gone back to 20.
    assert all(torch.equal(seen[3][name], value) for name, value in seen[2].items())
    assert not torch.equal(seen[2]["decoder.weight"], seen[1]["decoder.weight"])


def test_the_second_time_in_a_row_adam_starts_afresh_from_the_best_weights():
    with pytest.warns(DivergenceWarning) as warned:
        trainer = run_epochs(Hiccups(steps=[33, 34]), 4)
    assert [str(w.message) for w in warned] == [
        "the loss became nan by step 33: rolled back to step 30, learning rate scaled by 0.1",
        "the loss became nan by step 34: rolled back to the best weights, learning rate scaled by "
        "0.01",
    ]
    assert adam_steps(trainer) == {40 - 34}


def test_sound_steps_in_between_start_the_count_again(tmp_path):
    program = Hiccups(steps=[12, 13, 22, 23, 32, 33])
    with pytest.warns(DivergenceWarning) as warned:
        history = fit(program, DATA, TEN_STEPS, progress=False)
    assert len(warned) == 6
    assert len(history.epochs) == 5
    assert history.epochs[-1]["learning_rate"] == pytest.approx(
        1e-6 * 2e-3 * 0.5 * (1 + math.cos(math.pi * 40 / 50))
    )


@pytest.mark.parametrize(("first", "epochs_kept"), [(4, 0), (15, 1)])
def test_the_third_time_in_a_row_ends_it_with_the_best_weights(tmp_path, first, epochs_kept):
    program = Hiccups(steps=range(first, 1000))
    start = copy.deepcopy(program.state_dict())
    run = Run.create(tmp_path / "run", Config("tests.programs:Hiccups", {}, {"shape": [5]}, {}))
    message = (
        rf"Hiccups diverged 3 times in a row, the last time in epoch {epochs_kept + 1} \(the loss "
        rf"became nan\); it has the weights of epoch {epochs_kept}: look for outliers in the data, "
        "or try a learning rate of 2e-06, a bound of 100 on the norm of the gradient, or more"
    )
    with pytest.raises(InputError, match=message), pytest.warns(DivergenceWarning):
        fit(program, DATA, TEN_STEPS, run=run, progress=False)
    assert all(v.isfinite().all() for v in program.state_dict().values())
    kept = load(tmp_path / "run", Hiccups()).state_dict()
    assert all(torch.equal(kept[k], v.cpu()) for k, v in program.state_dict().items())
    assert all(torch.equal(start[k], v) for k, v in kept.items()) == (epochs_kept == 0)
    assert len(run.metrics()) == epochs_kept


def test_a_statistic_of_a_layer_that_is_not_finite_goes_back_too():
    program = WithDropout()
    statistics = program.encoder[1]
    program.register_buffer("mask", torch.tensor([0.0, -math.inf]))  # which is no divergence
    trainer = Trainer(program, DATA, TEN_STEPS)
    with isolated(0):
        trainer.epoch()
        trainer.snapshot()
        kept = statistics.running_var.clone()
        statistics.running_var.fill_(math.inf)
        assert trainer.check() == "a gradient was not finite"
        with pytest.warns(
            DivergenceWarning, match="a gradient was not finite by step 10: rolled back to"
        ):
            trainer._validated()
    assert torch.equal(statistics.running_var, kept)
    assert not trainer.check()


def test_an_epoch_whose_loss_was_never_finite_says_nan():
    with pytest.warns(DivergenceWarning):
        history = fit(Hiccups(steps=[3]), DATA, Settings(epochs=3, batch_size=160), progress=False)
    losses = [row["loss"] for row in history.epochs]
    assert math.isnan(losses[2])
    assert all(map(math.isfinite, losses[:2]))


HALF = make_data(np.random.default_rng(0).normal(size=(100, 5)).astype(np.float16))
BYTES = make_data(np.random.default_rng(0).integers(0, 2, size=(100, 5), dtype=np.uint8))
PROGRAMS = {
    "bernoulli": (lambda: VAE((5,), 2, (8,)), BYTES),
    "gaussian": (lambda: VAE((5,), 2, (8,), likelihood="gaussian"), DATA),
    "laplace": (lambda: VAE((5,), 2, (8,), likelihood="laplace"), DATA),
    "continuous-bernoulli": (lambda: VAE((5,), 2, (8,), likelihood="continuous-bernoulli"), BYTES),
    "tanh": (lambda: VAE((5,), 2, (8,), activation="tanh", likelihood="gaussian"), DATA),
    "autoencoder": (lambda: Autoencoder((5,), 2, (8,)), BYTES),
    "ppca": (lambda: LinearGaussian((5,), 2), DATA),
    "exponential scale": (Minimal, DATA),
    "scale to zero": (Narrowing, DATA),
    "float16 data": (Minimal, HALF),
    "layers with statistics": (WithDropout, DATA),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0, 1e20])
@pytest.mark.filterwarnings("ignore::ppl_vae.training.trainer.DivergenceWarning")
def test_no_run_ends_with_nan_on_the_disk(tmp_path, name, rate):
    make, data = PROGRAMS[name]
    outcomes = set()
    for seed in range(3):
        torch.manual_seed(seed)
        program = make()
        config = Config.of(f"x:{type(program).__name__}", {}, data)
        run = Run.create(tmp_path / str(seed), config)
        settings = Settings(epochs=4, batch_size=8, learning_rate=rate, seed=seed, warmup_epochs=0)
        try:
            fit(program, data, settings, run=run, progress=False)
            outcomes.add("done")
        except InputError as error:
            outcomes.add("ended" if "diverged 3 times" in error.problem else str(error))
        scores = [row["reconstruction"] for row in run.metrics()]
        assert all(map(math.isfinite, scores))
        stored = load(run.path, make()).state_dict()
        assert all(value.isfinite().all() for value in stored.values())
    assert outcomes <= {"done", "ended"}
    if rate < 1 and name != "scale to zero":
        assert outcomes == {"done"}
