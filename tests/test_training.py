"""Fits: what they improve, restore, refuse, and leave alone."""

import copy
import json
import math
from dataclasses import asdict

import numpy as np
import pyro
import pytest
import torch

import ppl_vae
from ppl_vae import InputError, Posterior, Run, Settings, fit, make_data
from ppl_vae.models import VAE, Autoencoder, LinearGaussian
from ppl_vae.runs.config import Config
from ppl_vae.training.schedule import Schedule
from ppl_vae.training.trainer import Trainer

from .programs import (
    Discrete,
    LearnedFlow,
    Minimal,
    NoisyLayers,
    Planar,
    TwoLayers,
    WithDropout,
)

TABLE = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 6.0)
DATA = make_data(TABLE)
SHORT = Settings(epochs=3, batch_size=32)


def small(data, **options):
    return VAE(data.shape, latent_dim=2, hidden=(16,), **options)


def elbos(history):
    return [row["elbo"] for row in history.epochs]


def improves(program, data, settings):
    """Whether a fit raises the ELBO of training data, paired by datum, by 4 standard errors."""
    before, x = copy.deepcopy(program), data.fixed("train")
    fit(program, data, settings, progress=False)
    gain = (Posterior(program, x).log_weight(10) - Posterior(before, x).log_weight(10)).mean(0)
    estimate = ppl_vae.Estimate.of(gain)
    return estimate.mean > 4 * estimate.stderr


@pytest.mark.parametrize("kind", [Minimal, TwoLayers, Discrete])
def test_any_conforming_program_improves(kind):
    # One factor and noise: the guide's scales, which are exponentials, stay tame on it.
    data = make_data(torch.randn(400, 1) + 0.5 * torch.randn(400, 5) + 1.0)
    assert improves(kind(), data, Settings(epochs=20, learning_rate=0.05))


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "analytic-kl"},
        {"objective": "stl"},
        {"objective": "stl", "particles": 2, "kl_warmup_epochs": 2, "free_bits": 0.1},
        {"objective": "iw", "particles": 3},
        {"objective": "dreg", "particles": 3},
        {"particles": 3},
        {"kl_warmup_epochs": 2},
        {"free_bits": 0.5},
        {"clip_norm": 1.0},
        {"warmup_epochs": 0},
    ],
    ids=str,
)
def test_every_option_trains(digits, options):
    assert improves(small(digits), digits, Settings(epochs=4, **options))


