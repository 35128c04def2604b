"""Named data sets, and the user's own files by their formats."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import Binarize
from ..errors import InputError, as_path, first_line
from ..storage.memory import refuse_beyond_memory, regular_size, tell_lack_of_memory
from .arrays import read_numpy
from .batch import Batch
from .columns import reading_like
from .csv_tables import read_csv
from .dataset import DataSet
from .frames import read_parquet
from .h5ad import read_h5ad
from .images import read_images
from .reading import Reading
from .table import Table
from .validation import build_data, make_data, make_rows

DATA_VARIABLE = "PPL_VAE_DATA"
_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
NAMED_SETS = ("digits", *_TORCHVISION)


def load_data(
    source: str | Path,
    *,
    data_dir: str | Path | None = None,
    binarize: Binarize = "none",
    reading: Reading | None = None,
) -> DataSet:
    """Load a named data set, or the user's own from a path.

    - ``digits`` (1,797 images of 8x8, part of scikit-learn), or ``mnist``, ``fashion-mnist`` and
      ``kmnist`` (torchvision's, downloaded on first use);
    - an ``.npy`` file of ``x``;
    - an ``.npz`` file of ``x``, of labels ``y`` if there are any, and of covariates by their names,
      such as ``mask``; or of ``x_train``, ``y_train``, ``mask_train``, ``x_test``, and so on;
    - a folder of images, whose sub-folders are classes, or splits that hold them: ``train``, and
      ``validation``, ``test``, or both;
    - a ``.csv``, ``.tsv`` or ``.parquet`` table of numbers and categories, with class names in a
      column ``label`` if there is one;
    - an ``.h5ad`` file of AnnData, whose cells are data points.

    Arguments:
        source: The name or path.
        data_dir: The folder of torchvision's sets; by default ``$PPL_VAE_DATA``, else the user's
            cache folder.
        binarize: See :class:`ppl_vae.DataSet`.
        reading: How a file is to be read, where it does not say so itself.

    Raises:
        InputError: If the data do not exist or cannot be used, naming the file, row or image.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (1437, 180, 180, (1, 8, 8))
    """
    name, reading = str(source), reading or Reading()
    if name in NAMED_SETS and reading != Reading():
        said = ", ".join(reading.plain())
        raise InputError(name, f"is a named data set, which has no {said}", "leave them out")
    for option in ("resize", "grey"):
        if getattr(reading, option) and os.path.isfile(name):
            raise InputError(
                option, f"is for a folder of images, and {name} is none", "leave it out"
            )
    if name == "digits":
        return _load_digits(binarize)
    if name in _TORCHVISION:
        return _load_torchvision(name, data_folder(data_dir), binarize)
    with _readable(name):
        found = _read(source, reading)
        return build_data(**found, source=name, binarize=binarize, reading=reading, ours=True)


def load_rows(
    source: str | Path, like: Mapping[str, Any], seed: int = 0, labelled: bool = False
) -> Batch:
    """All data points of a file, as a program that was fitted to others takes them.

    Arguments:
        source: The path of a file, or of a folder of images; see :func:`load_data`.
        like: What a run's config says of its data: ``shape``, ``binarize`` and ``levels``.
        seed: Seed of the binarization.
        labelled: Whether the program takes labels, as the covariate ``y``.

    Raises:
        InputError: If they cannot be read, are of another shape, or held apart as training and
            test data.

    Example:
        >>> np.save("new.npy", np.zeros((3, 2), dtype="float32"))
        >>> load_rows("new.npy", {"shape": [2], "binarize": "none", "levels": None})
        Batch(x=(3, 2) float32)
    """
    return read_rows(source, like, seed, labelled)[0]


def read_rows(
    source: str | Path, like: Mapping[str, Any], seed: int = 0, labelled: bool = False
) -> tuple[Batch, tuple[str, ...]]:
    """What :func:`load_rows` gives, and the names of the rows of a table, if they have any."""
    name = str(source)
    with _readable(name):
        found = _read(source, reading_like(like), named=False)
        if found.keys() & {"test", "validation"}:
            problem = "holds training data and others apart"
            raise InputError(name, problem, "give one array, x, or the path of one of its folders")
        names = found["x"].row_names if isinstance(found["x"], Table) else ()
        batch = make_rows(**found, like=like, source=name, seed=seed, labelled=labelled, ours=True)
        return batch, names


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, MemoryError) as error:
        tell_lack_of_memory(error, name)
        raise InputError(name, f"cannot be read ({first_line(error)})", "save it again") from None


def _read(source: str | Path, reading: Reading, named: bool = True) -> dict[str, Any]:
    """The arguments for :func:`make_data` that a file holds; ``named`` sets may be had instead."""
    name, path = str(source), as_path("source", source)
    formats = f"{', '.join(_READERS)} file or a folder of images"
    if not name or not os.path.exists(path):  # Path.exists raises if a name is too long
        kinds, sets = ("a data set or a file", f"choose from {', '.join(NAMED_SETS)}, or ")
        if not named:
            kinds, sets = "a file", ""
        raise InputError(repr(name), f"is not {kinds}", f"{sets}give the path of a {formats}")
    if path.is_dir() and (parts := [*islice(path.rglob("*.parquet"), 2)]):
        many = "one of several" if len(parts) > 1 else "the"
        raise InputError(name, "is a folder of Parquet files", f"give {many} file, or write one")
    reader = read_images if path.is_dir() else _READERS.get(path.suffix.lower())
    if reader is None and (remedy := _OTHERS.get(path.suffix.lower())):
        raise InputError(name, f"is a {path.suffix} file", remedy)
    if reader is None:
        raise InputError(name, "has an unknown format", f"give a {formats}")
    return reader(path, reading)


def data_folder(data_dir: str | Path | None = None) -> Path:
    """The folder of downloaded sets: the argument, ``$PPL_VAE_DATA``, or the user's cache."""
    if data_dir is None:
        data_dir = os.environ.get(DATA_VARIABLE) or None
    if data_dir is None:
        from platformdirs import user_cache_path

        data_dir = user_cache_path("ppl-vae")
    return as_path("data_dir", data_dir)


def _load_digits(binarize: Binarize) -> DataSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    return make_data(images, digits.target, levels=16, source="digits", binarize=binarize)


def _load_torchvision(name: str, root: Path, binarize: Binarize) -> DataSet:
    from torchvision import datasets
    from torchvision.datasets.mnist import read_image_file, read_label_file

    kind = getattr(datasets, _TORCHVISION[name])
    raw = root / _TORCHVISION[name] / "raw"
    files = [Path(url).stem for url, _ in kind.resources]
    if not is_downloaded(name, root):
        _download(name, kind, root, files)
    arrays = []
    for file in files:
        size = regular_size(raw / file)
        refuse_beyond_memory(2 * size, raw / file, "delete it and retry")
        try:
            read = read_label_file if "labels" in file else read_image_file
            arrays.append(read(str(raw / file)))
        except (ValueError, AssertionError, RuntimeError, OSError, IndexError, KeyError) as error:
            tell_lack_of_memory(error, raw / file)
            raise InputError(
                raw / file, "is truncated, or not an idx file", "delete it and retry"
            ) from None
    x, y, x_test, y_test = arrays
    return build_data(
        x,
        y,
        test=(x_test, y_test),
        validation_fraction=1 / 12,
        source=name,
        binarize=binarize,
        ours=True,
    )


def is_downloaded(name: str, folder: str | Path) -> bool:
    """Whether a folder holds all files of a named set; ``digits`` needs none."""
    from torchvision import datasets

    if name not in _TORCHVISION:
        return True
    raw = Path(folder) / _TORCHVISION[name] / "raw"
    resources = getattr(datasets, _TORCHVISION[name]).resources
    return all((raw / Path(url).stem).is_file() for url, _ in resources)


def _download(name: str, kind: Callable[..., Any], root: Path, files: list[str]) -> None:
    raw = root / _TORCHVISION[name] / "raw"
    made = [folder for folder in (raw, raw.parent, root) if not folder.exists()]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints the URLs that it tries
            kind(root, download=True)
    except (RuntimeError, OSError) as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # which fails if it holds anything
        # The text of a RuntimeError lists hosts in several lines.
        reason = first_line(error) if isinstance(error, OSError) else "no host provides it"
        raise InputError(
            name,
            f"is not in {root} and cannot be downloaded ({reason})",
            "data-dir",
            files=", ".join(files),
            folder=raw,
        ) from None


_READERS: dict[str, Callable[[Path, Reading], dict[str, Any]]] = {
    ".npy": read_numpy,
    ".npz": read_numpy,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".tab": read_csv,
    ".txt": read_csv,
    ".parquet": read_parquet,
    ".h5ad": read_h5ad,
}
_UNPACK, _SAVE = "unpack it (gunzip, unzip)", "save it as .csv or .parquet"
_OTHERS = {
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst"), _UNPACK),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".feather", ".rds", ".sav", ".dta"), _SAVE),
}
