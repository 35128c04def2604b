"""Data from named sets, arrays, image folders and tables; ``bad_inputs/`` has broken ones."""

import struct

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image

from ppl_vae import InputError, load_data
from ppl_vae.data.inspection import DataWarning
from ppl_vae.data.sources import data_folder

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(30, 6, 5), dtype=np.uint8)
TABLE = pd.DataFrame(RNG.normal(size=(40, 3)), columns=["a", "b", "c"])


def write_idx(file, array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(header + array.tobytes())


def write_set(folder, name):
    for part, count in (("train", 60), ("t10k", 20)):
        images = RNG.integers(256, size=(count, 28, 28), dtype=np.uint8)
        write_idx(folder / name / "raw" / f"{part}-images-idx3-ubyte", images)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(folder / name / "raw" / f"{part}-labels-idx1-ubyte", labels)
    return images


@pytest.fixture
def idx_folder(tmp_path):
    write_set(tmp_path, "MNIST")
    return tmp_path


def test_digits_are_the_1797_embedded_ones():
    data = load_data("digits")
    assert len(data.train) + len(data.validation) + len(data.test) == 1797
    assert data.levels == 16
    assert len(data.label_names) == 10
    assert data.train.x.dtype == torch.uint8


def test_idx_sets_in_torchvisions_layout(tmp_path):
    folders = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
    tests = {name: write_set(tmp_path, folder) for name, folder in folders.items()}
    for name, images in tests.items():
        data = load_data(name, data_dir=tmp_path)
        assert [len(s) for s in (data.train, data.validation, data.test)] == [55, 5, 20]
        assert torch.equal(data.test.x[:, 0], torch.from_numpy(images))
        assert torch.equal(data.test.labels, torch.arange(20) % 10)


def test_real_mnist(mnist_dir):
    data = load_data("mnist", data_dir=mnist_dir, binarize="dynamic")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [55_000, 5_000, 10_000]
    assert data.train.x.dtype == torch.uint8
    # The mean intensity of MNIST's training images is 0.1307.
    assert (data.train.x.double().mean() / 255).item() == pytest.approx(0.1307, abs=0.001)
    assert data.fixed("test").mean().item() == pytest.approx(0.1325, abs=0.001)


def test_the_folder_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPL_VAE_DATA", str(tmp_path))
    assert data_folder("elsewhere").name == "elsewhere"
    assert data_folder() == tmp_path
    monkeypatch.delenv("PPL_VAE_DATA")
    assert data_folder().name == "ppl-vae"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "kmnist"])
def test_without_a_network_it_says_how_to_place_the_files(name, tmp_path, monkeypatch):
    for kind in (
        torchvision.datasets.MNIST,
        torchvision.datasets.FashionMNIST,
        torchvision.datasets.KMNIST,
    ):
        monkeypatch.setattr(kind, "mirrors", ["file:///nonexistent/"])
    with pytest.raises(InputError) as caught:
        load_data(name, data_dir=tmp_path)
    assert caught.value.culprit == name
    assert caught.value.remedy == "data-dir"
    assert caught.value.details["folder"].is_relative_to(tmp_path)
    for words in (str(tmp_path), "train-images-idx3-ubyte, train-labels"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 3, 10, -1])
@pytest.mark.parametrize("part", ["train-images-idx3", "t10k-labels-idx1"])
def test_a_truncated_idx_file_is_named(idx_folder, part, keep):
    file = idx_folder / "MNIST" / "raw" / f"{part}-ubyte"
    whole = file.read_bytes()
    file.write_bytes(whole[: min(keep, len(whole) - 1)])
    with pytest.raises(InputError) as caught:
        load_data("mnist", data_dir=idx_folder)
    assert caught.value.culprit == str(file)


def test_arrays(tmp_path):
    np.save(tmp_path / "x.npy", IMAGES)
    data = load_data(tmp_path / "x.npy", binarize="dynamic")
    assert data.shape == (1, 6, 5)
    np.savez(tmp_path / "xy.npz", x=IMAGES, y=np.arange(30) % 2)
    assert load_data(tmp_path / "xy.npz").label_names == ("0", "1")
    np.savez_compressed(
        tmp_path / "four.npz",
        x_train=IMAGES,
        y_train=np.arange(30) % 2,
        x_test=IMAGES[:4],
        y_test=np.arange(4) % 2,
    )
    data = load_data(tmp_path / "four.npz")
    assert torch.equal(data.test.x[:, 0], torch.from_numpy(IMAGES[:4]))
    assert data.test.labels.tolist() == [0, 1, 0, 1]
    np.savez(tmp_path / "one.npz", anything=IMAGES)
    assert load_data(tmp_path / "one.npz").shape == (1, 6, 5)


