"""What Pyro's examples would download, made up: random data in the same files, of the same shapes.

Where visdom, seaborn or wget is not installed, which plot and download, nothing takes their place.
"""

import importlib.util
import os
import pickle
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import torch

FOLDER = "PYRO_SUITE_DATA"
NOTES, IMAGE = 88, 28
CHORALES = {"train": 229, "test": 77, "valid": 76}  # of JSB, and as long as those
SHORTEST, LONGEST = 12, 64
FACES = (320, 4096)
DIGITS = {"train": 60_000, "t10k": 10_000}
SCENES, CANVAS = 2_000, 50
HEADS = {1: 2049, 3: 2051}  # of MNIST's files, by the number of dimensions


def make_data(folder: Path) -> None:
    """Write all files, some 60 MB."""
    random = np.random.default_rng(0)
    _write_chorales(folder / ".data", random)
    counts = random.poisson(20.0, FACES)
    np.savetxt(folder / ".data" / "faces_training.csv", counts, fmt="%d", delimiter=",")
    _write_digits(folder / "digits", random)
    scenes = random.integers(0, 256, (SCENES, CANVAS, CANVAS)).astype(np.uint8)
    labels = np.array([[3] * int(count) for count in random.integers(0, 3, SCENES)], dtype=object)
    np.savez_compressed(folder / ".data" / "multi_mnist_uint8.npz", x=scenes, y=labels)


def _write_chorales(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    data = {}
    for split, count in CHORALES.items():
        lengths = random.integers(SHORTEST, LONGEST + 1, count)
        sequences = [torch.tensor(random.random((n, NOTES)) < 0.05).float() for n in lengths]
        data[split] = {"sequences": sequences, "sequence_lengths": torch.tensor(lengths)}
    (folder / "jsb_chorales.pkl").write_bytes(pickle.dumps(data))


def _write_digits(folder: Path, random: np.random.Generator) -> None:
    folder.mkdir()
    for split, count in DIGITS.items():
        images = random.integers(0, 256, (count, IMAGE, IMAGE)).astype(np.uint8)
        labels = random.integers(0, 10, count).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = np.array([HEADS[array.ndim], *array.shape], dtype=">i4").tobytes()
            (folder / f"{split}-{kind}-ubyte").write_bytes(head + array.tobytes())


def use_data() -> None:
    """In the process of an example: have these files found, and do without plots."""
    import pyro.contrib.examples.util

    folder = os.environ[FOLDER]
    os.environ |= {"HOME": folder, "CI": "1"}  # with which Pyro looks for data below ~/.data
    vars_of = pyro.contrib.examples.util.MNIST
    vars_of.raw_folder = property(lambda digits: str(Path(folder, "digits")))
    for name in ("visdom", "seaborn", "wget"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = mock.MagicMock()
