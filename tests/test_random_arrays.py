"""Arrays of any shape, type and value: fit, evaluate and diagnose work, or refuse in one line."""

import math
import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ppl_vae
from ppl_vae import Effort, InputError, Settings
from ppl_vae.choices import ColumnKind
from ppl_vae.diagnostics.verdicts import GRADES
from ppl_vae.models import LIKELIHOODS, VAE, Autoencoder

from .programs import Minimal

TYPES = ["float64", "float32", "float16", "uint8", "int8", "int16", "int64", "uint64", "bool"]
ODD = [math.nan, math.inf, -math.inf, 1e300, -1e38, 3e4, 1e-320, -0.0, 255.0, 0.5, 1.0]
CODES = ("categorical", "ordered")  # which need to know how many there are
KINDS = get_args(ColumnKind)
# Of what spread the values are before their type cuts them off.
SPREADS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "grey": lambda rng, shape: rng.uniform(size=shape),
    "bits": lambda rng, shape: rng.integers(2, size=shape).astype(float),
    "levels": lambda rng, shape: rng.integers(256, size=shape).astype(float),
    "one value": lambda rng, shape: np.full(shape, rng.choice([0.0, 1.0, 0.3, -7.0])),
    "one datum": lambda rng, shape: np.repeat(rng.normal(size=(1, *shape[1:])), shape[0], axis=0),
    "wide": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, size=shape),
    "heavy": lambda rng, shape: rng.standard_cauchy(size=shape),
    "far": lambda rng, shape: 1e4 + rng.normal(size=shape),
}


@st.composite
def arrays(draw, sizes):
    dims = draw(st.sampled_from([1, 1, 1, 2, 3, 0]))
    shape = draw(st.tuples(sizes, *[st.integers(1, 5)] * dims))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    array = SPREADS[draw(st.sampled_from(sorted(SPREADS)))](rng, shape)
    for value in draw(st.one_of(st.just([]), st.lists(st.sampled_from(ODD), max_size=3))):
        array[tuple(rng.integers(size) for size in shape)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what the type cannot hold
        return array.astype(draw(st.sampled_from(TYPES)))


@st.composite
def programs(draw, shape):
    torch.manual_seed(draw(st.integers(0, 99)))
    if len(shape) == 1 and draw(st.booleans()):
        return Minimal(shape)
    kind = draw(st.sampled_from([VAE, VAE, VAE, Autoencoder]))
    name = draw(st.sampled_from(sorted(LIKELIHOODS)))
    if name in CODES:
        return kind(shape, 2, (4,), likelihood=LIKELIHOODS[name](shape, classes=3))
    if name == "columns":
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=shape[0], max_size=shape[0]))
        known = [{"name": f"{i}", "kind": k, "categories": "abc"} for i, k in enumerate(kinds)]
        return kind(shape, 2, (4,), columns=known if len(shape) == 1 else None)
    return kind(shape, 2, (4,), likelihood=name)


def one_line(error):
    assert "\n" not in str(error)
    assert len(str(error)) > 20


def assert_sensible(figures, count):
    for name, estimate in figures.items():
        assert math.isfinite(estimate.mean), name
        assert estimate.n == count
        assert estimate.stderr >= 0 if count > 1 else math.isnan(estimate.stderr)


def assert_adds_up(elbo, reconstruction, kl):
    """As float32 has it, of which the terms are."""
    size = abs(elbo) + abs(reconstruction) + abs(kl)
    assert abs(elbo - (reconstruction - kl)) <= 1e-5 * size + 1e-5


ONCE = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.filterwarnings("ignore::ppl_vae.training.trainer.DivergenceWarning")
@settings(ONCE, max_examples=400)
@given(arrays(st.integers(1, 9) | st.integers(12, 60)), st.data())
def test_fit_and_evaluate_work_or_refuse(array, choices):
    try:
        binarize = choices.draw(st.sampled_from(["none"] * 4 + ["fixed", "dynamic"]))
        data = ppl_vae.make_data(array, binarize=binarize)
        program = choices.draw(programs(data.shape))
        before = {k: v.clone() for k, v in program.state_dict().items()}
        epochs = choices.draw(st.integers(1, 2))
        batch = choices.draw(st.integers(1, 9))
        how = Settings(epochs=epochs, batch_size=batch, engine="eager")
        history = ppl_vae.fit(program, data, how, progress=False)
    except InputError as error:
        one_line(error)
        if "program" in locals():  # as it was, or with the last good weights
            assert all(v.isfinite().all() for v in program.state_dict().values())
            assert before.keys() == program.state_dict().keys()
        return
    assert all(v.isfinite().all() for v in program.state_dict().values())
    assert 1 <= history.best_epoch <= len(history.epochs) == epochs
    for row in history.epochs:
        loss = row.pop("loss")  # NaN where the fit has gone back from every step of an epoch
        assert math.isfinite(loss) or row["learning_rate"] < how.learning_rate / 5
        assert all(map(math.isfinite, row.values())) or len(data.validation) == 1
        if "elbo" in row:
            assert_adds_up(row["elbo"], row["reconstruction"], row["kl"])
    x = data.fixed("test")
    try:
        found = ppl_vae.score(program, x, draws=5)
    except InputError as error:
        one_line(error)
        return
    assert_sensible(found.estimates(), len(x))
    chain = {name: values.tolist() for name, values in found.per_datum.items()}
    if "elbo" in chain:
        for terms in zip(chain["elbo"], chain["reconstruction"], chain["kl"], strict=True):
            assert_adds_up(*terms)
        # The mean of logarithms is at most the logarithm of the mean, on any draws.
        slack = 1e-12 * np.abs(chain["elbo"])
        assert (np.subtract(chain["iw_bound"], chain["elbo"]) >= -1e-12 - slack).all()
        total = found.ledger().elbo.mean
        assert abs(total - found.estimates()["elbo"].mean) <= 1e-5 * (1 + abs(total))


# What each question needs, so that it answers.
EFFORT = Effort(data_points=100, draws=400, simulations=100, gap_points=10, nuts_points=1)


@settings(ONCE, max_examples=5, phases=[Phase.generate])  # to shrink one takes minutes
@given(arrays(st.integers(1000, 1100)), st.data())
def test_diagnose_answers_or_refuses(array, choices):
    try:
        data = ppl_vae.make_data(array)
        program = choices.draw(programs(data.shape))
        diagnosis = ppl_vae.diagnose(program, data, EFFORT)
    except InputError as error:
        one_line(error)
        return
    assert len(diagnosis.verdicts) == 10
    for verdict in diagnosis.verdicts.values():
        assert verdict.grade in GRADES
        assert verdict.meaning
        if verdict.grade in ("pass", "caution", "fail"):
            assert math.isfinite(verdict.value)
            assert verdict.error is None or verdict.error >= 0
        assert "it met" not in verdict.meaning, verdict.meaning  # an exception of ours
    assert diagnosis.inference_data.diagnostics.sizes["datum"] == 100
