"""Programs compared in pairs: against exact evidence, and what cannot be compared."""

import json
import shutil

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae import InputError, compare, make_data
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 2)) @ RNG.normal(size=(2, 5)) + 0.3 * RNG.normal(size=(400, 5))
DATA = make_data(X)


def exact(latent_dim):
    """Probabilistic PCA at its maximum of likelihood, with the exact guide."""
    torch.manual_seed(0)
    ppca = LinearGaussian((5,), latent_dim=latent_dim)
    ppca.set_maximum_likelihood(DATA.train.x)
    ppca.set_exact_guide()
    return ppca


def test_differences_are_those_of_exact_evidence():
    programs = {"one": exact(1), "two": exact(2)}
    found = compare(programs, DATA)
    evidence = {n: p.evidence(DATA.test.x).detach() for n, p in programs.items()}
    gap = evidence["one"] - evidence["two"]
    assert [*found.bounds] == ["two", "one"]
    difference = found.differences["one"]
    assert difference.mean == pytest.approx(gap.mean().item(), abs=1e-6)
    assert difference.stderr == pytest.approx((gap.std() / len(gap) ** 0.5).item(), rel=1e-6)
    assert difference.stderr < found.bounds["one"].stderr  # pairs
    assert found.better["one"] == int((gap > 0).sum())
    assert found.differences["two"].mean == found.better["two"] == 0


@pytest.mark.parametrize("estimator", ["refined", pytest.param("ais", marks=pytest.mark.slow)])
def test_the_guide_matters_to_the_iw_bound_alone(estimator):
    good, bad = exact(2), exact(2)
    with torch.no_grad():
        bad.encoder.weight.mul_(0.5)
    programs = {"good": good, "bad": bad}
    by_weights = compare(programs, DATA, draws=10)
    assert [*by_weights.bounds] == ["good", "bad"]
    assert by_weights.differences["bad"].mean < -0.1
    closer = compare(programs, DATA, estimator, draws=10, data_points=10)
    assert abs(min(d.mean for d in closer.differences.values())) < 0.1
    assert closer.per_datum["good"].shape == (10,)


def test_the_draw_of_the_data_is_the_same_for_all():
    data = ppl_vae.load_data("digits", binarize="dynamic")
    torch.manual_seed(0)
    vae = VAE(data.shape, latent_dim=2, hidden=(4,))
    found = compare({"a": vae, "b": vae}, data, draws=2, data_points=5)
    assert found.differences["b"].mean == 0


class Given(LinearGaussian):
    def model(self, x=None, y=None, size=1):
        return super().model(x, size)

    def guide(self, x, y=None):
        return super().guide(x)


@pytest.mark.parametrize("name", ["discrete", "point-mass", "given"])
def test_densities_of_other_things_are_refused(name):
    data = make_data((X > 0).astype(float), labels=np.arange(400) % 2)
    torch.manual_seed(0)
    other = {
        "discrete": lambda: VAE((5,), latent_dim=2, hidden=(4,)),
        "point-mass": lambda: Autoencoder((5,), latent_dim=2, hidden=(4,), likelihood="gaussian"),
        "given": lambda: Given((5,)),
    }[name]()
    with pytest.raises(InputError) as caught:
        compare({"real": LinearGaussian((5,)), "other": other}, data)
    assert caught.value.culprit == "other"


def test_arviz_does_not_take_our_densities_for_its_own():
    arviz = pytest.importorskip("arviz")
    effort = ppl_vae.Effort(draws=20, simulations=20, gap_points=2, nuts_points=1)
    found = ppl_vae.diagnose(exact(2), DATA, effort, questions=["collapse"])
    assert "log_p_given_z" in found.inference_data.groups()
    with pytest.raises(TypeError):
        arviz.loo(found.inference_data)


@pytest.fixture
def runs(shell, tmp_path):
    np.save(tmp_path / "t.npy", X)
    for name, width in (("a", 1), ("b", 2)):
        words = ["--data", "t.npy", "--model", "linear-gaussian", "--latent-dim", width]
        words += ["--epochs", 12, "--learning-rate", 0.05, "--batch-size", 32]
        assert shell("train", *words, "--engine", "eager", "--output", name)[0] == 0
    return shell


def test_the_command_line_compares_runs(runs, tmp_path):
    code, out, _ = runs("compare", "a", "b")
    assert code == 0
    assert out.index(" b ") < out.index(" a ")
    assert "Bounds from below" in out
    code, out, _ = runs("compare", "a", "b", "--json", "--seed", 1)
    found = json.loads(out)
    assert [run["run"] for run in found["runs"]] == ["b", "a"]
    first, second = found["runs"]
    assert first["difference"]["mean"] == 0
    between = second["bound"]["mean"] - first["bound"]["mean"]
    assert second["difference"]["mean"] == pytest.approx(between)
    assert found["data_points"] == 40


@pytest.mark.parametrize(
    ("field", "words"),
    [("digest", "other data"), ("binarize", "otherwise"), ("levels", "other units")],
)
def test_runs_of_other_data_are_refused(field, words, runs, tmp_path):
    shutil.copytree("b", "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    changed = {"digest": "0" * 64, "binarize": "dynamic", "levels": 7}
    config["data"][field] = changed[field]
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    code, out, err = runs("compare", "a", "c")
    assert code == 2
    assert (out, err.count("\n")) == ("", 1)
    assert words in err
