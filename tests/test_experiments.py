"""Experiments from the shell: what they write, refuse and repeat."""

import json
from dataclasses import replace
from decimal import Decimal
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ppl_vae
from ppl_vae.choices import ExperimentName
from ppl_vae.cli import experiment, tables
from ppl_vae.errors import InputError
from ppl_vae.evidence.scores import Estimate, Ledger, LedgerRow
from ppl_vae.experiments import latent_size
from ppl_vae.experiments.catalogue import EXPERIMENTS, perform
from ppl_vae.experiments.outcome import Outcome, Table, Verdict, write_outcome
from ppl_vae.labels import round_together
from ppl_vae.plots.drawing import PictureWarning

# The identities that must hold in what is written, to the last digit.
IDENTITIES = {
    ("gap", "epochs"): [("log_p", "elbo", "kl_to_posterior"), ("reconstruction", "elbo", "kl")],
    ("gap", "changes"): [("log_p", "elbo", "kl_to_posterior")],
    ("latent-size", "deep"): [("loss", "vae", "kl")],
    ("reconstruction-loss", "fits"): [("reconstruction", "elbo", "kl")],
}


def test_the_shell_knows_every_experiment():
    assert get_args(ExperimentName) == tuple(EXPERIMENTS)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("generate", "gap") else pytest.mark.slow)
        for n in EXPERIMENTS
    ],
)
def test_quick_experiments_write_tables_a_figure_and_their_config(name, shell, tmp_path):
    code, out, err = shell("experiment", name, "--quick", "--output", "found", "--json")
    assert (code, err) == (0, "")
    printed = json.loads(out)
    folder = tmp_path / "found"
    assert {folder.parent / file for file in printed.pop("files")} == {*folder.iterdir()}
    assert printed == json.loads((folder / "findings.json").read_text())
    assert all(claim["verdict"] in get_args(Verdict) for claim in printed["claims"])
    assert all(claim["because"] for claim in printed["claims"])
    config = json.loads((folder / "config.json").read_text())
    assert (config["experiment"], config["seed"], config["data"]["source"]) == (name, 0, "digits")
    with Image.open(folder / "figure.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 200
    for table, stored in printed["tables"].items():
        rows = pd.read_csv(folder / f"{table}.csv", dtype=str)
        explained = {column.removesuffix("_error") for column in rows}
        assert explained == stored["meanings"].keys()
        for whole, part, rest in IDENTITIES.get((name, table), []):
            cells = rows[[whole, part, rest]].map(Decimal)
            assert (cells[whole] - cells[part] == cells[rest]).all()


@pytest.fixture
def small(monkeypatch):
    """An experiment that takes a second."""
    tiny = latent_size.Settings(linear=(1, 5), deep=(1, 2), hidden=(16,), epochs=2)
    changed = replace(EXPERIMENTS["latent-size"], quick=tiny)
    monkeypatch.setitem(EXPERIMENTS, "latent-size", changed)


@pytest.mark.usefixtures("small")
def test_tables_show_errors_and_what_holds(shell):
    code, out, _ = shell("experiment", "latent-size", "--quick")
    assert code == 0
    assert "±" in out
    assert "holds" in out
    assert "runs/experiments/latent-size-quick/linear.csv" in out


@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_tables(digits):
    first, again, other = (
        perform("latent-size", digits, quick=True, seed=seed)[0].tables["deep"].rows
        for seed in (3, 3, 4)
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert not first.equals(other)


def test_what_is_there_is_kept(shell, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("all of it")
    for words in ((), ("--overwrite",)):
        code, out, err = shell("experiment", "gap", "--quick", "--output", "mine", *words)
        assert (code, out) == (2, "")
        assert err == "error: mine exists and is not an experiment: choose another --output\n"
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("small")
def test_an_experiment_is_replaced_only_on_request(shell, tmp_path):
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "findings.json").write_text("{}")
    words = ("experiment", "latent-size", "--quick", "--output", "found")
    code, _, err = shell(*words)
    assert code == 2
    assert "found holds an experiment: choose another --output, or pass --overwrite" in err
    assert shell(*words, "--overwrite")[0] == 0
    assert (tmp_path / "found" / "findings.json").read_text() != "{}"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_data_that_no_experiment_can_use_are_refused(name, shell, tmp_path):
    random = np.random.default_rng(0).random
    np.save(tmp_path / "few.npy", random((100, 5)))
    np.save(tmp_path / "constant.npy", np.full((300, 5), 0.5))
    np.save(tmp_path / "outside.npy", 3 * random((300, 5)))
    for file, words in (
        ("few", "few.npy has 80 train points, "),
        ("constant", "constant.npy has fewer than two values"),
        ("outside", "only those in [0, 1] can be binarized"),
    ):
        code, out, err = shell("experiment", name, "--quick", "--data", f"{file}.npy")
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
        assert not (tmp_path / "runs" / "experiments" / f"{name}-quick").exists()


@pytest.mark.parametrize("name", ["generate", "reconstruction-loss"])
def test_a_judge_needs_images_of_several_classes(name, shell, tmp_path):
    random = np.random.default_rng(0).random
    np.save(tmp_path / "table.npy", random((300, 5)))
    np.save(tmp_path / "images.npy", random((300, 8, 8)))
    np.savez(tmp_path / "alike.npz", x=random((300, 8, 8)), y=np.zeros(300, int))
    np.savez(tmp_path / "tiny.npz", x=random((300, 4, 4)), y=np.arange(300) % 3)
    for file, words in (
        ("table.npy", "not images"),
        ("images.npy", "has no labels"),
        ("alike.npz", "a single class"),
        ("tiny.npz", "at least 8 x 8"),
    ):
        code, out, err = shell("experiment", name, "--quick", "--data", file)
        assert (code, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1


@pytest.mark.usefixtures("small")
def test_tables_of_another_experiment_do_not_stay(shell, tmp_path):
    (tmp_path / "found").mkdir()
    for name in ("findings.json", "epochs.csv"):
        (tmp_path / "found" / name).write_text("{}")
    code, _, _ = shell("experiment", "latent-size", "--quick", "--output", "found", "--overwrite")
    assert code == 0
    assert {file.name for file in (tmp_path / "found").glob("*.csv")} == {"linear.csv", "deep.csv"}


def test_tables_are_kept_when_the_figure_fails(tmp_path):
    (tmp_path / "figure.png").write_text("of an earlier experiment")
    found = Outcome((), {"a": Table(pd.DataFrame({"x": [1.0]}), {"x": "x"})}, lambda: 1 / 0)
    with pytest.warns(PictureWarning, match="figure.png was not drawn .ZeroDivisionError: "):
        files = write_outcome(tmp_path, found, {})
    assert {*tmp_path.iterdir()} == {*files}
    assert {file.name for file in files} == {"config.json", "findings.json", "a.csv"}


def test_figures_without_an_error_are_shown():
    rows = pd.DataFrame({"slack": [0.25, 1.0], "slack_error": [float("nan"), 0.5]})
    table = Table(rows, {"slack": ""})
    cells = [
        experiment._cell(row, "slack", table.exact_columns, 2)
        for row in table.rounded(2).to_dict("records")
    ]
    assert cells == ["0.25", "1.00 ± 0.50"]


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        (),
        ("gap", "--seed", "-1"),
        ("gap", "--data", "none.npy"),
        ("gap", "--quick", "--output", "file"),
        ("gap", "--quick", "--output", "file/below"),
    ],
)
def test_bad_words_are_refused(words, shell, tmp_path):
    (tmp_path / "file").write_text("kept")
    code, out, err = shell("experiment", *words)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_rounding_together_is_off_by_less_than_two_digits():
    generator = np.random.default_rng(0)
    for whole, part in generator.normal(size=(1000, 2)):
        values = {"whole": whole, "part": part, "rest": whole - part}
        found = round_together(values, {"rest": ("whole", "part")}, 2)
        assert Decimal(str(found["whole"])) - Decimal(str(found["part"])) == Decimal(
            str(found["rest"])
        )
        assert abs(found["rest"] - values["rest"]) < 0.015


def test_an_evaluation_adds_up_as_printed(capsys):
    # Rounded one by one, the divergences would be 19.95 and 2.58.
    means = {"elbo": -95.1549, "reconstruction": -75.2051, "kl": 19.9498}
    means |= {"iw_bound": -92.5651, "kl_to_posterior": 2.5898 - 0.0051}
    figures = {name: Estimate(mean, 0.3, 100) for name, mean in means.items()}
    terms = (
        *(("x", "E_q[log p(x|z)]", -75.2051), ("z", "E_q[log p(z)]", -30.0051)),
        ("z", "-E_q[log q]", 10.0553),
    )
    rows = tuple(LedgerRow(site, term, Estimate(mean, 0.3, 100)) for site, term, mean in terms)
    kl = Estimate(19.9498, 0.3, 100)
    ledger = Ledger(rows, figures["elbo"], {"z": (kl, kl)})
    tables.show(figures, {"split": "test"}, as_json=False, ledger=ledger)
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines()]
    cells = {line[1].strip(): Decimal(line[2].strip()) for line in lines if len(line) == 5}
    elbo = cells["ELBO"]
    assert elbo == Decimal("-95.15")
    assert cells["reconstruction, E log p(x|z)"] - cells["KL(q(z|x) || p(z))"] == elbo
    bound = cells["log p(x): importance-weighted bound"]
    assert bound - cells["KL(q(z|x) || p(z|x)), at least"] == elbo
    written = [Decimal(line[3].strip()) for line in lines if len(line) == 6]
    assert len(written) == 6
    assert sum(written[:3]) == written[3] == elbo
    assert written[4] == -(written[1] + written[2]) == cells["KL(q(z|x) || p(z))"]


def test_python_is_refused_what_no_experiment_can_use(digits):
    with pytest.raises(InputError, match="must be one of reparameterization, .* got 'gpa'"):
        perform("gpa", digits)
    grey = ppl_vae.load_data("digits")
    with pytest.raises(InputError, match="must be 'dynamic' .* has 'none'"):
        perform("gap", grey, quick=True)


@pytest.mark.usefixtures("small")
def test_outcomes_are_found_from_python():
    data = ppl_vae.load_data("digits", binarize="dynamic")
    shares = []
    outcome, config = perform(
        "latent-size", data, quick=True, on_progress=lambda share, text: shares.append(share)
    )
    assert outcome.tables["linear"].rows["latent_dim"].is_monotonic_increasing
    assert config["settings"]["epochs"] == EXPERIMENTS["latent-size"].quick.epochs
    assert sum(shares) == pytest.approx(1)
