"""Question 6: predictive checks, on models that are right, wrong, and that copy."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import ppl_vae
from ppl_vae import Batch, InputError, Posterior
from ppl_vae.diagnostics.generation import ask_generation

from .conftest import load_benchmark
from .yardsticks import draw, ppca, with_covariates

ALARM = ("caution", "fail")


def ask(program, train, test, seed=0, quantities=None):
    return ask_generation(Posterior(program, test), Batch.of(train), seed, quantities=quantities)


def alarms(answer):
    found = answer.groups["generation"]
    return set(found["finding"].values[found["grade"].isin(ALARM).values].tolist())


class Copies(nn.Module):
    """Draws its training data in a share of its draws, with some noise; else standard normals."""

    def __init__(self, train, share=1.0, noise=0.0):
        super().__init__()
        self.share, self.noise = share, max(noise, 1e-30)
        self.register_buffer("kept", train)
        self.zero = nn.Parameter(torch.zeros((), dtype=train.dtype))

    def latents(self, x):
        copied = pyro.sample("copied", dist.Bernoulli(self.zero + self.share))
        # The row, as a place in (0, 1): classes by the hundred are slow to draw.
        place = pyro.sample("place", dist.Uniform(self.zero, self.zero + 1))
        return copied[..., None], self.kept[(place * len(self.kept)).long()]

    def model(self, x):
        pyro.module(f"copies-{id(self)}", self)
        with pyro.plate("data", len(x)):
            copied, datum = self.latents(x)
            scale = torch.where(copied > 0, self.noise, 1.0)
            pyro.sample("x", dist.Normal(copied * datum, scale).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"copies-{id(self)}", self)
        with pyro.plate("data", len(x)):
            self.latents(x)


class Table(nn.Module):
    """Independent binary columns: data that repeat by nature."""

    def __init__(self, columns):
        super().__init__()
        self.columns, self.zero = columns, nn.Parameter(torch.zeros(()))

    def model(self, x):
        pyro.module(f"table-{id(self)}", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.zero, 1.0))
            logits = (0.5 * z)[..., None].expand(*z.shape, self.columns)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"table-{id(self)}", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.mean(-1) + self.zero, 1.0))


def test_the_model_that_made_the_data_passes():
    # Where the data are its own, an alarm has a probability of 0.01 at most.
    program, found = ppca(), []
    for seed in range(6):
        x = draw(program, 2000, seed)
        found.append(ask(program, x[1000:], x[:1000], seed).verdict.grade)
    assert not set(found) & set(ALARM)
    assert found.count("pass") >= 4  # the rest may be too close to tell


def test_a_few_data_are_too_few_for_a_pass_and_the_verdict_says_how_many_are_not():
    program = ppca()
    x = draw(program, 600)
    verdict = ask(program, x[200:], x[:200]).verdict
    assert verdict.grade == "cannot say"
    assert "too few" in verdict.meaning
    assert "more data" in verdict.remedy


def test_pit_of_the_right_model_is_uniform():
    program = ppca()
    p = [
        ask(program, draw(program, 200, s), draw(program, 200, s + 1), s).groups["generation"]
        for s in range(0, 20, 2)
    ]
    p = np.concatenate([found["pit_p_value"].values for found in p])
    assert len(p) == 60
    assert (p < 0.05).sum() <= 9  # binomial(60, 0.05): more with a probability of 0.001
    assert (p < 0.5).sum() >= 18  # fewer with a probability of 0.001


def test_posterior_predictive_p_values_are_those_of_the_models_own_data_under_any_guide():
    # A guide that is wrong changes p-values, but of held-out data and of draws alike.
    program = ppca()
    with torch.no_grad():
        program.encoder.bias.add_(1.0)
    x = draw(program, 1400)
    found = ask(program, x[400:], x[:400]).groups["generation"]
    p = found["p_value_total"].values
    assert p.shape == (400,)
    assert ((p > 0) & (p < 1)).all()
    assert (found["grade"].sel(finding="replicated total") != "fail").all()
    assert not found["grade"].isin(ALARM).any()


def test_a_model_of_other_data_fails_and_says_in_what():
    program = ppca()
    x = draw(program, 1500)
    answer = ask(program, 3 * x[300:], 3 * x[:300])
    assert answer.verdict.grade == "fail"
    assert "under-dispersed" in answer.verdict.meaning
    assert {"PIT", "radius", "spread"} <= alarms(answer)
    assert (answer.groups["generation"]["pit_p_value"] < 1e-4).all()


def test_a_model_that_is_under_dispersed_is_not_said_to_copy():
    program = ppca(dim=20)
    for factor in (1.3, 5.0, 20.0):
        x = factor * draw(program, 1500)
        answer = ask(program, x[500:], x[:500])
        assert answer.verdict.grade in ALARM
        assert "under-dispersed" in answer.verdict.meaning
        assert not alarms(answer) & {"copies", "near copies"}


@pytest.mark.parametrize(("share", "noise"), [(1.0, 0.05), (0.15, 0.0), (0.15, 1e-3), (0.05, 0.01)])
def test_a_model_that_copies_its_training_data_is_caught(share, noise):
    torch.manual_seed(0)
    x = torch.randn(1500, 8, dtype=torch.float64)
    answer = ask(Copies(x[500:], share, noise), x[500:], x[:500])
    assert answer.verdict.grade == ("fail" if share > 0.1 else "caution")
    assert "nearer to a training data point" in answer.verdict.meaning
    found = answer.groups["generation"].sel(finding="copies")
    assert abs(float(found["value"]) - share) < 4 * float(found["error"])
    exact = float((answer.groups["generation"]["prior_distance"] == 0).mean())
    assert f"({exact:.1%} of draws are exact copies" in answer.verdict.meaning
    assert (exact > 0.1) == (noise == 0.0)


def test_data_that_repeat_by_nature_are_no_copies():
    program = Table(8)
    torch.manual_seed(0)
    x = ppl_vae.prior_predictive(program, (8,), 1400, 3).x
    answer = ask(program, x[400:], x[:400])
    found = answer.groups["generation"]
    assert (found["test_distance"] == 0).mean() > 0.5
    assert not alarms(answer)


def test_false_alarms_of_copies_are_as_rare_as_stated():
    # In many dimensions too, where draws share their nearest neighbours.
    from ppl_vae.diagnostics.copies import copies, two_nearest

    rng, found = np.random.default_rng(0), 0
    for _ in range(200):
        train, held_out, drawn = (
            torch.as_tensor(rng.normal(size=(n, 50))) for n in (300, 100, 300)
        )
        sides = two_nearest(held_out, train), two_nearest(drawn, train)
        found += any(f.p_value < 0.01 for f in copies(*sides))
    assert found <= 11  # binomial(200, 0.02): more with a probability of 0.001


FAULTS = ("t noise", "2 % outliers", "one column skewed", "columns correlated")


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught_by_what_should_catch_them(fault):
    # By the table of docs/diagnostics.md, in at least 95 of 100 seeds.
    power = load_benchmark("generation_power")
    should = {
        "t noise": {"residual", "worst_residual", "outliers: worst_residual"},
        "2 % outliers": {"outliers: extreme", "outliers: radius"},
        "one column skewed": {"PIT"},
        "columns correlated": {"correlation"},
    }[fault]
    for program, train, x, seed in power.cases("linear-gaussian", fault, 1000, range(900, 902)):
        answer = ask(program, train, x, seed)
        assert answer.verdict.grade in ALARM
        assert alarms(answer) & should


def test_a_mask_says_what_is_compared():
    # What was not observed is zero in the data, and drawn by the model.
    from .tables import Incomplete

    program, batch = with_covariates(Incomplete, 700)
    filled = Batch({**batch, "x": torch.where(batch["mask"], batch.x, 99.0)})
    answer = ask(program, filled.rows(slice(300, None)), filled.rows(slice(300)))
    assert not alarms(answer)


def test_quantities_of_the_user_are_graded_and_kept():
    program = ppca()
    x = draw(program, 1500)
    ordered = x.clone()
    ordered[:, :2] = ordered[:, :2].sort(-1).values  # of which the model knows nothing

    def climb(x):
        return x[:, 1] - x[:, 0]

    answer = ask(program, ordered[500:], ordered[:500], quantities={"climb": climb})
    found = answer.groups["generation"]
    assert "climb" in alarms(answer)
    assert np.allclose(found["test_climb"], climb(ordered[:500]))
    assert {"prior_climb", "posterior_climb", "p_value_climb"} <= set(found)
    assert "climb" in found["quantity"]


@pytest.mark.parametrize(
    ("quantities", "match"),
    [
        ([torch.sum], "quantities must map names"),
        ({"a b": torch.sum}, "'a b' must have a name"),
        ({"total": torch.sum}, "'total' has the name of another"),
        ({"mean": torch.sum}, "'mean' has the name of another"),
        ({"five": 5}, "'five' must be a function"),
        ({"all": torch.sum}, r"'all' must give one number for each of 200 .* shape \(\)"),
        ({"same": lambda x: x}, "'same' must give one number"),
        ({"array": lambda x: x.sum(1).numpy()}, "'array' must give a tensor, got ndarray"),
        ({"log": lambda x: x.sum(1).log()}, "'log' must give finite"),
        ({"off": lambda x: x.sum(7)}, "'off' raised IndexError"),
        ({"scaled": lambda x: x[:, 0] / x.std()}, "'scaled' depends on other data points"),
        ({"noise": lambda x: torch.rand(len(x))}, "'noise' depends on .* chance"),
    ],
)
def test_bad_quantities_are_refused_by_name(quantities, match):
    program = ppca()
    x = draw(program, 400)
    with pytest.raises(InputError, match=match):
        ask(program, x[200:], x[:200], quantities=quantities)
    data = ppl_vae.make_data(draw(program, 2000))
    match = match.replace("200 ", r"\d+ ")
    with pytest.raises(InputError, match=match):  # before any question is asked
        ppl_vae.diagnose(program, data, quantities=quantities)


def test_images_keep_their_shape():
    from ppl_vae.models import VAE

    data = ppl_vae.load_data("digits", binarize="dynamic")
    vae = VAE(data.shape, latent_dim=2, hidden=(16,))
    answer = ask(vae, data.fixed("train"), data.fixed("test"))
    found = answer.groups["generation"]
    assert found["pit_p_value"].shape == found["prior_mean"].shape == (1, 8, 8)
    assert found["test_mean"].values == pytest.approx(data.fixed("test").mean(0).numpy(), abs=1e-6)
    assert "pixel (0, " in str(found["words"].sel(finding="PIT").values)


def test_the_same_seed_gives_the_same_answer():
    program = ppca()
    x = draw(program, 400)
    one, other = (ask(program, x[200:], x[:200], 3).groups["generation"] for _ in range(2))
    assert one.identical(other)


def test_too_few_data_say_nothing():
    program = ppca()
    with pytest.raises(InputError, match="at least 100 of each"):
        ask(program, draw(program, 500), draw(program, 99))
