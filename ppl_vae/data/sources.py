"""Where data come from: named sets, and the user's arrays, image folders and tables."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import Binarize
from ..errors import InputError, as_path, first_line
from ..storage.memory import refuse_beyond_memory, regular_size
from .arrays import read_arrays
from .dataset import DataSet
from .tables import read_csv, read_parquet
from .validation import make_data

DATA_VARIABLE = "PPL_VAE_DATA"
_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}
_IMAGE_SUFFIXES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".pgm",
    ".ppm",
}
# Pillow goes by content: a file of any name may be PostScript, which it gives to Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_GREY_MODES, _COLOUR_MODES = {"1", "L", "LA"}, {"P", "RGB", "RGBA", "CMYK", "YCbCr"}
NAMED_SETS = ("digits", *_TORCHVISION)


def load_data(
    source: str | Path, *, data_dir: str | Path | None = None, binarize: Binarize = "none"
) -> DataSet:
    """Load a named data set, or the user's own from a path.

    ``digits`` (1,797 images of 8x8, embedded in scikit-learn), ``mnist``, ``fashion-mnist`` and
    ``kmnist`` (torchvision's, downloaded at first use); an ``.npy`` file; an ``.npz`` file with
    ``x`` and perhaps ``y``, or ``x_train``, ``y_train``, ``x_test``, ``y_test``; a folder of
    images, whose sub-folders are classes; a ``.csv`` or ``.parquet`` table of numbers, with class
    names in a column ``label`` if there is one.

    Arguments:
        source: The name or path.
        data_dir: Where torchvision's sets lie; by default ``$PPL_VAE_DATA``, else a cache folder.
        binarize: See :class:`ppl_vae.DataSet`.

    Raises:
        InputError: If there is no such data, or it is broken; in one line that says where.

    Example:
        >>> data = load_data("digits")
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (1437, 180, 180, (1, 8, 8))
    """
    name = str(source)
    if name == "digits":
        return _load_digits(binarize)
    if name in _TORCHVISION:
        return _load_torchvision(name, data_folder(data_dir), binarize)
    path = as_path("source", source)
    if not name or not os.path.exists(path):  # Path.exists raises where a name is too long
        raise InputError(
            f"no data set or file {name!r}: choose from {', '.join(NAMED_SETS)}, or give the path "
            "of an .npy, .npz, .csv or .parquet file or a folder of images"
        ) from None
    if path.is_dir():
        return make_data(*_read_images(path), source=name, binarize=binarize)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{name}: unknown format, expected {', '.join(_READERS)} or a folder")
    try:
        return make_data(**reader(path), source=name, binarize=binarize)
    except (OSError, MemoryError) as error:
        raise InputError(f"{name} cannot be read ({first_line(error)}): save it again") from None


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
        _download(name, kind, root, f"place {', '.join(files)} in {raw}")
    arrays = []
    for file in files:
        size = regular_size(raw / file)
        refuse_beyond_memory(2 * size, str(raw / file), "delete it and retry")
        try:
            read = read_label_file if "labels" in file else read_image_file
            arrays.append(read(str(raw / file)))
        except (ValueError, AssertionError, RuntimeError, OSError, IndexError, KeyError):
            raise InputError(
                f"{raw / file} is truncated or no idx file: delete it and retry"
            ) from None
    x, y, x_test, y_test = arrays
    return make_data(
        x, y, test=(x_test, y_test), validation_fraction=1 / 12, source=name, binarize=binarize
    )


def is_downloaded(name: str, folder: str | Path) -> bool:
    """Whether a folder holds all files of a named set; those of ``digits`` are never missing."""
    from torchvision import datasets

    if name not in _TORCHVISION:
        return True
    raw = Path(folder) / _TORCHVISION[name] / "raw"
    resources = getattr(datasets, _TORCHVISION[name]).resources
    return all((raw / Path(url).stem).is_file() for url, _ in resources)


def _download(name: str, kind: Callable[..., Any], root: Path, remedy: str) -> None:
    folders = (root / _TORCHVISION[name] / "raw", root / _TORCHVISION[name], root)
    made = [folder for folder in folders if not folder.exists()]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints where it looked
            kind(root, download=True)
    except (RuntimeError, OSError) as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()  # one that holds anything stays
        # A RuntimeError names hosts, in several lines: say what it means instead.
        reason = first_line(error) if isinstance(error, OSError) else "no host gave it"
        raise InputError(
            f"{name} is not in {root} and cannot be downloaded ({reason}): {remedy}, or name the "
            f"folder with --data-dir or {DATA_VARIABLE}"
        ) from None


def _read_numpy(path: Path) -> dict[str, Any]:
    arrays = read_arrays(path)
    if len(arrays) == 1:
        return {"x": next(iter(arrays.values()))}
    if arrays.keys() == {"x", "y"}:
        return {"x": arrays["x"], "labels": arrays["y"]}
    if {"x_train", "x_test"} <= arrays.keys() <= {"x_train", "y_train", "x_test", "y_test"}:
        test = (arrays["x_test"], arrays.get("y_test"))
        return {"x": arrays["x_train"], "labels": arrays.get("y_train"), "test": test}
    raise InputError(
        f"{path} holds arrays {', '.join(arrays) or 'none'}: name them x (and y), or x_train and "
        "x_test (and y_train, y_test)"
    )


def _read_images(folder: Path) -> tuple[np.ndarray, list[str] | None]:
    from rich.console import Console
    from rich.progress import track

    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not files:
        raise InputError(f"{folder} holds no images: expected {', '.join(sorted(_IMAGE_SUFFIXES))}")
    images: list[np.ndarray] = []
    for file in track(
        files,
        "reading images",
        console=Console(stderr=True),
        transient=True,
        disable=len(files) < 1000,
    ):
        image = _read_image(file)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{file} has shape {image.shape}, {files[0]} {images[0].shape}: crop or resize "
                "images to one size and one mode"
            )
        if not images:
            refuse_beyond_memory(2 * len(files) * image.nbytes, str(folder), "take fewer images")
        images.append(image)
    classes = [str(file.parent.relative_to(folder)) for file in files]
    stack = np.stack(images)
    stack = stack[:, None] if stack.ndim == 3 else stack.transpose(0, 3, 1, 2)
    return stack, classes if len(set(classes)) > 1 else None


def _read_image(file: Path) -> np.ndarray:
    """A byte image of shape (height, width) or (height, width, 3)."""
    from PIL import Image

    regular_size(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=_FORMATS) as image:
                if image.mode not in _GREY_MODES | _COLOUR_MODES:
                    raise InputError(
                        f"{file} has mode {image.mode}: convert it to 8-bit grey or RGB"
                    )
                return np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{file} claims more pixels than is safe to open") from None
    except Exception as error:  # whatever a broken file makes the reader raise
        raise InputError(
            f"{file} is truncated or no image ({first_line(error)}): save it again, or remove it"
        ) from None


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".npy": _read_numpy,
    ".npz": _read_numpy,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
