"""Tables on the command line: inspected, fitted, sampled and encoded under their names."""

import json

import numpy as np
import pandas as pd
import pytest

import ppl_vae

RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "height": RNG.normal(size=60).round(3),
        "$kids$ [n]": RNG.poisson(3, size=60),
        "town": RNG.choice(["A", "B", "C"], size=60),
        "ok": RNG.random(60) < 0.5,
    },
    index=[f"p{i}" for i in range(60)],
)
FIT = ["--likelihood", "gaussian", "--hidden", 4, "--latent-dim", 2, "--epochs", 1]
FIT += ["--batch-size", 16, "--engine", "eager", "--output", "run"]


def test_inspect_shows_columns(shell, tmp_path):
    TABLE.assign(height=TABLE["height"].where(RNG.random(60) < 0.8)).to_csv(tmp_path / "t.csv")
    code, out, err = shell("inspect", "t.csv")
    assert (code, err) == (0, "")
    for words in ("60 rows", "rows have names", "height", "$kids$ [n]", "A, B, C", "False, True"):
        assert words in out
    code, out, _ = shell("inspect", "t.csv", "--json")
    found = json.loads(out)
    assert [c["kind"] for c in found["columns"]] == ["real", "count", "category", "binary"]
    assert found["columns"][0]["missing"] > 0
    assert found["warnings"] == []


def test_inspect_warns_and_never_writes_unasked(shell, tmp_path):
    stamps = 1_700_000_000 + np.arange(60)
    TABLE.assign(t=stamps, c=1, wide=1e5 * RNG.normal(size=60)).to_csv(tmp_path / "t.csv")
    code, out, err = shell("inspect", "t.csv")
    assert (code, err) == (0, "")
    for words in ("'c' is constant", "'t' is too far from zero", "'wide' is"):
        assert words in out
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_a_schema_is_written_changed_and_used(shell, tmp_path):
    TABLE.to_csv(tmp_path / "t.csv")
    assert shell("inspect", "t.csv", "--write-schema", "s.toml")[0] == 0
    text = (tmp_path / "s.toml").read_text().replace('kind = "count"', 'kind = "real"')
    (tmp_path / "s.toml").write_text(text)
    _, out, _ = shell("inspect", "t.csv", "--schema", "s.toml", "--json")
    assert [c["kind"] for c in json.loads(out)["columns"]][1] == "real"


def test_options_say_what_a_file_does_not(shell, tmp_path):
    lines = "\n".join(f"{i},1.{i:03};2;c{i % 2}" for i in range(1, 61))
    (tmp_path / "t.csv").write_text(lines)
    code, _, err = shell("inspect", "t.csv")
    assert (code, err.count("\n")) == (2, 1)
    words = ["--separator", "semicolon", "--decimal", ",", "--no-header", "--label", "column 2"]
    code, out, err = shell("inspect", "t.csv", *words)
    assert code == 2  # 1,1.001 is no number with either sign
    assert "'1,1.001'" in err
    (tmp_path / "t.csv").write_text(lines.replace(",1.", ","))
    code, out, err = shell("inspect", "t.csv", *words)
    assert code == 0, err
    assert "2 classes" in out
    assert "column 0" in out


@pytest.fixture
def fitted(shell, tmp_path):
    TABLE.to_csv(tmp_path / "t.csv")
    code, _, err = shell("train", "--data", "t.csv", *FIT)
    assert code == 0, err
    return tmp_path


def test_names_live_through(fitted, shell):
    config = json.loads((fitted / "run" / "config.json").read_text())
    assert [c["name"] for c in config["data"]["columns"]] == [*TABLE.columns]
    for name in ("s.csv", "s.parquet"):
        assert shell("sample", "run", "--count", 5, "--output", name)[0] == 0
    sampled = pd.read_csv(fitted / "s.csv")
    assert [*sampled.columns] == [*TABLE.columns]
    assert [*pd.read_parquet(fitted / "s.parquet").columns] == [*TABLE.columns]
    for name in ("s.png", "s.npy"):
        assert shell("sample", "run", "--count", 5, "--output", name)[0] == 0
    assert np.load(fitted / "s.npy").shape == (5, 4)
    assert shell("reconstruct", "run", "--output", "r.png")[0] == 0
    encode = ["encode", "run", "--method", "guide", "--output", "codes.csv"]
    assert shell(*encode)[0] == 0
    rows = ppl_vae.load_data(fitted / "t.csv").test.rows
    codes = pd.read_csv(fitted / "codes.csv")
    assert codes["row_name"].tolist() == [f"p{i}" for i in rows]
    TABLE[["town", "ok", "$kids$ [n]", "height"]].iloc[5:9].to_csv(fitted / "new.csv")
    assert shell(*encode, "--data", "new.csv")[0] == 0
    codes = pd.read_csv(fitted / "codes.csv")
    assert codes["row_name"].tolist() == ["p5", "p6", "p7", "p8"]
    score = ["score", "run", "--method", "guide", "--data", "new.csv", "--output", "scores.csv"]
    assert shell(*score)[0] == 0
    assert pd.read_csv(fitted / "scores.csv")["row_name"].tolist() == ["p5", "p6", "p7", "p8"]


@pytest.mark.filterwarnings("always::ppl_vae.data.inspection.DataWarning")
def test_train_refuses_constant_columns_and_warns_of_scales(shell, tmp_path):
    TABLE.assign(c=1.5).to_csv(tmp_path / "t.csv")
    code, _, err = shell("train", "--data", "t.csv", *FIT)
    assert code == 2
    assert "constant column 'c': leave it out: drop = true for 'c' in --schema FILE" in err
    (tmp_path / "s.toml").write_text("[columns.c]\ndrop = true\n")
    code, _, err = shell("train", "--data", "t.csv", "--schema", "s.toml", *FIT)
    assert code == 0, err
    TABLE.assign(wide=1e5 * RNG.normal(size=60)).to_csv(tmp_path / "w.csv")
    code, _, err = shell("train", "--data", "w.csv", *FIT, "--overwrite")
    assert code == 0
    assert "the scales of columns differ by a factor of" in err


def test_a_program_that_takes_no_mask_says_what_to_do(shell, tmp_path):
    TABLE.assign(height=TABLE["height"].where(RNG.random(60) < 0.8)).to_csv(tmp_path / "t.csv")
    words = ["--model", "linear-gaussian", "--latent-dim", 2, *FIT[-8:]]
    code, _, err = shell("train", "--data", "t.csv", *words)
    assert code == 2
    assert "t.csv has values that are missing" in err
    assert "impute" in err
