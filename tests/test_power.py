"""False alarms and power: the benchmark's own table, for a few seeds."""

import pytest
import torch

from ppl_vae import Posterior

from .conftest import load_benchmark

ALARM = ("caution", "fail")


@pytest.fixture(scope="module")
def power():
    return load_benchmark("diagnostic_power")


def grades(power, seed, *faults):
    return power.one_seed(("linear-gaussian", seed, faults, power.QUESTIONS))


@pytest.mark.parametrize("seed", range(1000, 1003))
def test_every_fault_is_caught_by_the_question_that_should_catch_it(power, seed):
    # Each fault is missed with a probability of at most 0.05, by the table of 100 seeds in docs/.
    found = grades(power, seed, *power.SHOULD_CATCH)
    for fault, question in power.SHOULD_CATCH.items():
        if question:
            assert found[fault][question] in ALARM, fault
    assert not [q for q in power.QUESTIONS if found["none"][q] in ALARM]
    # What a question cannot see is seen by another: a wide guide has bounded weights.
    assert found["scale doubled"]["coverage"] == "pass"
    assert found["collapsed to the prior"]["generation"] not in ALARM


@torch.no_grad()
def test_a_fault_is_what_it_says(power):
    program = power.linear_gaussian()
    x = torch.zeros(1, 8, dtype=torch.float64)
    exact = program.posterior(x)
    halved = power.spoilt(exact, "scale halved")
    assert torch.allclose(halved.stddev, exact.stddev / 2)
    moved = power.spoilt(exact, "mean shifted by sd/2")
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
