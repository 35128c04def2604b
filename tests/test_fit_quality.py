"""What is said of a fit that is no better than none, and why."""

import json

import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae import Settings, make_data, score
from ppl_vae.diagnostics.fit_quality import judge_fit
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(400, 2)) @ RNG.normal(size=(2, 6)) + 0.1 * RNG.normal(size=(400, 6))
SHORT = Settings(epochs=4, batch_size=32, engine="eager")


def judged(x, program=None, settings=SHORT, **given):
    data = make_data(x, **given)
    torch.manual_seed(0)
    if program is None:
        program = VAE(data.shape, latent_dim=2, hidden=(16,), likelihood="gaussian")
    history = ppl_vae.fit(program, data, settings, progress=False)
    return judge_fit(program, data, history, settings, score(program, data.batch("test")))


def spoilt(row, column):
    x = TABLE.copy()
    x[row, column] = 1e10
    return x


STAMPS = (1_700_000_000 + np.arange(2400).reshape(400, 6)).astype(float)
CAUSES = {
    "large": (1e6 * TABLE, ["standard deviation of 'column 0', 'column 1', 'column 2' and 3 more"]),
    "one-large": (TABLE * [1, 1, 1, 1, 1, 1e5], ["standard deviation of 'column 5' is far from 1"]),
    "far": (TABLE + 1e5, ["mean of 'column 0'", "far from 0"]),
    "stamps": (STAMPS, ["single precision does not tell values of 'column 0'", "offset"]),
}


@pytest.mark.filterwarnings("ignore::ppl_vae.data.inspection.DataWarning")
@pytest.mark.parametrize("name", CAUSES)
def test_a_poor_fit_names_its_cause(name):
    x, words = CAUSES[name]
    first = judged(x).warnings[0]
    assert first.startswith("the fit is worse than independent columns: its bound on log p(x)")
    for word in words:
        assert word in first, first
    assert "\n" not in first


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_outlier_is_named_wherever_it_lies(split):
    data = make_data(TABLE)
    row = int(getattr(data, split).rows[3])
    quality = judged(spoilt(row, 2))
    assert f"row {row} holds 1e+10 in 'column 2'" in quality.warnings[0]
    # It alone does not decide on the others.
    assert abs(quality.gain.mean) < 1e6


def test_a_good_fit_says_nothing():
    settings = Settings(epochs=60, batch_size=32, learning_rate=1e-2)
    for program in (None, LinearGaussian((6,), latent_dim=2)):
        quality = judged(TABLE, program, settings)
        assert quality.warnings == ()
        assert quality.gain.mean > 1
        assert quality.independent.n == 40


def test_a_fit_of_missing_values_is_compared_on_what_is_observed():
    from .tables import Incomplete

    mask = RNG.random((400, 5)) < 0.7
    x = np.where(mask, TABLE[:, :5], 0.0)
    quality = judged(x, Incomplete((5,)), covariates={"mask": mask})
    assert quality.independent is not None
    assert np.isfinite(quality.gain.mean)


def test_a_fit_that_has_not_moved_is_the_mean():
    quality = judged(TABLE, settings=Settings(epochs=1, learning_rate=1e-12, engine="eager"))
    said = quality.warnings[-1]
    assert said.startswith("reconstructions are no nearer to test data than the mean")
    assert "more epochs" in said


def test_a_collapsed_posterior_is_the_mean():
    class Blind(VAE):
        def encode(self, x, mask=None):
            return super().encode(0 * x, mask)

    program = Blind((6,), latent_dim=2, hidden=(4,), likelihood="gaussian")
    settings = Settings(epochs=100, batch_size=32, learning_rate=2e-2)
    (said,) = (w for w in judged(TABLE, program, settings).warnings if "mean of the training" in w)
    assert "the posterior has collapsed" in said
    assert "free bits" in said


def test_a_point_mass_has_no_density_to_compare():
    quality = judged(TABLE, Autoencoder((6,), latent_dim=2, hidden=(16,), likelihood="gaussian"))
    assert quality.independent is None


def test_train_prints_the_comparison_and_its_warnings(shell, tmp_path):
    np.save(tmp_path / "a.npy", 1e3 * TABLE)
    words = ["train", "--data", "a.npy", "--likelihood", "gaussian", "--hidden", 4]
    words += ["--latent-dim", 2, "--epochs", 1, "--likelihood-scale", 0.01, "--output", "run"]
    code, out, err = shell(*words)
    assert code == 0
    assert "log p(x) of independent columns" in out
    (line,) = (line for line in err.splitlines() if "independent columns" in line)
    assert line.startswith("warning: the fit is worse than independent columns")
    code, out, err = shell(*words, "--json", "--overwrite")
    found = json.loads(out)
    assert found["independent_columns"].keys() == {"mean", "stderr", "n"}
    assert [f"warning: {w}" for w in found["warnings"]] == [
        line for line in err.splitlines() if line.startswith("warning")
    ]