@pytest.mark.parametrize("seed", [0, 1])
def test_same_seed_same_bits(digits, seed):
    start = small(digits)
    first, second, other = (copy.deepcopy(start) for _ in range(3))
    settings = Settings(epochs=2, seed=seed)
    rows = [fit(p, digits, settings, progress=False).epochs for p in (first, second)]
    fit(other, digits, Settings(epochs=2, seed=seed + 1), progress=False)
    for a, b, c in zip(*(p.parameters() for p in (first, second, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    for a, b in zip(*rows, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_a_fit_leaves_no_trace_outside_the_program(digits):
    pyro.param("mine", torch.ones(3))
    vae = small(digits)
    mine, names = pyro.param("mine").unconstrained(), set(pyro.get_param_store())
    state, validation = torch.get_rng_state(), pyro.settings.get("validate_poutine")
    fit(vae, digits, SHORT, progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert pyro.settings.get("validate_poutine") == validation
    assert set(pyro.get_param_store()) == names
    assert pyro.param("mine").unconstrained() is mine


def test_a_fitted_program_trains_on_under_stock_svi(digits):
    vae = small(digits)
    fit(vae, digits, SHORT, progress=False)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    svi = pyro.infer.SVI(
        vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    )
    svi.step(digits.fixed("test").to(next(vae.parameters()).device))
    assert not any(torch.equal(p, before[k]) for k, p in vae.named_parameters())


def test_the_best_weights_are_the_ones_kept(digits):
    vae = small(digits)
    # A rate this high makes the validation ELBO go up and down.
    history = fit(vae, digits, Settings(epochs=8, learning_rate=0.3), progress=False)
    best = max(elbos(history))
    assert elbos(history)[history.best_epoch - 1] == best
    x = digits.fixed("validation")
    assert Posterior(vae, x).log_weight(1).mean().item() == pytest.approx(best, abs=1e-4)


def test_frozen_parameters_stay_and_dropout_trains():
    program = WithDropout()
    program.decoder[0].bias.requires_grad_(False)
    frozen = program.decoder[0].bias.clone()
    statistics = program.encoder[1].running_mean.clone()
    history = fit(program, DATA, Settings(epochs=5, learning_rate=0.02), progress=False)
    assert elbos(history)[-1] > elbos(history)[0]
    assert torch.equal(program.decoder[0].bias.cpu(), frozen)
    assert not torch.equal(program.encoder[1].running_mean.cpu(), statistics)
    assert all(module.training for module in program.modules())


def test_data_and_draws_come_from_different_streams():
    trainer = Trainer(Minimal(), DATA, Settings(seed=5))
    first = torch.rand(4, generator=trainer.batches.generator)
    assert not torch.equal(first, torch.rand(4, generator=torch.Generator().manual_seed(5)))


def test_draws_follow_the_seed_too():
    # All data in one batch: the order of the data makes no difference but rounding.
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        settings = Settings(epochs=1, batch_size=len(DATA.train), seed=seed)
        losses.append(fit(Minimal(), DATA, settings, progress=False).epochs[0]["loss"])
    assert losses[0] == losses[1]
    assert abs(losses[0] - losses[2]) > 1e-3


def test_the_first_step_of_adam_is_as_long_as_the_rate():
    trainer = Trainer(Minimal(), DATA, Settings(learning_rate=0.0123, warmup_epochs=0))
    parameters = trainer.svi_step.parameters
    before = [p.detach().clone() for p in parameters]
    trainer.step(DATA.batch("train"))
    for parameter, start in zip(parameters, before, strict=True):
        assert (parameter - start).abs().max().item() == pytest.approx(0.0123, rel=1e-3)


def test_the_row_of_an_epoch_is_in_nats_per_datum():
    program = Minimal()
    settings = Settings(epochs=1, learning_rate=1e-12, particles=20)
    row = fit(program, DATA, settings, progress=False).epochs[0]
    terms = Posterior(program, DATA.fixed("train")).terms(200)
    stderr = (terms.log_weight.var(0) / 20).sum().sqrt().item() / len(DATA.train)
    assert abs(-row["loss"] - terms.log_weight.mean().item()) < 4 * stderr

    terms = Posterior(program, DATA.fixed("validation")).terms()
    expected = ppl_vae.Estimate.of(terms.log_weight[0])
    assert row["elbo"] == pytest.approx(expected.mean)
    assert row["elbo_stderr"] == pytest.approx(expected.stderr)
    assert row["kl"] == pytest.approx(terms.kl[0].mean().item(), rel=1e-5)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_split_is_checked_before_the_first_step(split):
    data = make_data(torch.randint(2, (100, 5)).double())
    getattr(data, split).x[3, 2] = 0.5
    row = getattr(data, split).rows[3]
    with pytest.raises(InputError, match=f"datum {row}: 0.5 lies outside"):
        fit(small(data), data, SHORT, progress=False)


def test_patience_ends_a_fit_that_gets_no_better():
    # Few data, many weights: it overfits within these epochs.
    data = make_data(torch.randn(40, 5, generator=torch.Generator().manual_seed(1)))
    vae = VAE((5,), latent_dim=2, hidden=(64,), likelihood="gaussian")
    settings = Settings(epochs=500, batch_size=8, learning_rate=0.01, patience=5)
    history = fit(vae, data, settings, progress=False)
    assert history.stopped_early
    assert len(history.epochs) == history.best_epoch + 5 < 500


def test_the_rate_rises_and_falls_along_a_cosine():
    settings = Settings(learning_rate=1.0, epochs=10, warmup_epochs=2)
    schedule = Schedule.of(settings, steps_per_epoch=10)
    rates = [schedule.lr(step) for step in range(100)]
    top = rates.index(max(rates))
    assert top == 20
    assert rates[top] == pytest.approx(1.0)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[0] < 0.1
    assert rates[-1] < 0.01


def test_kl_warm_up_rises_to_one(digits):
    settings = Settings(epochs=4, kl_warmup_epochs=2)
    history = fit(small(digits), digits, settings, progress=False)
    weights = [row["kl_weight"] for row in history.epochs]
    assert 0.4 < weights[0] < 0.6
    assert weights[2:] == [1.0, 1.0]


def test_free_bits_hold_the_kl_up(digits):
    settings = {"epochs": 15, "learning_rate": 0.01}
    free = fit(small(digits), digits, Settings(free_bits=5.0, **settings), progress=False)
    plain = fit(small(digits), digits, Settings(**settings), progress=False)
    reached, without = free.epochs[-1]["kl"], plain.epochs[-1]["kl"]
    assert without < reached
    assert abs(reached - 5.0) < abs(without - 5.0)


def test_clipping_bounds_the_gradient_per_datum():
    step = Trainer(Minimal(), DATA, Settings(clip_norm=1e-3)).svi_step
    step(DATA.batch("train").rows(slice(50)), number=0)
    # Of the first gradient, a tenth is in Adam's mean.
    means = [step.optimizer.state[p]["exp_avg"] for p in step.parameters]
    total = 10 * math.sqrt(sum(mean.square().sum().item() for mean in means))
    assert total == pytest.approx(50e-3, rel=1e-3)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_a_batch_is_at_most_the_data(engine):
    found = []
    for size in (len(DATA.train), 10_000):
        torch.manual_seed(0)
        program, settings = Minimal(), Settings(epochs=3, batch_size=size, engine=engine)
        history = fit(program, DATA, settings, progress=False)
        found.append([history.epochs[-1]["loss"], program.state_dict()])
    assert found[0][0] == found[1][0]
    assert all(torch.equal(found[0][1][name], t) for name, t in found[1][1].items())


def test_refusals_come_before_anything_is_written(tmp_path):
    grey = ppl_vae.load_data("digits")
    config = Config("ppl_vae.models.vae:VAE", {}, {"shape": [1, 8, 8]}, {})
    run = Run.create(tmp_path / "run", config)
    with pytest.raises(InputError, match="outside the support of the Bernoulli"):
        fit(small(grey), grey, SHORT, run=run, progress=False)
    with pytest.raises(InputError, match="device 'quantum' cannot be used"):
        fit(Minimal(), DATA, Settings(device="quantum"), run=run, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be an integer of at least 1, got 0"),
        ({"epochs": 2.5}, "epochs must be an integer of at least 1, got 2.5"),
        ({"batch_size": -1}, "batch_size must be an integer of at least 1"),
        ({"particles": 0}, "particles must be an integer of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number"),
        ({"learning_rate": math.inf}, "learning_rate must be a positive number"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a number of at least 0"),
        ({"kl_warmup_epochs": math.inf}, "kl_warmup_epochs must be a number of at least 0"),
        ({"free_bits": -0.1}, "free_bits must be a number of at least 0"),
        ({"clip_norm": 0.0}, "clip_norm must be a positive number"),
        ({"epochs": True}, "epochs must be an integer"),
        ({"patience": 2.5}, "patience must be an integer"),
        ({"learning_rate": "1e-3"}, "learning_rate must be a positive number"),
        ({"clip_norm": "1"}, "clip_norm must be a positive number"),
        ({"seed": 1.0}, "seed must be an integer in 0"),
        ({"patience": 0}, "patience must be an integer of at least 1"),
        ({"seed": -1}, "seed must be an integer in 0"),
        ({"objective": "magic"}, "objective must be one of elbo, "),
        ({"engine": "magic"}, "engine must be one of auto"),
        ({"objective": "iw"}, "particles must be 2 or more for the objective iw"),
        ({"objective": "dreg"}, "particles must be 2 or more for the objective dreg"),
        ({"objective": "dreg", "particles": 5, "free_bits": 1.0}, "free_bits .* no KL term"),
        ({"objective": "iw", "particles": 5, "free_bits": 1.0}, "free_bits .* no KL term"),
        ({"objective": "iw", "particles": 5, "kl_warmup_epochs": 1}, "kl_warmup.* no KL term"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Settings(**options)


def test_an_autoencoder_is_judged_by_its_reconstruction(digits):
    autoencoder = Autoencoder(digits.shape, latent_dim=2, hidden=(16,))
    history = fit(autoencoder, digits, SHORT, progress=False)
    assert "elbo" not in history.epochs[0]
    losses = [row["reconstruction"] for row in history.epochs]
    assert losses[-1] > losses[0]


def test_float64_programs_train_in_float64():
    program = LinearGaussian((5,))
    fit(program, DATA, SHORT, progress=False)
    assert all(p.dtype == torch.float64 for p in program.parameters())


def test_numpys_numbers_are_numbers():
    settings = Settings(epochs=np.int64(3), learning_rate=np.float32(1e-3), clip_norm=1)
    assert settings.epochs == 3
    assert json.loads(json.dumps(asdict(settings))) == asdict(settings)


@pytest.mark.parametrize("objective", ["iw", "dreg", "stl", "analytic-kl"])
def test_objectives_that_would_not_train_a_guide_are_refused(objective):
    settings = Settings(objective=objective, particles=3)
    with pytest.raises(InputError, match=f"'k' cannot be reparameterized, and .* {objective}"):
        fit(Discrete(), DATA, settings, progress=False)


def test_analytic_kl_is_refused_for_a_guide_of_another_order():
    # Pyro's estimator would score 12.6 nats there in the place of 12.2, with a warning at most.
    with pytest.raises(InputError, match="draws z1, z2 and the model z2, z1: use the objective"):
        fit(TwoLayers(), DATA, Settings(objective="analytic-kl"), progress=False)


@pytest.mark.parametrize("objective", ["stl", "dreg"])
def test_guides_that_path_gradients_would_mistrain_are_refused(objective):
    settings = Settings(objective=objective, particles=2, epochs=1)
    for kind, message in (
        (LearnedFlow, "auxiliary site 'u', .*: use the objective elbo"),
        (Planar, "a flow at site 'z' that cannot be inverted"),
        (NoisyLayers, "layers such as dropout would change it"),
    ):
        with pytest.raises(InputError, match=message):
            fit(kind(), DATA, settings, progress=False)
    fit(WithDropout(), DATA, settings, progress=False)  # one site: nothing runs again
    fit(Planar(), DATA, Settings(epochs=1), progress=False)


def test_the_columns_of_a_fit_are_what_one_draw_can_tell(digits):
    history = fit(small(digits), digits, Settings(epochs=1), progress=False)
    assert list(history.epochs[0]) == [
        "epoch", "elbo", "reconstruction", "kl", "elbo_stderr", "loss", "learning_rate",
        "kl_weight", "seconds",
    ]  # fmt: skip


def test_the_objective_iw_keeps_the_weights_with_the_best_bound(digits):
    settings = Settings(epochs=8, learning_rate=0.3, objective="iw", particles=5)
    history = fit(small(digits), digits, settings, progress=False)
    bounds = [row["iw_bound"] for row in history.epochs]
    assert bounds[history.best_epoch - 1] == max(bounds)
    assert all(row["iw_bound"] > row["elbo"] for row in history.epochs)


def test_fit_says_what_data_it_takes():
    with pytest.raises(InputError, match="data must be of type DataSet, not Tensor"):
        fit(Minimal(), TABLE, progress=False)


def test_an_interrupted_fit_ends_with_the_best_weights(monkeypatch):
    program, epoch, scores = Minimal(), Trainer.epoch, []

    def interrupted(trainer, progress):
        if len(scores) == 2:
            trainer.step(DATA.batch("train"))
            raise KeyboardInterrupt
        scores.append(epoch(trainer)["elbo"])
        return {"elbo": scores[-1], "reconstruction": 0.0, "kl": 0.0}

    monkeypatch.setattr(Trainer, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(program, DATA, Settings(epochs=5), progress=False)
    terms = Posterior(program, DATA.fixed("validation")).terms()
    assert terms.log_weight.mean().item() == pytest.approx(max(scores), rel=1e-6)
