"""Do the observed data look like the model's own? Data of the model, and data that are not."""

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.misspecification import ask_misspecification, compare

from . import programs, tables
from .yardsticks import draw, ppca, with_covariates

ALARM = ("caution", "fail")
PROGRAM = ppca()


def ask(x, program=PROGRAM, simulations=1000, seed=0, rows=None):
    answer = ask_misspecification(Posterior(program, x, rows), simulations, seed)
    return answer.verdict, answer.groups["misspecification"]


def with_outliers(share, seed=0, size=1000):
    x = draw(PROGRAM, size, seed)
    x[: int(share * size)] += 5 * torch.randn(int(share * size), 6)
    return x


@pytest.mark.parametrize("seed", range(3))
def test_data_of_the_model_pass(seed):
    verdict, found = ask(draw(PROGRAM, 1000, seed), seed=seed)
    assert verdict.grade == "pass"
    assert abs(float(found["share"])) < 4 * float(found["share_error"])
    assert float(found["mmd_p_value"]) > 0.005
    assert float(found["total_variation"]) < 3 * float(found["total_variation_error"])


def test_p_values_of_data_of_the_model_are_uniform():
    p = np.concatenate(
        [ask(draw(PROGRAM, 400, s), seed=s, simulations=400)[1]["p_value"] for s in range(5)]
    )
    # 2,000 of them share 5 sets of simulations, which adds as much again.
    for level in (0.05, 0.5):
        assert abs((p <= level).mean() - level) < 4 * (2 * level * (1 - level) / len(p)) ** 0.5


@pytest.mark.parametrize("share", [0.02, 0.1])
def test_outliers_are_found_and_named(share):
    rows = torch.arange(1000) + 5000
    verdict, found = ask(with_outliers(share), rows=rows)
    assert verdict.grade == "caution"
    assert abs(float(found["share"]) - share) < 4 * float(found["share_error"])
    named = verdict.meaning.split("rows ")[1].split(")")[0].split(", ")
    assert {int(row) - 5000 for row in named} <= set(range(int(share * 1000)))
    assert f"of 1000 data look like none" in verdict.meaning  # noqa: F541


@pytest.mark.parametrize("change", [lambda x: x * 0.5, lambda x: x + 1.5, lambda x: x.abs() + 2])
def test_data_of_another_law_are_told_from_simulated_ones(change):
    verdict, found = ask(change(draw(PROGRAM, 1000)))
    assert verdict.grade == "fail"
    assert float(found["mmd_p_value"]) == 0.002
    assert "tells observed from simulated" in verdict.meaning


def test_another_noise_is_seen_by_the_evidence():
    # The guide's means hardly change: variances of E[z|x] are 0.8 and 0.5 of 1 in either case.
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1000, 2, generator=generator, dtype=torch.float64)
    noise = torch.distributions.StudentT(torch.tensor(3.0).double()).sample((1000, 6))
    x = z @ PROGRAM.loading.T.detach() + noise / 3**0.5
    assert ask(x)[0].grade in ALARM


def test_the_bound_on_total_variation_is_one():
    # Two normals that far apart have 2 Phi(d / 2) - 1, and a classifier cannot do better.
    rng = np.random.default_rng(0)
    found = compare(rng.normal(size=(800, 1)) + 1, rng.normal(size=(800, 1)), rng)
    exact = 0.3829
    assert found.variation < exact + 3 * found.error
    assert found.variation > exact - 4 * found.error  # for one dimension it is nearly the best
    # The squared discrepancy in closed form, for the kernel's own width (Gretton et al. 2012).
    many = rng.normal(size=(4000, 1))
    pooled = np.concatenate([many, many + 1])
    width = np.median(np.square(pooled[:4000] - rng.permutation(pooled)[:4000]))
    both = 2 * np.sqrt(width / (width + 2)) * (1 - np.exp(-1 / (2 * (width + 2))))
    assert found.mmd == pytest.approx(both, abs=0.03)


def test_the_two_sample_test_has_its_level():
    rng = np.random.default_rng(0)
    p = np.array([
        compare(rng.normal(size=(60, 2)), rng.normal(size=(80, 2)), rng).p_value for _ in range(60)
    ])  # fmt: skip
    assert (p <= 0.1).sum() <= 14  # binomial(60, 0.1): more with a probability of 0.001
    assert abs(p.mean() - 0.5) < 4 / 720**0.5


def test_covariates_are_those_of_the_data():
    for kind in (tables.Incomplete, tables.Conditional):
        program, batch = with_covariates(kind, 300)
        assert ask(batch, program, 300)[0].grade not in ALARM


@pytest.mark.parametrize("name", ["TwoLayers", "Discrete", "Planar"])
def test_every_kind_of_program_is_asked(name):
    torch.manual_seed(0)
    program = getattr(programs, name)()
    x = ppl_vae.prior_predictive(program, (5,), 300).x
    verdict, found = ask(x, program, 300)
    assert verdict.grade not in ALARM
    for array in found.values():
        assert {"long_name", "units"} <= set(array.attrs)


def test_too_few_data_say_nothing():
    with pytest.raises(ppl_vae.InputError, match="too uncertain"):
        ask(draw(PROGRAM, 19))
