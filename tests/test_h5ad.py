"""AnnData files, where anndata is installed."""

import numpy as np
import pandas as pd
import pytest

from ppl_vae import InputError, load_data
from ppl_vae.data.reading import Reading
from ppl_vae.data.sources import read_rows

COUNTS = np.random.default_rng(0).poisson(0.3, size=(40, 5)).astype("float32")


def test_without_anndata_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "anndata", None)
    (tmp_path / "a.h5ad").write_bytes(b"")
    with pytest.raises(InputError, match=r"pip install 'ppl-vae\[anndata\]'"):
        load_data(tmp_path / "a.h5ad")


def text(names):
    return pd.Index([*names], dtype=object)


@pytest.fixture(params=["dense", "sparse"])
def file(request, tmp_path):
    anndata = pytest.importorskip("anndata")
    sparse = pytest.importorskip("scipy.sparse")
    matrix = COUNTS if request.param == "dense" else sparse.csr_matrix(COUNTS)
    obs = pd.DataFrame(
        {"kind": pd.Categorical(["T", "B", None, "B"] * 10, text(["B", "T"]))},
        index=text(f"cell{i}" for i in range(40)),
    )
    made = anndata.AnnData(matrix, obs, pd.DataFrame(index=text(f"gene{i}" for i in range(5))))
    made.layers["twice"] = 2 * made.X
    made.write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def test_cells_are_data_points_and_genes_are_columns(file):
    data = load_data(file, reading=Reading(label="kind", layer="twice"))
    np.testing.assert_array_equal(data.train.x, 2 * COUNTS[data.train.rows])
    assert [(c.name, c.kind) for c in data.columns] == [(f"gene{i}", "count") for i in range(5)]
    assert (data.label_names, data.row_names[3]) == (("B", "T"), "cell3")
    assert set(data.train.labels[data.train.rows % 4 == 2].tolist()) == {-1}
    like = {"shape": [5], "binarize": "none", "levels": None}
    like["columns"] = [c.plain() for c in data.columns]
    batch, names = read_rows(file, like)
    np.testing.assert_array_equal(batch.x, COUNTS)
    assert names[0] == "cell0"


@pytest.mark.parametrize("said", [{"label": "type"}, {"layer": "raw"}])
def test_what_is_not_there_is_named(file, said):
    with pytest.raises(InputError, match=next(iter(said.values()))):
        load_data(file, reading=Reading(**said))


def test_a_broken_file_is_named(file):
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError) as caught:
        load_data(file)
    assert caught.value.culprit == str(file)