def test_further_arrays_are_covariates(tmp_path):
    mask, age = RNG.random((30, 6, 5)) < 0.5, np.arange(30.0)
    np.savez(tmp_path / "x.npz", x=IMAGES, y=np.arange(30) % 2, mask=mask, age=age)
    data = load_data(tmp_path / "x.npz")
    assert data.label_names == ("0", "1")
    for split in (data.train, data.validation, data.test):
        assert split.covariates.keys() == {"mask", "age"}
        assert torch.equal(split.covariates["mask"], torch.from_numpy(mask)[split.rows])
        assert torch.equal(split.covariates["age"], split.rows.double())
    np.savez(
        tmp_path / "parts.npz",
        x_train=IMAGES,
        age_train=age,
        x_test=IMAGES[:4],
        age_test=age[:4] + 100,
    )
    data = load_data(tmp_path / "parts.npz")
    assert data.test.labels is None
    assert data.test.covariates["age"].tolist() == [100, 101, 102, 103]
    assert torch.equal(data.train.covariates["age"], data.train.rows.double())


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": 30, "class": 30},  # a keyword of Python
        {"x": 30, "a-b": 30},
        {"x": 30, "mask": 29},
        {"x": 30, "y_test": 30},
        {"x": 30, "mask_train": 30},
        {"x_train": 30, "x_test": 4, "mask": 30},
        {"x_train": 30, "x_test": 4, "mask_train": 30},
        {"x_train": 30, "x_test": 4, "mask_test": 4},
        {"x_train": 30, "x_test": 4, "mask_train": 30, "mask_test": 5},
        {"x_train": 30, "x_test": 4, "self_train": 30, "self_test": 4},
        {"x": 30, **{f"c{i}": 30 for i in range(16)}},
    ],
    ids=lambda arrays: "-".join(arrays)[:30],
)
def test_covariates_that_no_program_could_take_are_refused(arrays, tmp_path):
    file = tmp_path / "d.npz"
    np.savez(file, **{name: np.ones((count, 2)) for name, count in arrays.items()})
    with pytest.raises(InputError) as caught:
        load_data(file)
    assert caught.value.culprit.startswith(str(file))


def test_as_many_covariates_as_are_read(tmp_path):
    names = ["x", *(f"c{i}" for i in range(15))]
    np.savez(tmp_path / "d.npz", **{name: np.ones((30, 2)) for name in names})
    assert len(load_data(tmp_path / "d.npz").train.covariates) == 15


def test_image_folders(tmp_path):
    for i, image in enumerate(IMAGES):
        folder = tmp_path / ("even" if i % 2 == 0 else "odd")
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:02}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image either")
    with pytest.warns(DataWarning, match="1 .txt"):
        data = load_data(tmp_path)
    assert data.shape == (1, 6, 5)
    assert data.label_names == ("even", "odd")
    stored = torch.cat([data.test.x, data.validation.x, data.train.x])[:, 0]
    assert sorted(map(str, stored.tolist())) == sorted(map(str, IMAGES.tolist()))


def test_colour_images(tmp_path):
    for i in range(12):
        colours = RNG.integers(256, size=(6, 5, 3), dtype=np.uint8)
        Image.fromarray(colours).save(tmp_path / f"{i}.bmp")
    data = load_data(tmp_path)
    assert data.shape == (3, 6, 5)
    assert data.label_names == ()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables(tmp_path, suffix):
    file = tmp_path / f"table{suffix}"
    table = TABLE.assign(label=["x", "y"] * 20)
    table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file)
    data = load_data(file)
    assert data.shape == (3,)
    assert data.label_names == ("x", "y")
    stored = torch.cat([data.test.x, data.validation.x, data.train.x])
    np.testing.assert_allclose(sorted(stored[:, 0].tolist()), sorted(TABLE["a"]))


def test_a_header_that_pandas_made_up_is_not_a_datum(tmp_path):
    pd.DataFrame(TABLE.to_numpy()).to_csv(tmp_path / "t.csv", index=False)
    data = load_data(tmp_path / "t.csv")
    assert len(data.train) + len(data.validation) + len(data.test) == 40


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_columns_of_several_types_are_all_numbers(tmp_path, suffix):
    table = TABLE.assign(flag=TABLE["a"] > 0, count=pd.array(range(40), dtype="Int64"))
    file = tmp_path / f"t{suffix}"
    table.to_csv(file, index=False) if suffix == ".csv" else table.to_parquet(file)
    data = load_data(file)
    assert data.shape == (5,)
    assert set(data.train.x[:, 3].tolist()) == {0.0, 1.0}


def test_a_folder_that_was_there_before_a_failed_download_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["file:///nonexistent/"])
    (tmp_path / "mine").mkdir()
    for name in ("mine", "made"):
        with pytest.raises(InputError) as caught:
            load_data("mnist", data_dir=tmp_path / name)
        assert caught.value.remedy == "data-dir"
    assert [p.name for p in tmp_path.rglob("*")] == ["mine"]


def test_a_csv_without_a_header_keeps_its_first_row(tmp_path):
    TABLE.to_csv(tmp_path / "t.csv", index=False, header=False)
    data = load_data(tmp_path / "t.csv")
    assert len(data.train) + len(data.validation) + len(data.test) == 40
