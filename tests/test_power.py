"""False alarms and power: the benchmark's own table, for a few seeds."""

import pytest
import torch

import ppl_vae
from ppl_vae import Posterior

from .conftest import load_benchmark

ALARM = ("caution", "fail")


@pytest.fixture(scope="module")
def power():
    return load_benchmark("diagnostic_power")


def grades(power, seed, *faults):
    return power.one_seed(("linear-gaussian", seed, faults, power.QUESTIONS))


@pytest.mark.parametrize(
    "seed", [1000, *(pytest.param(n, marks=pytest.mark.slow) for n in (1001, 1002))]
)
def test_every_fault_is_caught_by_the_question_that_should_catch_it(power, seed):
    faults = [fault for fault in power.SHOULD_CATCH if fault not in power.NOT_OF["linear-gaussian"]]
    found = grades(power, seed, *faults)
    for fault in faults:
        if question := power.SHOULD_CATCH[fault]:
            assert found[fault][question] in ALARM, fault
    assert not [q for q in power.QUESTIONS if found["none"][q] in ALARM]
    # What a question cannot see is seen by another: a wide guide has bounded weights.
    assert found["scale doubled"]["coverage"] == "pass"
    assert found["collapsed to the prior"]["generation"] not in ALARM


@torch.no_grad()
def test_a_fault_is_what_it_says(power):
    spoilt = load_benchmark("power_faults").spoilt
    program = power.linear_gaussian()
    x = torch.zeros(1, 8, dtype=torch.float64)
    exact = program.posterior(x)
    where = tuple(torch.zeros(1, dtype=torch.float64) for _ in range(3))
    halved = spoilt(exact, "scale halved", where)
    assert torch.allclose(halved.stddev, exact.stddev / 2)
    moved = spoilt(exact, "mean shifted by sd/2", where)
    assert torch.allclose((moved.mean - exact.mean) / exact.stddev, torch.tensor(0.5).double())
    correlated = power.linear_gaussian(correlated=True).posterior(x).covariance_matrix[0]
    assert correlated[0, 1] / correlated[0, 0] == pytest.approx(0.9)


@pytest.mark.slow
def test_false_alarms_of_calibration_are_rarer_than_stated(power):
    # The only question with chance in it on an exact guide: 0.005 by its levels.
    from ppl_vae.diagnostics.calibration import ask_calibration

    program = power.linear_gaussian()
    alarms = sum(
        ask_calibration(Posterior(program, torch.zeros(2, 8)), 500, seed).verdict.grade in ALARM
        for seed in range(1000)
    )
    assert alarms <= 14  # binomial(1000, 0.005): more with a probability of 0.0002


@pytest.mark.parametrize("name", ["hierarchy", "classes", "curve"])
def test_the_guides_that_faults_are_put_into_are_exact(name):
    program = load_benchmark("exact_programs").PROGRAMS[name]()
    x = ppl_vae.prior_predictive(program, program.data_shape, 50, seed=1).x
    spread = Posterior(program, x).log_weight(100).std(0)
    # Of the curve the posterior is known on a grid.
    assert spread.max() < (0.05 if name == "curve" else 1e-12)
