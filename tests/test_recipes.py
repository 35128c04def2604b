"""``ppl-vae train --config``: options from files and from runs, under those on the command line."""

import json

import pytest

RECIPE = """
data = "digits"
epochs = 2
hidden = [8]  # or "8"
latent-dim = 3
free-bits = 0.1
seed = 4
"""
FLAGS = [
    *("--data", "digits", "--epochs", 2, "--hidden", 8, "--latent-dim", 3),
    *("--free-bits", 0.1, "--seed", 4),
]


def config_of(run):
    found = json.loads((run / "config.json").read_text())
    del found["versions"]
    return found


def test_a_recipe_is_its_options_and_a_run_is_a_recipe(shell, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    for words in (
        [*FLAGS, "--output", "flags"],
        ["--config", "recipe.toml", "--output", "recipe"],
        ["--config", "flags", "--output", "run"],
        ["--config", "flags/config.json", "--latent-dim", 2, "--output", "other"],
    ):
        code, _, err = shell("train", *words)
        assert code == 0, err
    weights = (tmp_path / "flags/weights.safetensors").read_bytes()
    for name in ("recipe", "run"):
        assert config_of(tmp_path / name) == config_of(tmp_path / "flags")
        assert (tmp_path / name / "weights.safetensors").read_bytes() == weights
    other = config_of(tmp_path / "other")["arguments"]
    assert other == {**config_of(tmp_path / "flags")["arguments"], "latent_dim": 2}


def test_a_run_of_a_table_is_a_recipe(shell, tmp_path):
    rows = "\n".join(f"{i % 7};{i % 5},5;{'ab'[i % 2]}" for i in range(200))
    (tmp_path / "table.csv").write_text("one;two;kind\n" + rows + "\n")
    words = ["--data", "table.csv", "--separator", ";", "--decimal", ",", "--label", "kind"]
    words += ["--model", "semi-supervised-vae", "--labels", 20, "--hidden", 4, "--epochs", 1]
    code, _, err = shell("train", *words, "--output", "run")
    assert code == 0, err
    code, _, err = shell("train", "--config", "run", "--output", "again")
    assert code == 0, err
    assert "no option" not in err
    found = config_of(tmp_path / "run")
    assert config_of(tmp_path / "again") == found
    found["arguments"]["alpha"] = 3.0  # as it can be in Python alone
    (tmp_path / "run/config.json").write_text(json.dumps(found))
    code, _, err = shell("train", "--config", "run", "--output", "third")
    assert code == 0
    assert "another alpha, which no option says" in err
    found["data"]["known_labels"] = [20, 5]
    (tmp_path / "run/config.json").write_text(json.dumps(found))
    code, _, err = shell("train", "--config", "run", "--output", "fourth")
    assert code == 2
    assert "another seed" in err
    assert not (tmp_path / "fourth").exists()


def test_a_run_that_was_extended_is_another_fit(fitted):
    assert fitted("train", "--resume", "run", "--epochs", 3)[0] == 0
    code, _, err = fitted("train", "--config", "run", "--output", "again")
    assert code == 0
    assert "extended from 2 epochs" in err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("latnt-dim = 3", "latent_dim"),
        ("resume = 'run'", "no option"),
        ("epochs = ", "TOML"),
        ("epochs = 'many'", "epochs"),
        ("[hidden]\na = 1", "one value"),
        ("json = 3", "json"),
        (None, "TOML"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(shell, tmp_path, text, problem):
    if text is not None:
        (tmp_path / "recipe.toml").write_text(text)
    code, out, err = shell("train", "--config", "recipe.toml")
    assert (code, out) == (2, "")
    assert problem in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_another_json_file_is_not_taken_for_a_run(fitted, tmp_path):
    (tmp_path / "run/other.json").write_text("{}")
    code, _, err = fitted("train", "--config", "run/other.json")
    assert code == 2
    assert "TOML" in err


def test_a_guide_that_was_trained_alone_is_no_recipe(fitted, tmp_path):
    code, _, err = fitted("refit", "run", "--epochs", 1)
    assert code == 0, err
    code, _, err = fitted("train", "--config", "run-refit")
    assert code == 2
    assert "ppl-vae refit" in err
