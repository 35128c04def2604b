"""The joint reading: what the rules say of verdicts, made up and of injected faults."""

import itertools
import json

import pytest
import xarray

import ppl_vae
from ppl_vae import Posterior
from ppl_vae.diagnostics.calibration import ask_calibration
from ppl_vae.diagnostics.collapse import ask_collapse
from ppl_vae.diagnostics.coverage import ask_coverage
from ppl_vae.diagnostics.diagnosis import Diagnosis, read_diagnosis, write_diagnosis
from ppl_vae.diagnostics.reading import RULES, Answers, chosen_rules, read
from ppl_vae.diagnostics.report import render
from ppl_vae.diagnostics.verdicts import GRADES, Verdict
from ppl_vae.storage.arviz_io import as_inference_data

from .conftest import load_benchmark

QUESTIONS = ("coverage", "calibration", "gaps", "reference", "collapse", "generation")
NEW = ("certificate", "misspecification")


def verdicts(default="pass", questions=(*QUESTIONS, *NEW), **grades):
    """A verdict for each question."""
    return {
        key: Verdict("?", grades.get(key, default), "...", value=0.5, error=0.1)
        for key in questions
    }


@pytest.mark.parametrize(
    ("grades", "words"),
    [
        ({}, "No fault was found. Use z and its intervals as they are."),
        ({"reference": "cannot say"}, "but some questions have no answer: reference."),
        ({"collapse": "fail", "calibration": "fail"}, "has collapsed"),
        ({"collapse": "fail"}, "Do not use z: it says nothing"),
        ({"collapse": "caution", "calibration": "fail", "gaps": "fail"}, "ignores latent units"),
        ({"calibration": "fail", "coverage": "caution", "gaps": "fail"}, "too narrow"),
        ({"calibration": "caution", "gaps": "caution"}, "too wide or shifted"),
        ({"calibration": "caution"}, "on these data no fault of it was found"),
        ({"gaps": "caution", "generation": "caution"}, "The model is what is wrong first"),
        ({"gaps": "fail", "misspecification": "fail"}, "The model is what is wrong first"),
        ({"gaps": "caution", "generation": "fail"}, "The guide is off too, by less"),
        ({"reference": "caution"}, "its family is too small for some of them"),
        ({"generation": "fail"}, "the guide is its posterior"),
        ({"generation": "fail"}, "Do not take samples of the model for data"),
        ({"misspecification": "caution"}, "of data that are unlike the model's they say little"),
        ({"gaps": "fail"}, "The ELBO is 0.50 ± 0.10 nats below log p(x): compare models by the"),
        ({"gaps": "fail", "coverage": "fail"}, "compare models by annealed bounds"),
        ({"gaps": "cannot say"}, "importance weights are reliable"),
        ({"certificate": "fail"}, "half a posterior standard deviation"),
    ],
)
def test_what_is_said(grades, words):
    assert words in read(verdicts(**grades))


def test_what_is_said_where_nothing_is_known():
    for found in ({}, verdicts("cannot say")):
        text = read(found)
        assert "nothing is known" in text
        assert "Use z" not in text
        assert text.count("not known") == 3


def test_the_guide_of_which_nothing_is_known_is_not_praised():
    text = read(verdicts("cannot say", generation="fail"))
    assert "Of the guide little is known" in text
    assert "Whether z can be used is not known." in text


@pytest.mark.parametrize("asked", [QUESTIONS, (*QUESTIONS, *NEW)])
def test_every_combination_of_grades_is_read(asked):
    spoken = set()
    for grades in itertools.product(GRADES, repeat=6):
        found = verdicts("pass", asked, **dict(zip(QUESTIONS, grades, strict=True)))
        answers = Answers(found)
        rules = chosen_rules(answers)
        assert [rule.subject for rule in rules] == ["cause", "latents", "samples", "evidence"]
        spoken |= set(rules)
        text = " ".join(rule.says for rule in rules)
        if "fail" in grades:
            assert "No fault was found" not in text
            assert "Use z and its intervals as they are" not in text or grades[5] == "fail"
        if set(grades) == {"pass"}:
            assert "wrong" not in text
        if grades[1] == "fail" or grades[4] == "fail":  # calibration, collapse
            assert "Do not use" in text
    if asked == QUESTIONS:  # all but what hangs on questions that were not asked
        assert len(RULES) - len(spoken) <= 2


FAULTS = {
    "none": ("No fault was found", "Use z and its intervals as they are"),
    "scale halved": ("too narrow", "Do not use means or intervals of z"),
    "scale doubled": ("The guide is what is wrong", "Do not use means or intervals of z"),
    "one unit collapsed": ("ignores latent units", "Do not use means or intervals of z"),
    "collapsed to the prior": ("has collapsed", "Do not use z: it says nothing of x"),
}


@pytest.mark.parametrize(("fault", "words"), FAULTS.items())
def test_injected_faults_are_named(fault, words):
    power = load_benchmark("diagnostic_power")
    program = power.Faulty(power.linear_gaussian(), fault)
    x = ppl_vae.prior_predictive(program, (8,), 200, seed=1).x
    posterior = Posterior(program, x)
    text = read(
        {
            "coverage": ask_coverage(posterior, 400, 1).verdict,
            "calibration": ask_calibration(posterior, 4000, 1).verdict,
            "collapse": ask_collapse(posterior, 1).verdict,
        }
    )
    for sentence in words:
        assert sentence in text


def test_it_stands_first_wherever_a_diagnosis_is_shown(tmp_path):
    found = Diagnosis(verdicts(generation="fail"), as_inference_data({}, {}), {"seed": 0})
    assert found.reading.startswith("The model is what is wrong")
    assert str(found).splitlines()[0] == found.reading
    assert found.as_dict()["reading"] == found.reading
    page = render(found)
    assert page.index("The model is what is wrong") < page.index('id="coverage"')


def test_it_is_read_again_from_what_was_written(tmp_path):
    groups = {"diagnostics": xarray.Dataset({"k_hat": ("datum", [0.1, 0.2])})}
    found = Diagnosis(verdicts(gaps="fail"), as_inference_data(groups, {}), {"seed": 0})
    _, beside = write_diagnosis(tmp_path, found)
    assert json.loads(beside.read_text())["reading"] == found.reading
    again = read_diagnosis(tmp_path)
    assert again.reading == found.reading
    assert again.about == found.about
