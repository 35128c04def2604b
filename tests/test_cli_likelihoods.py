"""Likelihoods on the command line: tables by their columns, images by their levels."""

import json

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae.data.units import fit_columns
from ppl_vae.models import LIKELIHOODS

FIT = ["--hidden", 8, "--latent-dim", 2, "--epochs", 2, "--batch-size", 32, "--engine", "eager"]


def table(size=120, missing=True):
    """A CSV table of all kinds of columns that are found by themselves."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=size)
    rows = ["height,income,visits,pet,smokes"]
    for i in range(size):
        cells = [
            f"{170 + 10 * z[i] + generator.normal():.2f}",
            f"{np.exp(10 + z[i] + generator.normal()):.1f}",
            f"{generator.negative_binomial(2, 1 / (1 + np.exp(z[i])))}",
            ["cat", "dog", "fish"][generator.integers(3)],
            f"{int(generator.random() < 0.4)}",
        ]
        if missing and i % 7 == 0:
            cells[i % 5] = ""
        rows.append(",".join(cells))
    return "\n".join(rows) + "\n"


def test_a_table_is_fitted_by_the_kinds_of_its_columns(shell, tmp_path):
    (tmp_path / "t.csv").write_text(table())
    code, _, err = shell("train", "--data", "t.csv", *FIT, "--output", "run")
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    kinds = {c["name"]: c["kind"] for c in config["arguments"]["columns"]}
    assert kinds == {
        "height": "real",
        "income": "positive",
        "visits": "count",
        "pet": "category",
        "smokes": "binary",
    }
    assert shell("evaluate", "run")[0] == 0
    code, _, err = shell("train", "--resume", "run", "--epochs", 3)
    assert code == 0, err
    code, _, err = shell("sample", "run", "--output", "drawn.npy")
    assert code == 0, err
    run = ppl_vae.Run.open(tmp_path / "run")
    vae = run.load()
    with torch.no_grad():
        p = vae.likelihood(vae.decoder(torch.zeros(2)))
    assert 120 < p.mean[0] < 220
    assert p.names == tuple(kinds)


@pytest.mark.parametrize("name", ["student-t", "gaussian", "lognormal"])
def test_one_likelihood_of_all_columns_is_in_their_units(shell, tmp_path, name):
    generator = np.random.default_rng(1)
    x = np.exp(generator.normal([0.0, 7.0], [0.1, 1.5], size=(200, 2)))
    np.savetxt(tmp_path / "t.csv", x, delimiter=",", header="a,b", comments="")
    code, _, err = shell("train", "--data", "t.csv", "--likelihood", name, *FIT, "--output", "run")
    assert code == 0, err
    columns = json.loads((tmp_path / "run" / "config.json").read_text())["arguments"]["columns"]
    data = ppl_vae.load_data(str(tmp_path / "t.csv"))
    assert [c.kind for c in data.columns] == ["real", "positive"]
    train = data.train.x.double()
    values = train.log() if name == "lognormal" else train
    for place, column in enumerate(columns):
        assert column["loc"] == pytest.approx(values[:, place].mean().item(), rel=1e-5)
        assert column["scale"] == pytest.approx(values[:, place].std(correction=0).item(), rel=1e-5)


def test_data_that_a_likelihood_has_not_are_refused_by_column(shell, tmp_path):
    (tmp_path / "t.csv").write_text(table(missing=False))
    code, _, err = shell("train", "--data", "t.csv", "--likelihood", "poisson", *FIT)
    assert code == 2
    assert "column 'height': " in err
    assert "outside the support of the Poisson likelihood; for real numbers use gaussian" in err
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_whole_numbers_are_codes_where_a_likelihood_has_them(shell, tmp_path):
    x = np.random.default_rng(0).integers(4, size=(100, 3)).astype(float)
    np.savetxt(tmp_path / "t.csv", x, fmt="%d", delimiter=",", header="a,b,c", comments="")
    for name in ("categorical", "ordered"):
        words = ["--data", "t.csv", "--likelihood", name, *FIT, "--output", name]
        code, _, err = shell("train", *words)
        assert code == 0, err
        code, out, _ = shell("evaluate", name, "--json")
        assert code == 0
        assert "bits_per_dim" in out
    data = ppl_vae.make_data(np.random.default_rng(0).normal(size=(100, 2)))
    assert fit_columns(data, "ordered")[0].categories == ()


@pytest.mark.filterwarnings("ignore::ppl_vae.data.inspection.DataWarning")
def test_constant_columns_of_an_array_have_no_unit(shell, tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 1] = 2.5
    np.save(tmp_path / "t.npy", x)
    code, _, err = shell("train", "--data", "t.npy", *FIT, "--output", "run")
    assert code == 0, err
    np.savetxt(tmp_path / "t.csv", x, delimiter=",", header="a,b,c", comments="")
    code, _, err = shell("train", "--data", "t.csv", *FIT)
    assert code == 2
    assert "'b'" in err


def test_levels_of_images_reach_their_likelihood(shell, tmp_path):
    for name in ("discretized-logistic", "discretized-logistic-mixture"):
        code, _, err = shell("train", "--likelihood", name, *FIT, "--output", name)  # digits
        assert code == 0, err
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert config["arguments"]["levels"] == 16
        code, out, _ = shell("evaluate", name, "--json", "--draws", 5)
        assert code == 0
        assert 0 < json.loads(out)["bits_per_dim"]["mean"] < np.log2(17) + 1


def test_help_lists_every_likelihood(shell):
    from typer.main import get_command

    from ppl_vae.cli.app import app

    (option,) = [p for p in get_command(app).commands["train"].params if p.name == "likelihood"]
    assert [name for name in LIKELIHOODS if name not in option.help] == []
