"""What people have at hand in Python: frames, sparse matrices, data sets, lists, masked arrays."""

import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from ppl_vae import InputError, load_data, make_data
from ppl_vae.data.inspection import DataWarning
from ppl_vae.data.reading import Reading

RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.7, size=(40, 5))
X = torch.from_numpy(RNG.normal(size=(40, 5)))


def stored(data):
    """All of x, in the order in which it was given."""
    parts = (data.train, data.validation, data.test)
    rows = torch.cat([part.rows for part in parts])
    return torch.cat([part.x for part in parts])[rows.argsort()]


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.items[place]


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3)


ARRAYS = {
    "csr": scipy.sparse.csr_array(COUNTS),
    "csc matrix": scipy.sparse.csc_matrix(COUNTS),
    "coo": scipy.sparse.coo_array(COUNTS),
    "frame": pd.DataFrame(COUNTS),
    "nullable frame": pd.DataFrame(COUNTS).convert_dtypes(),
    "sparse frame": pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_matrix(COUNTS)),
    "decimals": pd.DataFrame([[Decimal(int(v)) for v in row] for row in COUNTS]),
    "tensors": TensorDataset(torch.from_numpy(COUNTS)),
    "items": Items([torch.from_numpy(row) for row in COUNTS]),
    "part": Subset(TensorDataset(torch.from_numpy(COUNTS).repeat(2, 1)), range(40)),
    "list": [torch.from_numpy(row).float().requires_grad_() for row in COUNTS],
    "parameter": torch.nn.Parameter(torch.from_numpy(COUNTS).float()),
    "bytes": COUNTS.astype(np.uint8),
    "byte tensor": torch.from_numpy(COUNTS).byte(),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_one_table_of_counts_in_many_objects(name):
    data = make_data(ARRAYS[name])
    np.testing.assert_array_equal(stored(data), COUNTS)
    assert data.levels is None
    assert {column.kind for column in data.columns} <= {"count", "binary"}


def test_labels_of_pairs():
    labels = torch.arange(40) % 3
    for given in (TensorDataset(X, labels), Items([*zip(X, labels.tolist(), strict=True)])):
        data = make_data(given)
        assert torch.equal(data.train.labels, data.train.rows % 3)
        assert data.label_names == ("0", "1", "2")
        with pytest.raises(InputError, match="labels, and others are given"):
            make_data(given, labels=labels)


