"""The shell with classes: some labels known, evaluation of classes, draws of one class."""

import json

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae.cli.given import read_given
from ppl_vae.errors import InputError

SMALL = ["--hidden", 16, "--latent-dim", 2]
M2 = ["train", "--model", "semi-supervised-vae", "--labels", 40, *SMALL]


@pytest.fixture
def table(tmp_path):
    """x of three classes and an age, in units of its own."""
    draw = np.random.default_rng(0)
    y, age = draw.integers(0, 3, 600), draw.normal(50, 10, 600)
    noise = draw.normal(size=(600, 3))
    x = np.stack([3.0 * y, (age - 50) / 5, np.zeros(600)], 1) + 0.3 * noise
    np.savez(tmp_path / "t.npz", x=x, y=np.array(["ape", "bee", "cat"])[y], age=age)
    return tmp_path / "t.npz"


@pytest.mark.filterwarnings("always::ppl_vae.plots.drawing.PictureWarning")
def test_a_picture_that_fails_fails_no_command(shell, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no ink")

    for name in ("figures.training_curves", "reliability.reliability_diagram"):
        monkeypatch.setattr(f"ppl_vae.plots.{name}", fail)
    code, out, err = shell(*M2, "--epochs", 1, "--output", "run")
    assert code == 0
    assert "warning: curves.png was not drawn (ValueError: no ink)\n" in err
    assert "ELBO" in out
    assert "curves.png" not in out
    code, out, err = shell("evaluate", "run", "--json")
    picture = "run/pictures/test-reliability.png"
    assert (code, err) == (0, f"warning: {picture} was not drawn (ValueError: no ink)\n")
    assert json.loads(out)["results"] == [f"run/results/test-iw.{s}" for s in ("nc", "json")]
    assert not (tmp_path / picture).exists()


def test_some_labels_are_known_from_training_to_evaluation(shell, tmp_path):
    assert shell(*M2, "--epochs", 2, "--output", "run")[0] == 0
    config = ppl_vae.Run.open(tmp_path / "run").config
    assert config.data["known_labels"] == [40, 0]
    assert config.data["label_names"] == [str(k) for k in range(10)]
    assert config.arguments["classes"] == 10
    assert config.arguments["alpha"] == pytest.approx(1437 / 40)
    code, out, _ = shell("evaluate", "run", "--draws", 2, "--json")
    assert code == 0
    classes = json.loads(out)["classification"]
    names = {"accuracy", "brier", "ece", "brier_calibrated", "ece_calibrated", "log_temperature"}
    assert names <= classes.keys()
    assert classes["accuracy"]["n"] == 180
    assert (tmp_path / "run/pictures/test-reliability.png").stat().st_size > 1000
    summary = json.loads((tmp_path / "run/results/test-iw.json").read_text())
    assert summary["classification"] == classes
    code, out, _ = shell("evaluate", "run", "--draws", 2, "--split", "train")
    assert code == 0
    assert "classes of 40 data points" in out
    code, out, _ = shell("evaluate", "run", "--draws", 2, "--split", "validation")
    assert "at the temperature" not in out  # it would be fitted to them
    for words in (["sample", "--count", 3, "--given", "label=7"], ["encode", "--data-points", 5]):
        code, out, error = shell(words[0], "run", *words[1:])
        assert code == 0, error


def test_a_fit_with_some_labels_is_resumed(shell, tmp_path):
    assert shell(*M2, "--epochs", 1, "--output", "run")[0] == 0
    code, _, error = shell("train", "--resume", "run", "--epochs", 2)
    assert code == 0, error
    run = ppl_vae.Run.open(tmp_path / "run")
    assert run.config.data["known_labels"] == [40, 0]
    assert len(run.metrics()) == 2
    code, _, error = shell("refit", "run", "--epochs", 1, "--output", "other")
    assert code == 0, error


def test_new_data_have_the_classes_of_the_fit(shell, table, tmp_path):
    with np.load(table) as file:
        x, y, age = (file[name] for name in ("x", "y", "age"))
    np.savez("plain.npz", x=x, y=y)
    train = ["train", "--likelihood", "gaussian", "--epochs", 1, "--batch-size", 32, *SMALL]
    for data, model in ((table, "conditional-vae"), ("plain.npz", "semi-supervised-vae")):
        assert shell(*train, "--data", data, "--model", model, "--output", model)[0] == 0
    cat = np.flatnonzero(y != "bee")[:9]  # of these the second class, and of all the third

    def encoded(model, **arrays):
        np.savez("new.npz", **arrays)
        words = ("--method", "guide", "--data", "new.npz", "--output", "codes.npz")
        return shell("encode", model, *words)

    assert encoded("conditional-vae", x=x[cat], y=y[cat], age=age[cat])[0] == 0
    arrays = {"x": x[cat], "y": 2 * (y[cat] == "cat"), "age": age[cat]}
    batch = {
        name: torch.tensor(a).to(torch.int64 if name == "y" else torch.float32)
        for name, a in arrays.items()
    }
    expected = ppl_vae.encode(ppl_vae.load("conditional-vae"), batch, target="guide")
    with np.load("codes.npz") as codes:
        assert np.array_equal(codes["z_mean"], expected["z_mean"])

    code, _, error = encoded("conditional-vae", x=x[cat], y=np.array(["dog"] * 9), age=age[cat])
    assert code == 2
    assert "'dog'" in error
    assert "ape, bee, cat" in error
    assert encoded("conditional-vae", x=x[cat], age=age[cat])[0] == 2
    assert encoded("semi-supervised-vae", x=x[cat])[0] == 0


def test_draws_are_those_of_what_is_given(shell, table, tmp_path):
    words = ["--likelihood", "gaussian", "--learning-rate", 0.02, "--batch-size", 32]
    code, _, error = shell(
        *("train", "--model", "conditional-vae", "--data", table, "--epochs", 60),
        *(*words, *SMALL, "--output", "run"),
    )
    assert code == 0, error
    table.rename(tmp_path / "gone.npz")  # where all is given, nothing is read
    found = {}
    for name, age in (("ape", 40), ("cat", 60)):
        given = ["--given", f"label={name}", "--given", f"age={age}"]
        code, _, error = shell("sample", "run", *given, "--count", 500, "--output", f"{name}.npy")
        assert code == 0, error
        found[name] = np.load(tmp_path / f"{name}.npy").mean(0)
    # Half of the distance between classes, and between ages: it is told which is which.
    assert found["ape"] == pytest.approx([0.0, -2.0, 0.0], abs=1.0)
    assert found["cat"] == pytest.approx([6.0, 2.0, 0.0], abs=1.0)
    code, _, error = shell("sample", "run", "--given", "label=ape")
    assert code == 2
    assert "t.npz" in error
    code, _, error = shell("sample", "run", "--given", "label=dog")
    assert code == 2
    assert "choose from ape, bee, cat" in error


def test_labels_that_are_hidden_are_refused_where_they_are_given(shell):
    code, _, error = shell("train", "--model", "conditional-vae", "--labels", 40, *SMALL)
    assert code == 2
    assert len(error.strip().splitlines()) == 1
    assert "ConditionalVAE" in error


def test_a_class_is_told_by_its_name_before_its_number():
    names = {"label_names": ["2", "0", "1"]}
    assert read_given(["label=2"], names)["y"] == 0
    assert read_given(["y=1"], {"label_names": ["a", "b"]})["y"] == 1
    assert torch.equal(read_given(["place=1,2.5"], {})["place"], torch.tensor([1.0, 2.5]))
    for words in (["label=3"], ["age"], ["age="], ["=3"], ["age=old"], ["age=nan"]):
        with pytest.raises(InputError, match="given"):
            read_given(words, names)
