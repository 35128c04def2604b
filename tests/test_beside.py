"""Verdicts side by side, on a page."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ppl_vae
from ppl_vae.diagnostics.beside import statistics, write_beside
from ppl_vae.diagnostics.diagnosis import write_diagnosis
from ppl_vae.diagnostics.verdicts import Verdict

from .strangers import some_diagnosis


def test_runs_side_by_side_show_the_verdicts_of_each(strangers_run, shell, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(strangers_run, other)
    found = some_diagnosis()
    worse = replace(found.verdicts["coverage"], grade="fail", value=0.75, error=0.03)
    write_diagnosis(other / "results", replace(found, verdicts={"coverage": worse}))
    code, out, err = shell("report", "run", "other")
    assert code == 0, err
    assert out == "report: run/side-by-side.html\n"
    page = Path("run/side-by-side.html").read_text()
    places = [page.index(words) for words in ("0.100 ± 0.010", "0.750 ± 0.030")]
    assert places == sorted(places)
    assert page.count('class="grade fail"') == page.count('class="grade pass"') == 1
    assert "<script" not in page


def test_runs_of_one_name_keep_what_tells_them_apart(strangers_run, shell):
    shutil.copytree(strangers_run, "deeper/run")
    code, _, err = shell("report", "run", "deeper/run", "--output", "both.html")
    assert code == 0, err
    assert "deeper/run" in Path("both.html").read_text()


@pytest.mark.filterwarnings("always::ppl_vae.diagnostics.report.OlderWeightsWarning")
def test_a_diagnosis_of_older_weights_says_so(strangers_run, shell, tmp_path):
    shutil.copytree(strangers_run, tmp_path / "other")
    found = some_diagnosis()
    of_others = replace(found, about={**found.about, "weights": "of another fit"})
    write_diagnosis(tmp_path / "other/results", of_others)
    code, _, err = shell("report", "run", "other")
    assert code == 0
    assert "other: These verdicts are of older weights" in err
    assert Path("run/side-by-side.html").read_text().count("older weights") == 1


def test_markup_in_names_is_text(tmp_path):
    evil = "<img src=x onerror=alert(1)>\x1b[31m"
    column = {evil: Verdict(evil, "fail", evil, evil, 1.0, 0.1)}
    write_beside(tmp_path / "a.html", {evil: column, "b": {}}, evil, [evil], {evil: evil})
    page = (tmp_path / "a.html").read_text()
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "Not asked" in page


def test_each_statistic_stands_where_its_value_is():
    before = {
        "gaps": Verdict("?", "fail", "...", value=2.0, error=0.1),
        "coverage": Verdict("?", "fail", "...", value=np.inf),
    }
    after = {"gaps": Verdict("?", "pass", "...", value=0.1, error=0.01)}
    (axes,) = statistics({"before": before, "after": after}).axes  # what is infinite has no place
    points = [line.get_xydata()[0].tolist() for line in axes.get_lines() if line.get_marker()]
    assert points == [[2.0, 0.0], [0.1, 1.0]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["before", "after"]


def test_nothing_is_refused(tmp_path):
    with pytest.raises(ppl_vae.InputError, match="no verdict"):
        write_beside(tmp_path / "a.html", {"a": {}}, "a", ["..."], {})
    assert list(tmp_path.iterdir()) == []
