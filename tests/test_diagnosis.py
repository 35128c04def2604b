"""All questions together: verdicts, InferenceData, and programs that leave some unanswered."""

import copy
import json
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ppl_vae
from ppl_vae.diagnostics.diagnosis import read_diagnosis, write_diagnosis
from ppl_vae.diagnostics.verdicts import GRADES
from ppl_vae.models import VAE, Autoencoder
from ppl_vae.storage.arviz_io import load_arviz, read_inference_data

from . import programs, tables
from .yardsticks import draw, ppca

QUESTIONS = [
    *("coverage", "calibration", "gaps", "reference", "collapse", "generation"),
    *("certificate", "local", "misspecification", "posterior_sbc"),
]
QUICK = ppl_vae.Effort(data_points=120, draws=400, simulations=500, gap_points=40, nuts_points=2)


@pytest.fixture(scope="module")
def vae_and_data():
    data = ppl_vae.load_data("digits", binarize="dynamic")
    torch.manual_seed(0)
    vae = VAE(data.shape, latent_dim=2, hidden=(32,))
    ppl_vae.fit(vae, data, ppl_vae.Settings(epochs=3), progress=False)
    return vae, data


@pytest.fixture(scope="module")
def diagnosis(vae_and_data):
    return ppl_vae.diagnose(*vae_and_data, QUICK)


def test_every_question_has_a_verdict(diagnosis):
    assert list(diagnosis.verdicts) == QUESTIONS
    for verdict in diagnosis.verdicts.values():
        assert verdict.grade in GRADES
        assert verdict.question.endswith("?")
        for text in (verdict.meaning, verdict.statistic, verdict.threshold, verdict.source):
            assert len(text) > 10
        assert bool(verdict.remedy) == (verdict.grade != "pass")
        assert np.isfinite([verdict.value, verdict.error]).all()
    # "cannot say" is for what is too close to a threshold.
    assert sum(v.grade == "cannot say" for v in diagnosis.verdicts.values()) <= 2


@pytest.mark.usefixtures("whole_chains_once")
def test_an_exact_guide_passes_whatever_is_asked_of_the_guide():
    program = ppca((2.0, 1.0, 0.7))
    data = ppl_vae.make_data(draw(program, 8000))
    effort = ppl_vae.Effort(draws=400, gap_points=20, nuts_points=3)
    found = ppl_vae.diagnose(program, data, effort)
    assert [v.grade for v in found.verdicts.values()] == ["pass"] * 10


def test_arviz_groups_have_named_dimensions(diagnosis):
    idata = diagnosis.inference_data
    known = {
        *("posterior", "prior", "posterior_predictive", "prior_predictive", "observed_data"),
        *("log_p_given_z", "sample_stats", "diagnostics"),
    }
    assert known <= set(idata.groups())
    assert idata.posterior["z"].dims == ("chain", "draw", "datum", "latent")
    assert idata.prior["z"].dims == idata.posterior["z"].dims
    pixels = ("channel", "height", "width")
    assert idata.observed_data["x"].dims == ("datum", *pixels)
    assert idata.posterior_predictive["x"].dims == ("chain", "draw", "datum", *pixels)
    assert idata.log_p_given_z["x"].dims == ("chain", "draw", "datum")
    stats = idata.sample_stats
    assert set(stats) == {"log_p", "log_q", "log_weight"}
    assert np.allclose(stats["log_p"] - stats["log_q"], stats["log_weight"], atol=1e-4)
    per_datum = idata.diagnostics
    assert per_datum.sizes == {"datum": 120}
    for name in (
        *("k_hat", "ess", "elbo", "iw_bound", "iw_error"),
        *("approximation_gap", "amortization_gap", "row", "label"),
    ):
        assert per_datum[name].dims == ("datum",)
    assert int(np.isfinite(per_datum["approximation_gap"]).sum()) == 40
    for group in idata.groups():
        for name, array in idata[group].data_vars.items():
            assert array.attrs["long_name"], (group, name)
            assert array.attrs["units"], (group, name)


