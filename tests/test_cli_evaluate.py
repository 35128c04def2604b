"""The shell on a fitted run: its evidence and its gradients."""

import json
from dataclasses import asdict

import pytest
import xarray

import ppl_vae

from .conftest import TRAIN

BRIEFLY = ["--chains", 2, "--temperatures", 3]


@pytest.mark.parametrize(
    ("estimator", "words", "n"),
    [
        ("iw", [], 180),
        ("ais", [*BRIEFLY, "--data-points", 7], 7),
        ("bdmc", [*BRIEFLY, "--data-points", 200], 200),
    ],
)
def test_evaluate_shows_and_writes_the_whole_chain(fitted, tmp_path, estimator, words, n):
    words = [*words, "--estimator", estimator, "--draws", 20]
    code, out, err = fitted("evaluate", "run", *words)
    assert code == 0, err
    for word in ("ELBO", "E_q[log p(x|z)]", "closed form", "KL(q(z|x) || p(z|x)), at least"):
        assert word in out
    assert ("gap between the two" in out) == (estimator == "bdmc")
    code, out, _ = fitted("evaluate", "run", *words, "--json")
    figures = json.loads(out)
    split = "simulated" if estimator == "bdmc" else "test"
    assert figures["results"] == [f"run/results/{split}-{estimator}.{s}" for s in ("nc", "json")]
    written = json.loads((tmp_path / figures["results"][1]).read_text())
    known = {name: written.pop(name) for name in ("weights", "netcdf_sha256")}
    assert written == {k: v for k, v in figures.items() if k != "results"}
    assert written["elbo"]["n"] == n
    with xarray.open_dataset(tmp_path / figures["results"][0]) as dataset:
        assert dataset.sizes["datum"] == n
        assert float(dataset["elbo"].mean()) == pytest.approx(figures["elbo"]["mean"])
        assert dataset.attrs["estimator"] == estimator
        assert dataset.attrs["weights"] == known["weights"]
        assert ("row" in dataset) == (estimator != "bdmc")


def test_every_option_of_evaluate_reaches_the_estimate(fitted, monkeypatch):
    seen = {}

    def estimate(estimator, program, batch, draws, annealing, seed, on_progress):
        seen.update(estimator=estimator, draws=draws, seed=seed, n=batch.size, **asdict(annealing))
        raise ppl_vae.InputError("seen", "is all")

    monkeypatch.setattr("ppl_vae.inference.estimate.estimate", estimate)
    given = {
        "estimator": "ais", "draws": 3, "seed": 5, "chains": 7, "temperatures": 9, "start": "guide",
    }  # fmt: skip
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    assert fitted("evaluate", "run", *words, "--data-points", 11)[0] == 2
    assert seen == {**given, "n": 11, "leapfrog_steps": 10}


def test_results_go_where_they_are_told(fitted, tmp_path):
    assert fitted("evaluate", "run", "--output", "found.nc")[0] == 0
    assert {"found.nc", "found.json"} <= {file.name for file in tmp_path.iterdir()}
    assert not (tmp_path / "run" / "results").exists()


def test_a_folder_that_cannot_be_made_is_named(fitted, tmp_path):
    (tmp_path / "run" / "results").write_text("")
    code, _, err = fitted("evaluate", "run")
    assert code == 2
    assert "run/results cannot be made" in err or "run/results is not a folder" in err


def test_gradients_as_table_picture_and_json(fitted, tmp_path):
    words = ["gradients", "run", "--repeats", 3, "--data-points", 9, "--particles", 2]
    code, out, err = fitted(*words)
    assert code == 0, err
    for word in ("score function", "sticking the landing", "variance", "p (same mean)"):
        assert word in out
    assert (tmp_path / "run" / "pictures" / "gradients.png").stat().st_size > 1000
    figures = json.loads(fitted(*words, "--json")[1])
    assert (figures["data"], figures["particles"], figures["repeats"]) == (9, 2, 3)
    rows = figures["gradients"]
    assert rows["reparameterized"]["p_value"] is None
    assert 0 <= rows["doubly reparameterized, K draws"]["p_value"] <= 1
    assert rows["score function"]["variance"] > rows["reparameterized"]["variance"]


def test_an_autoencoder_has_no_evidence_but_reconstructions(shell):
    assert shell(*TRAIN, "--model", "autoencoder", "--output", "run")[0] == 0
    code, out, _ = shell("evaluate", "run")
    assert code == 0
    assert "point mass" in out
    for words in (["evaluate", "run", "--estimator", "ais"], ["gradients", "run"]):
        code, _, err = shell(*words)
        assert code == 2
        assert "Autoencoder is a point mass" in err


def test_json_is_bare_where_colours_are_forced(fitted, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, out, _ = fitted("evaluate", "run", "--draws", "2", "--json")
    assert code == 0
    assert json.loads(out)["draws"] == 2
