"""The shell on a fitted run: its verdicts and its report."""

import json

import pytest

import ppl_vae
from ppl_vae.storage.arviz_io import read_inference_data

QUICK = [
    *("--data-points", 120, "--draws", 400, "--simulations", 500),
    *("--gap-points", 12, "--nuts-points", 1),
]
QUESTIONS = [
    *("coverage", "calibration", "gaps", "reference", "collapse", "generation"),
    *("certificate", "local", "misspecification", "posterior_sbc"),
]


def test_diagnose_shows_and_writes_verdicts_and_report(fitted, tmp_path):
    code, out, err = fitted("diagnose", "run", *QUICK)
    assert code == 0, err
    for word in ("Is q(z|x) calibrated?", "Try:", "report: run/report.html"):
        assert word in out
    assert (tmp_path / "run/report.html").read_text().startswith("<!doctype html>")
    idata = read_inference_data(tmp_path / "run/results/diagnosis.nc")
    assert idata.diagnostics.sizes["datum"] == 120
    code, out, _ = fitted("diagnose", "run", *QUICK, "--json")
    found = json.loads(out)
    assert code == 0
    assert list(found["verdicts"]) == QUESTIONS
    written = json.loads((tmp_path / "run/results/diagnosis.json").read_text())
    written.pop("sha256")  # of the files, which standard output is none of
    # By question in the file; once each, and of this run, on standard output.
    by_question = written.pop("remedies")
    ready = {remedy["key"]: remedy["questions"] for remedy in found.pop("remedies")}
    for question, remedies in by_question.items():
        assert all(question in ready[remedy["key"]] for remedy in remedies)
    assert written == {k: v for k, v in found.items() if k not in ("results", "report")}
    (tmp_path / "run/report.html").unlink()
    code, out, _ = fitted("report", "run")
    assert code == 0
    assert out == "report: run/report.html\n"
    first = (tmp_path / "run/report.html").read_text()
    code, _, _ = fitted("report", "run", "--output", "other.html")
    assert code == 0
    assert (tmp_path / "other.html").read_text() == first


def test_every_option_of_diagnose_reaches_it(fitted, monkeypatch):
    seen = {}

    def examine(program, data, effort, seed):
        seen.update(effort=effort, seed=seed)
        raise ppl_vae.InputError("draws=2", "were seen")

    monkeypatch.setattr("ppl_vae.diagnostics.diagnosis.Examination", examine)
    words = [*("--data-points", 1, "--draws", 2, "--simulations", 3), "--gap-points", 4]
    code, _, err = fitted("diagnose", "run", *words, "--nuts-points", 5, "--seed", 6)
    assert (code, err) == (2, "error: --draws 2 were seen\n")
    assert seen == {"effort": ppl_vae.Effort(1, 2, 3, 4, 5), "seed": 6}


def test_an_autoencoder_is_diagnosed_as_far_as_it_goes(shell):
    code, _, _ = shell(
        *("train", "--model", "autoencoder", "--epochs", 1, "--hidden", 8, "--output", "run")
    )
    assert code == 0
    code, out, _ = shell("diagnose", "run", *QUICK, "--json")
    assert code == 0
    grades = [verdict["grade"] for verdict in json.loads(out)["verdicts"].values()]
    assert grades[:5] == grades[6:9] + ["cannot say"] * 2 == ["cannot say"] * 5
    assert grades[5] in ("pass", "caution", "fail")


def test_results_that_can_be_nowhere_are_refused_before_any_work(fitted, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "ppl_vae.diagnostics.diagnosis.Examination", lambda *_: pytest.fail("work was done")
    )
    (tmp_path / "run/results").write_text("a file")
    code, _, err = fitted("diagnose", "run", *QUICK)
    assert code == 2
    assert "run/results cannot be made" in err
