"""Remedies are commands that work; a repair mends the guide and leaves the model as it is."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import xarray

import ppl_vae
from ppl_vae import Config, Effort, Settings
from ppl_vae.cli.app import app
from ppl_vae.diagnostics.remedies import OF_TRAIN, REMEDIES, RULES, choose, distinct
from ppl_vae.diagnostics.verdicts import Verdict
from ppl_vae.models import VAE, LinearGaussian
from ppl_vae.runs.directory import Run

QUICK = Effort(data_points=60, draws=400, simulations=500, gap_points=12, nuts_points=1)


def verdicts(**grades):
    return {
        key: Verdict(key, grade.replace("_", " "), "...", value=0.0, error=0.0)
        for key, grade in grades.items()
    }


def keys(found, question):
    return [remedy.key for remedy in found.get(question, [])]


def gaps(family, whole):
    found = {"approximation_gap": ("datum", [family]), "gap": ("datum", [whole])}
    return xarray.Dataset(found)


def test_remedies_follow_what_was_found():
    takes = frozenset({"guide"})
    failed = verdicts(gaps="fail", calibration="pass")
    of_family, of_network = (choose(failed, takes, gaps(part, 1.0)) for part in (0.9, 0.1))
    assert keys(of_family, "gaps")[0] == "refit-full"
    assert "refit" not in keys(of_family, "gaps")
    assert keys(of_network, "gaps")[0] == "refit"
    assert "refit-full" not in keys(choose(failed, frozenset()), "gaps")
    assert choose(verdicts(coverage="pass"), takes) == {}
    open_ = verdicts(coverage="cannot_say", calibration="cannot_say")
    assert keys(choose(open_, takes), "coverage") == ["more"]
    # There are no more data, but more can be simulated.
    assert choose(open_, takes, all_data=True).keys() == {"calibration"}
    # Only the guide's own data are off: what the model makes is what it lacks.
    simulated = choose(verdicts(calibration="fail", coverage="pass"), takes)
    assert "refit-simulations" in keys(simulated, "calibration")
    both = choose(verdicts(calibration="fail", coverage="fail"), takes)
    assert "refit-simulations" not in keys(both, "calibration")


def test_every_remedy_is_in_a_rule_and_each_is_listed_once():
    assert {rule.remedy for rule in RULES} | {"more"} == REMEDIES.keys()
    found = choose(verdicts(coverage="fail", gaps="fail"), frozenset())
    listed = [remedy.key for remedy, _ in distinct(found)]
    assert len(listed) == len(set(listed))


SMALL = {
    "refit": ["--epochs", "1"],
    "train": [],
    "encode": ["--data-points", "3"],
    "score": ["--data-points", "3", "--method", "guide"],
    "evaluate": ["--data-points", "3", "--draws", "10"],
    "diagnose": [],
}


@pytest.mark.parametrize("key", REMEDIES)
def test_every_remedy_is_a_command_that_runs(fitted, tmp_path, monkeypatch, key):
    run = Run.open(tmp_path / "run")
    remedy = REMEDIES[key].of("run", run.config)
    words = shlex.split(remedy.command)
    assert words.pop(0) == "ppl-vae"
    if words[0] == "diagnose":  # whose effort would take minutes
        monkeypatch.setattr(
            "ppl_vae.diagnostics.diagnosis.Examination",
            lambda *_: (_ for _ in ()).throw(ppl_vae.InputError("parsed", "is all")),
        )
        code, _, err = fitted(*words)
        assert (code, "parsed is all" in err) == (2, True)
        return
    code, _, err = fitted(*words, *SMALL[words[0]])
    assert code == 0, err


def test_remedies_are_in_json_ready_to_paste(fitted):
    small = ["--data-points", 60, "--draws", 100, "--simulations", 100, "--gap-points", 10]
    code, out, err = fitted("diagnose", "run", *small, "--nuts-points", 1, "--json")
    assert code == 0, err
    remedies = json.loads(out)["remedies"]
    assert remedies
    for remedy in remedies:
        assert remedy["command"].startswith("ppl-vae ")
        assert "{" not in remedy["command"]
        assert remedy["questions"]


def spoilt():
    """Probabilistic PCA, with the exact guide and one that is off."""
    torch.manual_seed(0)
    ppca = LinearGaussian((6,), latent_dim=2)
    with torch.no_grad():
        ppca.loading.mul_(2)
    ppca.set_exact_guide()
    data = ppl_vae.make_data(ppl_vae.prior_predictive(ppca, (6,), 2000, seed=3).x)
    with torch.no_grad():
        ppca.encoder.bias.add_(0.3)
        ppca.raw_guide_tril.sub_(0.7)
    return ppca, data


def test_a_refit_mends_the_guide_and_leaves_the_model():
    ppca, data = spoilt()
    before = {name: value.clone() for name, value in ppca.state_dict().items()}
    settings = Settings(epochs=15, learning_rate=0.02, batch_size=100)
    successor = LinearGaussian((6,), latent_dim=2)
    found = ppl_vae.repair(ppca, data, successor, settings, QUICK)
    assert found.improved
    assert found.program is successor
    x = data.fixed("test")
    assert torch.equal(found.program.evidence(x), ppca.evidence(x))
    assert all(torch.equal(before[name], value) for name, value in ppca.state_dict().items())
    was, now = (found.columns[name] for name in ("before", "refit"))
    assert was["calibration"].grade in ("caution", "fail")
    assert now["calibration"].value < was["calibration"].value / 2
    assert abs(now["gaps"].value) < was["gaps"].value / 5


def test_refinement_serves_where_no_refit_is_made():
    ppca, data = spoilt()
    found = ppl_vae.repair(ppca, data, effort=QUICK)
    assert not found.improved
    assert found.program is ppca
    refined = found.columns["refined"]
    assert abs(refined["gaps"].value) < 0.01
    assert refined["coverage"].value == 0
    assert refined["calibration"] == found.columns["before"]["calibration"]


def test_a_guide_that_passes_is_left_alone():
    torch.manual_seed(0)
    ppca = LinearGaussian((6,), latent_dim=2)
    ppca.set_exact_guide()
    data = ppl_vae.make_data(ppl_vae.prior_predictive(ppca, (6,), 8000, seed=3).x)
    effort = Effort(data_points=800, draws=400, simulations=4000, gap_points=12, nuts_points=3)
    found = ppl_vae.repair(ppca, data, effort=effort)
    assert not found.improved
    grades = {key: verdict.grade for key, verdict in found.columns["before"].items()}
    assert not set(grades.values()) & {"caution", "fail"}


def test_the_command_writes_a_run_and_both_columns(fitted, tmp_path):
    small = ["--data-points", 60, "--simulations", 200, "--gap-points", 10, "--nuts-points", 1]
    code, out, err = fitted("repair", "run", "--epochs", 2, *small, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {"before", "refit"} <= found["columns"].keys()
    assert json.loads((tmp_path / "run/results/repair.json").read_text()) == {
        key: value for key, value in found.items() if key not in ("results", "report")
    }
    assert "before" in (tmp_path / "run/results/repair.html").read_text()
    assert Run.open(tmp_path / "run-repaired").load() is not None
    values = [
        v["value"] for c in found["columns"].values() for v in c.values() if v["value"] is not None
    ]
    assert np.isfinite(values).all()
    code, _, err = fitted("repair", "run", "--guide", "none", *small)
    assert code == 2
    assert err.count("\n") == 1


def test_a_guide_that_cannot_be_refitted_is_refined():
    torch.manual_seed(0)
    vae, other = (VAE((5,), 2, (8,), likelihood="gaussian", prior="vamp") for _ in range(2))
    data = ppl_vae.make_data(torch.randn(700, 5))
    found = ppl_vae.repair(vae, data, other, Settings(epochs=1), QUICK)
    assert "share" in found.refused
    assert not found.improved
    assert list(found.columns) == ["before", "refined"]


def test_a_refit_is_not_told_to_fit_the_model_on():
    data = {"source": "digits", "binarize": "none", "shape": [2]}
    config = Config("m:M", {}, data, {"epochs": 3}, {"path": "a", "on": "both"})
    failed = choose(verdicts(generation="fail", collapse="fail"), frozenset())
    assert {"extend", "warm-up"} <= {r.key for found in failed.values() for r in found}
    left = {remedy.key for remedy, _ in distinct(failed, Path("b"), config)}
    assert not left & {"extend", "warm-up"}


def test_what_train_takes_is_what_remedies_say_it_takes():
    command = typer.main.get_command(app).commands["train"]
    assert {parameter.name for parameter in command.params} >= OF_TRAIN