REFUSED = {
    "stream": Stream(),
    "targets": TensorDataset(X, X[:, 0]),
    "triples": TensorDataset(X, X, X),
    "dictionaries": Items([{"x": x} for x in X]),
    "broken": Items({0: X[0]}),
    "ragged list": [torch.zeros(3), torch.zeros(4)],
    "empty": Items([]),
    "frame of dates": pd.DataFrame({"a": [1.5] * 9, "t": [datetime.date(2024, 1, 1)] * 9}),
    "frame of times": pd.DataFrame({"a": [1.5] * 9, "t": pd.date_range("2024", periods=9)}),
    "frame of lists": pd.DataFrame({"a": [1.5] * 9, "l": [[1]] * 9}),
    "frame of units": pd.DataFrame({"a": [1.5] * 9, "u": ["5 kg"] * 9}),
    "frame of both": pd.DataFrame({"a": [1.5] * 9, "u": ["5", 5, None] * 3}),
    "frame with twins": pd.DataFrame(np.zeros((9, 2)), columns=["a", "a"]),
    "frame of identifiers": pd.DataFrame({"a": [1.5] * 9, "i": [2**53 + 1] * 9}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_data_is_refused(name):
    with pytest.raises(InputError) as caught:
        make_data(REFUSED[name])
    assert caught.value.culprit == "array"
    assert caught.value.remedy


def test_a_sparse_matrix_that_is_too_large_when_dense():
    with pytest.raises(InputError, match="of memory"):
        make_data(scipy.sparse.csr_array((10**7, 10**6)))


FRAME = pd.DataFrame(
    {
        "size": pd.Categorical(["s", "m", "l", None] * 10, ["s", "m", "l"], ordered=True),
        "town": pd.array(["B", "A", "C", None] * 10, dtype="string"),
        "ok": pd.array([True, False, None, True] * 10, dtype="boolean"),
        "kids": pd.array([0, 1, 5, None] * 10, dtype="Int64"),
        "height": RNG.normal(size=40),
    },
    index=[f"p{i}" for i in range(40)],
)


@pytest.mark.parametrize("way", ["frame", ".parquet"])
def test_types_of_columns_say_what_they_are(way, tmp_path):
    FRAME.to_parquet(tmp_path / "t.parquet")
    data = make_data(FRAME) if way == "frame" else load_data(tmp_path / "t.parquet")
    kinds = {c.name: (c.kind, c.categories) for c in data.columns}
    assert kinds == {
        "size": ("ordered", ("s", "m", "l")),
        "town": ("category", ("A", "B", "C")),
        "ok": ("binary", ("False", "True")),
        "kids": ("count", ()),
        "height": ("real", ()),
    }
    assert data.row_names == tuple(FRAME.index)
    mask = torch.cat([p.covariates["mask"] for p in (data.train, data.validation, data.test)])
    rows = torch.cat([p.rows for p in (data.train, data.validation, data.test)])
    np.testing.assert_array_equal(mask[rows.argsort()], FRAME.notna())
    assert stored(data)[:4, 0].tolist() == [0, 1, 2, 0]
    assert stored(data)[:3, 1].tolist() == [1, 0, 2]


def test_decimals_and_dates_in_parquet(tmp_path):
    file = tmp_path / "t.parquet"
    pd.DataFrame({"d": [Decimal(i) / 4 for i in range(40)], "x": COUNTS[:, 0]}).to_parquet(file)
    assert stored(load_data(file))[:, 0].tolist() == [i / 4 for i in range(40)]
    pd.DataFrame({"x": COUNTS[:, 0], "t": pd.date_range("2024", periods=40)}).to_parquet(file)
    with pytest.raises(InputError, match="'t' that holds dates"):
        load_data(file)
    dropped = Reading(schema={"t": {"drop": True}})
    assert load_data(file, reading=dropped).shape == (1,)
    folder = tmp_path / "parts.parquet"
    folder.mkdir()
    file.rename(folder / "part-0.parquet")
    with pytest.raises(InputError, match="a folder of Parquet files"):
        load_data(folder)


@pytest.mark.parametrize("suffix", [".csv.gz", ".xlsx", ".zip"])
def test_other_formats_say_what_to_do(suffix, tmp_path):
    (tmp_path / f"t{suffix}").write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError) as caught:
        load_data(tmp_path / f"t{suffix}")
    assert "unpack" in caught.value.remedy or "save it as" in caught.value.remedy


def test_bytes_of_images_are_grey_values_and_those_of_tables_may_be():
    grey = RNG.integers(256, size=(40, 5, 5), dtype=np.uint8)
    assert make_data(grey).levels == 255
    flat = grey.reshape(40, 25)
    assert make_data(flat).levels is None
    assert make_data(flat, levels=255).fixed("train").max() <= 1
    assert make_data(flat, binarize="dynamic").levels == 255  # as nothing else can be binarized
    assert make_data(flat, reading=Reading(levels=255)).levels == 255


MISSING = X.numpy().copy()
MISSING[RNG.random(MISSING.shape) < 0.2] = np.nan


@pytest.mark.parametrize("kind", ["array", "masked", "tensor", "frame", "float32"])
def test_missing_values_become_zeros_and_a_mask(kind):
    given = {
        "array": MISSING,
        "masked": np.ma.masked_invalid(MISSING),
        "tensor": torch.from_numpy(MISSING),
        "frame": pd.DataFrame(MISSING),
        "float32": MISSING.astype(np.float32),
    }[kind]
    data = make_data(given)
    batch = data.batch("train")
    seen = torch.from_numpy(~np.isnan(MISSING))[data.train.rows]
    assert torch.equal(batch["mask"], seen)
    assert batch["mask"].dtype == torch.bool
    assert (batch.x[~seen] == 0).all()
    for column, x in zip(data.columns, MISSING[data.train.rows.numpy()].T, strict=True):
        assert column.loc == pytest.approx(np.nanmean(x), rel=1e-5)
        assert column.scale == pytest.approx(np.nanstd(x), rel=1e-5)


def test_masks_meet():
    hidden = RNG.random(MISSING.shape) < 0.5
    data = make_data(MISSING, covariates={"mask": ~hidden})
    expected = torch.from_numpy(~hidden & ~np.isnan(MISSING))[data.train.rows]
    assert torch.equal(data.train.covariates["mask"], expected)
    with pytest.raises(InputError, match="a mask of shape"):
        make_data(MISSING, covariates={"mask": hidden[:, 0]})
    assert "mask" not in make_data(X).train.covariates


@pytest.mark.parametrize("where", ["train", "test"])
def test_both_parts_have_a_mask_if_one_misses_values(where):
    parts = (MISSING, X.numpy()[:9]) if where == "train" else (X.numpy(), MISSING[:9])
    data = make_data(parts[0], test=(parts[1], None))
    for part, given in ((data.train, parts[0]), (data.test, parts[1])):
        seen = torch.from_numpy(~np.isnan(given))[part.rows]
        assert torch.equal(part.covariates["mask"], seen)


def test_images_with_channels_last_keep_their_masks():
    images = RNG.normal(size=(40, 6, 5, 3))
    images[RNG.random(images.shape) < 0.1] = np.nan
    data = make_data(images)
    seen = torch.from_numpy(~np.isnan(images)).permute(0, 3, 1, 2)[data.train.rows]
    assert torch.equal(data.train.covariates["mask"], seen)


@pytest.mark.parametrize(
    "labels",
    [
        ["u", None] * 20,
        ["u", np.nan] * 20,
        pd.Series(["u", None] * 20),
        pd.Series(["u", pd.NA] * 20, dtype="string"),
        pd.Categorical(["u", None] * 20),
        np.array(["u", None] * 20, dtype=object),
    ],
)
def test_missing_labels_are_no_class(labels):
    data = make_data(X, labels)
    assert data.label_names == ("u",)
    assert torch.equal(data.train.labels, -(data.train.rows % 2))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, np.nan] * 20, ("1",)),
        (pd.array([1, None] * 20, dtype="Int64"), ("1",)),
        ([0.5, None] * 20, ("0.5",)),
        ([*range(39), None], tuple(map(str, range(39)))),
        (torch.arange(40) % 2, ("0", "1")),
        ([torch.tensor(1), torch.tensor(0)] * 20, ("0", "1")),
    ],
)
def test_classes_that_are_numbers(labels, names):
    data = make_data(X, labels)
    assert data.label_names == names


def test_labels_that_are_all_missing_are_refused():
    with pytest.raises(InputError, match="all missing"):
        make_data(X, [None] * 40)


def test_whole_numbers_keep_their_digits():
    stamps = 1_700_000_000 + RNG.integers(10**4, size=(40, 2))
    with pytest.warns(DataWarning, match="columns 'column 0' and 'column 1' are too far from zero"):
        data = make_data(stamps)
    np.testing.assert_array_equal(stored(data), stamps)
