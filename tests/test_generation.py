"""Question 6: predictive checks, on models that are right, wrong, and that copy."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae
from ppl_vae import Batch, Posterior
from ppl_vae.diagnostics.generation import ask_generation, nearer, nearest

from .yardsticks import draw, ppca


def ask(program, train, test, seed=0):
    return ask_generation(Posterior(program, test), Batch(x=train), seed)


class Copies(nn.Module):
    """Draws its training data, with next to no noise: all it knows is where they are."""

    def __init__(self, train):
        super().__init__()
        self.register_buffer("kept", train)
        self.logits = nn.Parameter(torch.zeros(len(train), dtype=train.dtype))

    def model(self, x):
        pyro.module(f"copies-{id(self)}", self)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            pyro.sample("x", dist.Normal(self.kept[k], 0.05).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"copies-{id(self)}", self)
        with pyro.plate("data", len(x)):
            far = torch.cdist(x, self.kept)
            pyro.sample("k", dist.Categorical(logits=self.logits - far))


def test_the_model_that_made_the_data_passes():
    program = ppca()
    alarms = 0
    for seed in range(10):
        x = draw(program, 1500, seed)
        answer = ask(program, x[300:], x[:300], seed)
        alarms += answer.verdict.grade != "pass"
        found = answer.groups["generation"]
        copied = found["nearer_train"].values.mean()
        assert abs(copied - 0.5) < 4.5 * (1301 / 12 / 1000 / 300) ** 0.5
    assert alarms == 0


def test_pit_of_the_right_model_is_uniform():
    program = ppca()
    p = [
        ask(program, draw(program, 200, s), draw(program, 200, s + 1), s).groups["generation"]
        for s in range(0, 40, 2)
    ]
    p = np.concatenate([found["pit_p_value"].values for found in p])
    assert len(p) == 120
    assert (p < 0.05).sum() <= 15  # binomial(120, 0.05): more with a probability of 0.0005
    assert (p < 0.5).sum() >= 30


def test_a_model_of_other_data_fails_and_says_in_what():
    program = ppca()
    x = draw(program, 1500)
    answer = ask(program, 3 * x[300:], 3 * x[:300])
    assert answer.verdict.grade == "fail"
    assert "spread" in answer.verdict.statistic or "total" in answer.verdict.statistic
    assert (answer.groups["generation"]["pit_p_value"] < 1e-4).all()


def test_a_model_that_copies_its_training_data_fails():
    x = torch.randn(3200, 8, dtype=torch.float64)
    answer = ask(Copies(x[200:]), x[200:], x[:200])
    assert answer.verdict.grade == "fail"
    assert answer.groups["generation"]["nearer_train"].values.mean() > 0.95


def test_nearest_distances_are_those_of_all_pairs():
    torch.manual_seed(0)
    x, others = torch.randn(300, 2, 3), torch.randn(70, 2, 3)
    slow = (x.flatten(1)[:, None] - others.flatten(1)[None]).square().sum(-1).sqrt().amin(1)
    assert np.allclose(nearest(x, others), slow.numpy(), atol=1e-4)


def test_distances_keep_their_digits_far_from_zero():
    torch.manual_seed(0)
    x = torch.randn(200, 5, dtype=torch.float64)
    near, far = nearest(x[:50], x[50:]), nearest(x[:50] + 1e6, x[50:] + 1e6)
    assert np.allclose(near, far, rtol=1e-6)


def test_false_alarms_of_copies_are_as_rare_as_stated():
    # In many dimensions too, where draws share their nearest neighbours.
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(200):
        train, held_out, drawn = (
            torch.as_tensor(rng.normal(size=(n, 50))) for n in (300, 100, 300)
        )
        share = nearer(nearest(drawn, train), nearest(held_out, train)).mean()
        alarms += share - 0.5 > 3 * (401 / 12 / 300 / 100) ** 0.5
    assert alarms <= 3  # binomial(200, 0.0013): more with a probability of 0.0002


def test_images_keep_their_shape():
    from ppl_vae.models import VAE

    data = ppl_vae.load_data("digits", binarize="dynamic")
    vae = VAE(data.shape, latent_dim=2, hidden=(16,))
    found = ask(vae, data.fixed("train"), data.fixed("test")).groups["generation"]
    assert found["pit_p_value"].shape == found["prior_mean"].shape == (1, 8, 8)
    assert found["test_mean"].values == pytest.approx(data.fixed("test").mean(0).numpy(), abs=1e-6)


def test_too_few_data_say_nothing():
    program = ppca()
    with pytest.raises(ppl_vae.InputError, match="at least 100 of each"):
        ask(program, draw(program, 500), draw(program, 99))
