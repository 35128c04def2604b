"""``ppl-vae impute`` on a table of all kinds of columns, with holes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

CITIES = ("Turku", "Bergen")
FIT = ["--hidden", "8", "--latent-dim", "1", "--epochs", "3", "--batch-size", "32"]


@pytest.fixture
def incomplete(shell, tmp_path):
    """A table with a fifth of its cells missing, and a run that was fitted to it."""
    chance = np.random.default_rng(0)
    z = chance.normal(size=120)
    complete = pd.DataFrame(
        {
            "height": (170 + 10 * z).round(1),
            "visits": chance.poisson(np.exp(1 + z / 2)),
            "city": np.where(z > 0, *CITIES),
        },
        index=pd.Index([f"p{i}" for i in range(120)], name="who"),
    )
    table = complete.mask(chance.random(complete.shape) < 0.2)
    table.to_csv("table.csv")
    read = ["--data", "table.csv", "--index-column", "who"]
    assert shell("train", *read, *FIT, "--output", "run")[0] == 0
    return table


def test_a_table_comes_back_complete(shell, incomplete):
    code, out, _ = shell("impute", "run", "--output", "whole.csv", "--imputations", "2", "--json")
    assert code == 0
    whole, cells = (pd.read_csv(name) for name in ("whole.csv", "whole-cells.csv"))
    known = incomplete.notna()
    assert list(whole["row_name"]) == list(incomplete.index)
    whole = whole[list(incomplete.columns)]
    assert whole.notna().all(axis=None)
    same = whole.to_numpy(object)[known] == incomplete.to_numpy(object)[known]
    assert same.all()
    assert set(whole["city"]) == set(CITIES)
    assert len(cells) == (~known).sum().sum() == json.loads(out)["cells"]
    numbers = cells[cells["column"] != "city"]
    assert (numbers["lower"] <= numbers["upper"]).all()
    visits = cells[cells["column"] == "visits"]
    assert (visits[["lower", "upper"]] % 1 == 0).all(axis=None)
    cities = cells[cells["column"] == "city"]
    assert set(cities["category"]) <= set(CITIES)
    assert cities["probability"].between(0, 1).all()
    assert cities["lower"].isna().all()
    draws = [pd.read_csv(f"whole-{i}.csv")[list(incomplete.columns)] for i in (1, 2)]
    assert not draws[0].equals(draws[1])
    assert all(
        (draw.to_numpy(object)[known] == incomplete.to_numpy(object)[known]).all() for draw in draws
    )


def test_new_rows_are_imputed(shell, incomplete):
    new = incomplete.head(7)
    new.to_csv("new.csv")
    args = ["impute", "run", "--data", "new.csv", "--method", "guide", "--output", "new.npz"]
    assert shell(*args)[0] == 0
    with np.load("new.npz") as arrays:
        assert arrays["x"].shape == new.shape
        assert (arrays["missing"] == new.isna().to_numpy()).all()
        assert list(arrays["column"]) == list(new.columns)


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["--coverage", "90"], "coverage"),
        (["--imputations", "-1"], "imputations"),
        (["--draws", "1"], "draws"),
        (["--output", "x.txt"], "x.txt"),
        (["--data", "none.csv"], "none.csv"),
        (["--output", "table.csv"], "replace"),
        (["--data", "table.csv", "--output", "./table.csv"], "replace"),
        (["--data", "table.csv", "--split", "test"], "split"),
    ],
)
def test_bad_input_is_refused(shell, incomplete, words, culprit):
    before = Path("table.csv").read_bytes()
    code, _, err = shell("impute", "run", *words)
    assert code == 2
    assert culprit in err
    assert Path("table.csv").read_bytes() == before