def test_the_draws_and_densities_are_of_each_other(diagnosis, vae_and_data):
    vae = copy.deepcopy(vae_and_data[0]).cpu()
    idata = diagnosis.inference_data
    x = torch.as_tensor(idata.observed_data["x"].values)
    z = torch.as_tensor(idata.posterior["z"].values[0])
    loc, raw = vae.encoder(x).chunk(2, -1)
    scale = torch.nn.functional.softplus(raw)
    guide = torch.distributions.Normal(loc, scale).log_prob(z).sum(-1)
    log_q = torch.as_tensor(idata.sample_stats["log_q"].values[0])
    assert (guide - log_q).abs().max() < 0.05  # the scale has a floor of 1e-4 more
    likelihood = torch.distributions.Bernoulli(logits=vae.decoder(z))
    log_p = likelihood.log_prob(x).flatten(2).sum(-1).detach().numpy()
    assert np.allclose(log_p, idata.log_p_given_z["x"].values[0], atol=1e-2)


@pytest.fixture
def figures():
    yield
    plt.close("all")


@pytest.mark.usefixtures("figures")
def test_arvizs_own_functions_run_on_it_as_it_is(diagnosis):
    arviz, idata = load_arviz(), diagnosis.inference_data
    few = idata.isel(datum=slice(0, 3), groups=["posterior"])
    with matplotlib.rc_context({"backend": "agg"}), warnings.catch_warnings():
        # ArviZ 0.23 uses what matplotlib 3.11 deprecates, and deprecates arrays of k-hat itself.
        warnings.simplefilter("ignore", (DeprecationWarning, FutureWarning))
        summary = arviz.summary(few, var_names=["z"])
        assert len(summary) == 6
        assert summary["r_hat"].isna().all()  # one chain: of independent draws it says nothing
        arviz.plot_forest(few, var_names=["z"])
        for group in ("posterior", "prior"):
            arviz.plot_ppc(idata, group=group, num_pp_samples=5)
        pit = (idata.calibration["rank"].values[:, 0] + 0.5) / 101
        points = np.linspace(0.01, 0.99, 50)
        arviz.plot_ecdf(pit, eval_points=points, cdf=lambda u: np.clip(u, 0, 1), difference=True)
        arviz.plot_khat(idata.diagnostics["k_hat"])
        assert len(plt.get_fignums()) == 5


def test_the_same_seed_gives_the_same_bits(diagnosis, vae_and_data):
    again = ppl_vae.diagnose(*vae_and_data, QUICK)
    assert again.as_dict() == diagnosis.as_dict()
    for group in diagnosis.inference_data.groups():
        assert again.inference_data[group].equals(diagnosis.inference_data[group]), group
    other = ppl_vae.diagnose(*vae_and_data, QUICK, seed=1)
    assert not other.inference_data.calibration.equals(diagnosis.inference_data.calibration)


def test_it_leaves_the_program_and_random_state_alone(vae_and_data):
    vae, data = vae_and_data
    before, state = {k: v.clone() for k, v in vae.state_dict().items()}, torch.get_rng_state()
    vae.train()
    ppl_vae.diagnose(vae, data, QUICK)
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert vae.training


def test_it_is_written_and_read_as_it_was(diagnosis, tmp_path):
    files = write_diagnosis(tmp_path / "results", diagnosis)
    assert [file.name for file in files] == ["diagnosis.nc", "diagnosis.json"]
    assert sorted(f.name for f in (tmp_path / "results").iterdir()) == sorted(f.name for f in files)
    read = read_diagnosis(tmp_path / "results")
    assert read.verdicts == diagnosis.verdicts
    assert read.about == diagnosis.about
    assert set(read.inference_data.groups()) == set(diagnosis.inference_data.groups())
    for group in read.inference_data.groups():
        assert read.inference_data[group].equals(diagnosis.inference_data[group]), group
    plain = json.loads(files[1].read_text())
    assert plain["verdicts"]["coverage"]["value"] == diagnosis.verdicts["coverage"].value


@pytest.mark.parametrize("harm", ["truncate", "replace", "remove", "garble", "strip"])
def test_broken_results_are_refused_in_one_line(diagnosis, tmp_path, harm):
    netcdf, beside = write_diagnosis(tmp_path, diagnosis)
    if harm == "truncate":
        netcdf.write_bytes(netcdf.read_bytes()[:5000])
    elif harm == "replace":
        netcdf.write_text("no netCDF")
    elif harm == "remove":
        netcdf.unlink()
    elif harm == "garble":
        beside.write_text("[" * 100000)
    else:
        beside.write_text('{"verdicts": {"coverage": {"colour": "red"}}}')
    with pytest.raises(ppl_vae.InputError) as error:
        read_diagnosis(tmp_path)
    assert error.value.remedy == "diagnose-again"
    assert "\n" not in str(error.value)


