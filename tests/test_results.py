"""Results as labelled arrays: what is written is what was found, whole or not at all."""

import hashlib
import json

import numpy as np
import pytest
import torch
import xarray

from ppl_vae import Annealing, InputError, score
from ppl_vae.evidence.results import MEANINGS, as_dataset, as_json, write_results
from ppl_vae.inference.estimate import estimate
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

from .programs import TwoLayers

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
ABOUT = {"split": "test", "draws": 10}


def test_every_value_comes_back_with_unit_and_meaning(tmp_path):
    scores = score(TwoLayers(), X, draws=10)
    dataset = as_dataset(scores, torch.arange(6) * 2, ABOUT)
    summary = as_json(scores.estimates(), ABOUT, scores.ledger())
    files = write_results(tmp_path / "found.nc", dataset, summary)
    assert [file.name for file in files] == ["found.nc", "found.json"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["found.json", "found.nc"]
    with xarray.open_dataset(tmp_path / "found.nc", engine="h5netcdf") as back:
        assert back.attrs == ABOUT
        assert back.sizes == {"datum": 6}
        for name, values in scores.per_datum.items():
            np.testing.assert_array_equal(back[name], values)
        for name in ("log_p_x", "log_p_z1", "log_q_z2", "row"):
            assert name in back
        for variable in back.data_vars.values():
            assert variable.attrs["long_name"]
            assert variable.attrs["units"] in {"nats", "bits", "1"}
    digest = hashlib.sha256((tmp_path / "found.nc").read_bytes()).hexdigest()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found == {**summary, "netcdf_sha256": digest}
    assert summary["elbo"]["mean"] == scores.per_datum["elbo"].mean().item()


def test_every_term_of_every_estimator_has_a_meaning():
    program = LinearGaussian((5,))
    for estimator in ("iw", "ais", "bdmc"):
        settings = Annealing(chains=2, temperatures=3)
        _, scores = estimate(estimator, program, X.double(), annealing=settings)
        assert scores.per_datum.keys() <= MEANINGS.keys()
        as_dataset(scores, None, ABOUT)
    assert "bits_per_dim" in score(VAE((5,), hidden=(4,)), (X > 0).float()).per_datum
    assert score(Autoencoder((5,), likelihood="gaussian"), X).per_datum.keys() <= MEANINGS.keys()


def test_a_single_datum_has_no_standard_error_in_json():
    scores = score(TwoLayers(), X[:1])
    assert as_json(scores.estimates(), {})["elbo"]["stderr"] is None


def test_names_that_netcdf_does_not_take():
    scores = score(TwoLayers(), X)
    renamed = type(scores)(scores.per_datum, prior={"a/b.c": scores.prior["z1"]})
    assert "log_p_a_b_c" in as_dataset(renamed, None, {})


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path):
    scores = score(TwoLayers(), X)
    dataset = as_dataset(scores, None, ABOUT)
    with pytest.raises(InputError, match="cannot be written"):
        write_results(tmp_path / "nowhere" / "found.nc", dataset, {})
    (tmp_path / "found.json").mkdir()
    with pytest.raises(InputError) as error:
        write_results(tmp_path / "found.nc", dataset, {})
    assert error.value.culprit == str(tmp_path / "found.json")
    assert [file.name for file in tmp_path.iterdir()] == ["found.json"]


def test_a_file_that_is_no_result_is_not_replaced(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    dataset = as_dataset(score(TwoLayers(), X), None, ABOUT)
    with pytest.raises(InputError) as error:
        write_results(tmp_path / "config.nc", dataset, {})
    assert error.value.culprit == str(tmp_path / "config.json")
    assert (tmp_path / "config.json").read_text() == "{}"
    for _ in range(2):  # a result of its own is
        write_results(tmp_path / "mine.nc", dataset, {})
