"""False alarms and power: the benchmark's own table, for a few seeds."""

import json
import sys

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
    """Grades by fault and question, of those questions that a fault is put to."""
    answers = power.one_seed(("linear-gaussian", seed, faults))["answers"]
    return {f: {q: a[0] for q, a in asked.items()} for f, asked in answers.items()}


def test_no_alarm_without_a_fault_and_one_with_it(power):
    found = grades(power, 1000, "none", "mean shifted by sd/2", "collapsed to the prior")
    assert set(found["none"]) == {"calibration", "collapse", "generation", "local"}
    assert not [q for q, grade in found["none"].items() if grade in ALARM]
    assert found["mean shifted by sd/2"]["calibration"] in ALARM
    assert found["collapsed to the prior"]["collapse"] in ALARM


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1001, 1002])
def test_every_fault_is_caught_by_the_question_that_should_catch_it(power, seed):
    faults = power.faults_of("linear-gaussian")
    found = grades(power, seed, *faults)
    for fault in faults:
        if question := power.catcher("linear-gaussian", fault):
            assert found[fault][question] in ALARM, fault


def test_what_was_measured_is_kept_and_shown(power, tmp_path, capsys, monkeypatch):
    kept = tmp_path / "answers.jsonl"
    answers = {fault: {"calibration": ["fail", 0.3, 0.01]} for fault in power.faults_of("classes")}
    line = {"model": "classes", "seed": 0, "seconds": 60, "answers": answers}
    kept.write_text(json.dumps(line) + "\n")
    words = ["power", "--model", "classes", "--seeds", "1", "--output", str(kept)]
    monkeypatch.setattr(sys, "argv", words)
    power.main()
    assert "| none | - | 1 (1) | - |" in capsys.readouterr().out
    assert len(kept.read_text().splitlines()) == 1


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
    spread = Posterior(program, x).log_weight(4000).std(0)
    # The curve's posterior, of standard deviation sd, is constant within steps: that leaves log
    # weights a deviation of step / (sd * 12 ** 0.5), and sd is 0.3 / (2 |z|) with |z| < 4.
    assert spread.max() < (0.16 if name == "curve" else 1e-12)