def test_what_cannot_be_written_is_said(diagnosis, tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(ppl_vae.InputError, match="cannot be made"):
        write_diagnosis(tmp_path / "results", diagnosis)


def test_progress_adds_up_to_all_of_the_work(vae_and_data):
    seen = []

    def look(share, note):
        if note:
            seen.append([note, 0.0])
        seen[-1][1] += share

    ppl_vae.diagnose(*vae_and_data, QUICK, on_progress=look)
    assert [question for question, _ in seen] == QUESTIONS
    assert sum(share for _, share in seen) == pytest.approx(1)
    assert min(share for _, share in seen) > 0


def grades(program, x, effort=QUICK):
    found = ppl_vae.diagnose(program, ppl_vae.make_data(x), effort)
    return {key: verdict.grade for key, verdict in found.verdicts.items()}, found


def test_a_program_without_a_density_is_asked_what_it_generates():
    torch.manual_seed(0)
    program = Autoencoder((5,), latent_dim=2, hidden=(8,), likelihood="gaussian")
    found, diagnosis = grades(program, torch.randn(1200, 5))
    del found["generation"]
    assert diagnosis.verdicts["generation"].value is not None
    assert set(found.values()) == {"cannot say"}
    assert all("point mass" in diagnosis.verdicts[key].meaning for key in found)
    assert "posterior_predictive" in diagnosis.inference_data.groups()
    assert "sample_stats" not in diagnosis.inference_data.groups()


def test_a_fit_that_diverged_is_said_to_have_done_so():
    torch.manual_seed(0)
    program = programs.Minimal()
    with torch.no_grad():
        program.encoder.bias[0] = torch.nan
    found, diagnosis = grades(program, torch.randn(1200, 5))
    assert set(found.values()) == {"cannot say"}
    assert all("diverged" in verdict.meaning for verdict in diagnosis.verdicts.values())


class Broken(VAE):
    """Its guide does not run."""

    def guide(self, x, **covariates):
        raise RuntimeError("a guide that is not finished")


def test_a_program_that_does_not_run_leaves_all_questions_open():
    found, diagnosis = grades(Broken((5,), hidden=(8,)), torch.rand(1200, 5).round())
    assert set(found.values()) == {"cannot say"}
    assert "not finished" in diagnosis.verdicts["coverage"].meaning


def test_data_of_another_shape_are_refused():
    with pytest.raises(ppl_vae.InputError, match="takes x of shape"):
        grades(VAE((7,), hidden=(8,)), torch.rand(1200, 5).round())


def test_too_few_data_or_draws_leave_some_open():
    torch.manual_seed(0)
    effort = ppl_vae.Effort(draws=20, simulations=20, nuts_points=1)
    found, _ = grades(programs.Minimal(), torch.randn(30, 5), effort)
    assert found.pop("reference") in ("pass", "caution", "fail")
    assert set(found.values()) == {"cannot say"}


@pytest.mark.parametrize("name", ["TwoLayers", "Discrete", "Planar", "Sigmoids", "Rescaled"])
def test_odd_programs_are_diagnosed_as_far_as_they_go(name):
    torch.manual_seed(0)
    found, diagnosis = grades(getattr(programs, name)(), torch.randn(1200, 5))
    assert found.keys() == set(QUESTIONS)
    for asked in ("calibration", "coverage"):  # which may be too close to a threshold to tell
        assert diagnosis.verdicts[asked].value is not None
    for verdict in diagnosis.verdicts.values():
        assert "\n" not in verdict.meaning
    assert {"posterior", "diagnostics"} <= set(diagnosis.inference_data.groups())


def test_whatever_a_program_raises_the_other_questions_go_on():
    class Fragile(programs._Variant):
        def guide(self, x):
            assert len(x) < 30, "too much for me"
            super().guide(x)

    torch.manual_seed(0)
    found, diagnosis = grades(Fragile(), torch.randn(1200, 5))
    assert found["coverage"] == "cannot say"
    assert diagnosis.verdicts["coverage"].meaning == "it met AssertionError: too much for me"
    assert found["reference"] != "cannot say"
    assert "too much for me" in diagnosis.about["left_out"]


def test_the_predictives_have_noise_of_their_own(diagnosis):
    idata = diagnosis.inference_data
    noise = [
        (idata[f"{name}_predictive"]["x"] - idata[f"{name}_predictive"]["x_mean"]).values.ravel()
        for name in ("posterior", "prior")
    ]
    assert abs(np.corrcoef(*noise)[0, 1]) < 4.5 / len(noise[0]) ** 0.5


def test_numbers_of_numpy_are_written(vae_and_data, tmp_path):
    effort = ppl_vae.Effort(*(np.int64(n) for n in (20, 400, 100, 10, 1)))
    diagnosis = ppl_vae.diagnose(*vae_and_data, effort)
    assert read_diagnosis(write_diagnosis(tmp_path, diagnosis)[0].parent).about["draws"] == 400


def test_a_library_that_fails_leaves_one_question_open(vae_and_data, monkeypatch):
    def fails(*args):
        raise RuntimeError("no such thing\nand more")

    monkeypatch.setattr("ppl_vae.diagnostics.questions.ask_gaps", fails)
    found = ppl_vae.diagnose(*vae_and_data, QUICK).verdicts
    assert found["gaps"].grade == "cannot say"
    assert found["gaps"].meaning == "it met RuntimeError: no such thing"
    assert found["coverage"].grade != "cannot say"


@pytest.mark.parametrize(
    "name", ["data_points", "draws", "simulations", "gap_points", "nuts_points"]
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_efforts_that_are_none_are_refused(name, value):
    with pytest.raises(ppl_vae.InputError) as error:
        ppl_vae.Effort(**{name: value})
    assert error.value.culprit == name


def test_what_is_not_a_program_or_a_data_set_is_refused(vae_and_data):
    vae, data = vae_and_data
    for culprit, call in (
        ("Linear", lambda: ppl_vae.diagnose(torch.nn.Linear(2, 2), data)),
        ("data", lambda: ppl_vae.diagnose(vae, torch.zeros(10, 1, 8, 8))),
        ("seed", lambda: ppl_vae.diagnose(vae, data, seed=-1)),
        ("effort", lambda: ppl_vae.diagnose(vae, data, effort=10)),
    ):
        with pytest.raises(ppl_vae.InputError) as error:
            call()
        assert error.value.culprit == culprit


def test_reading_runs_no_code(tmp_path):
    import pickle

    (tmp_path / "x.nc").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ppl_vae.InputError) as error:
        read_inference_data(tmp_path / "x.nc")
    assert error.value.culprit == str(tmp_path / "x.nc")


def test_what_is_given_and_what_is_observed_are_told_apart(tmp_path):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (400,), generator=generator)
    drawn = ppl_vae.prior_predictive(tables.Conditional(), (5,), 400, 0, {"y": y})
    data = ppl_vae.make_data(drawn.x, covariates={"y": y})
    effort = ppl_vae.Effort(draws=400, simulations=100, gap_points=10, nuts_points=1)
    found = {
        kind: ppl_vae.diagnose(kind(), data, effort)
        for kind in (tables.Conditional, tables.Labelled)
    }
    given, observed = (d.inference_data for d in found.values())
    assert set(given.observed_data) == set(given.log_p_given_z) == {"x"}
    assert set(given.constant_data) == {"y"}
    assert "constant_data" not in observed.groups()
    assert set(observed.observed_data) == set(observed.log_p_given_z) == {"x", "y"}
    assert set(observed.posterior_predictive) == {"x", "x_mean", "y"}
    assert observed.posterior_predictive["y"].dims == ("chain", "draw", "datum")
    for group in (given.constant_data, observed.observed_data):
        assert (group["y"].values == data.test.covariates["y"][:40].numpy()).all()
    assert not any(
        verdict.meaning.startswith("it met") for verdict in found[tables.Labelled].verdicts.values()
    )
    write_diagnosis(tmp_path, found[tables.Labelled])
    assert set(read_diagnosis(tmp_path).inference_data.observed_data) == {"x", "y"}


def test_data_of_a_program_that_does_not_run_are_kept():
    _, diagnosis = grades(Broken((5,), hidden=(8,)), torch.rand(1200, 5).round())
    assert diagnosis.inference_data.observed_data["x"].shape == (50, 5)
    assert "posterior" not in diagnosis.inference_data.groups()


def test_it_is_short_where_it_is_printed(diagnosis):
    assert repr(diagnosis).startswith("Diagnosis(coverage: ")
    verdict = diagnosis.verdicts["gaps"]
    assert repr(verdict) == f"Verdict({verdict.grade}: {verdict.question} {verdict.statistic_text})"
    assert str(diagnosis).count("\n") == 10  # the reading, and a line for each
