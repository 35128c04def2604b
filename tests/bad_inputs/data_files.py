"""Data files of each format, broken as a user's may be."""

import struct
import zlib

import numpy as np
import pandas as pd
from PIL import Image

from . import Line

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(30, 6, 5), dtype=np.uint8)
TABLE = RNG.normal(size=(60, 4))
FRAME = pd.DataFrame(TABLE, columns=["a", "b", "c", "d"])
FIT = ["--hidden", 4, "--epochs", 1, "--batch-size", 16, "--output", "new"]
GAUSSIAN = ["--likelihood", "gaussian", *FIT]


def with_value(value):
    array = TABLE.copy()
    array[7, 2] = value
    return array


def saved(array, pickle=False):
    return lambda file: np.save(file, array, allow_pickle=pickle)


def npz(**arrays):
    return lambda file: np.savez(file, **arrays)


def content(text):
    return lambda file: file.write_bytes(text if isinstance(text, bytes) else text.encode())


def half(write):
    def spoil(file):
        write(file)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])

    return spoil


def frame(table):
    return lambda file: table.to_parquet(file)


def npz_called_npy(file):
    with file.open("wb") as stream:
        np.savez(stream, p=TABLE, q=TABLE)


FILES = {
    "d.npy": {
        "empty": content(""),
        "words": content("hello"),
        "version": content(b"\x93NUMPY\x09\x00" + bytes(99)),
        "half": half(saved(TABLE)),
        "objects": saved(np.array([{}] * 9), pickle=True),
        "npz-inside": npz_called_npy,
        "infinite": saved(with_value(np.inf)),
    },
    "d.npz": {
        "half": half(npz(x=TABLE)),
        "no-arrays": npz(),
        "x-and-x_test": npz(x=TABLE, x_test=TABLE),
        "no-x_train": npz(x_test=TABLE, y_train=TABLE[:, 0]),
        "unpaired": npz(x_train=TABLE, x_test=TABLE, mask_train=TABLE > 0),
        "covariate-of-words": npz(x=TABLE, mask=TABLE.astype(str)),
        "few-labels": npz(x=TABLE, y=np.arange(9)),
        "test-of-floats": npz(x_train=IMAGES, x_test=IMAGES / 255),
    },
    "d.csv": {
        "empty": content(""),
        "header-only": content("a,b\n"),
        "ragged": content("a,b\n1,2\n1,2,3\n"),
        "latin-1": content("a,b\né,1\n".encode("latin-1")),
        "words": content("a,b\n1,x\n2,y\n"),
        "mixed": content("a,b\n" + "1,2\n" * 30 + "1,2 kg\n"),
        "dates": content("a,b\n" + "1,2024-01-31\n" * 30),
        "constant": content("a,b\n" + "".join(f"{i * i % 7},1\n" for i in range(30))),
        "either-decimals": content("a;b\n" + "1;1,234\n" * 30),
        "either-header": content("1,2,3\n" + "3,1,2\n" * 30),
        "identifiers": content("id,b\n" + "".join(f"{i},{i % 7}\n" for i in range(30))),
        "twins": content("a,a\n" + "1,2\n" * 30),
        "zipped": content(b"PK\x03\x04"),
        "huge-integers": content("a,b\n" + f"1,{10**400}\n" * 20),
        "holes": content("a,b\n1,2\n1,\n1,\n"),
    },
    "d.parquet": {
        "words": content("hello"),
        "half": half(frame(FRAME)),
        "no-columns": frame(FRAME[[]]),
        "words-in-it": frame(FRAME.assign(e="x")),
        "lists": frame(FRAME.assign(e=[[1, 2]] * 60)),
        "nulls": frame(FRAME.assign(e=[None, 1.0] * 30)),
    },
}


def image(array):
    return lambda file: Image.fromarray(array).save(file)


def claims_more(file):
    """A header of 60,000 x 60,000 pixels."""
    image(IMAGES[0])(file)
    png = bytearray(file.read_bytes())
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    file.write_bytes(png)


def pages(file):
    first, *others = map(Image.fromarray, IMAGES[:5])
    first.save(file, format="TIFF", save_all=True, append_images=others)


# What one more image in a folder is.
ONE_IMAGE = {
    "pages": pages,
    "colour": image(np.stack([IMAGES[0]] * 3, axis=2)),
    "half": half(image(RNG.integers(256, size=(64, 64), dtype=np.uint8))),
    "words": content("hello"),
    "other-size": image(IMAGES[0][:4]),
    "16-bit": image(IMAGES[0].astype(np.uint16)),
    "claims-more": claims_more,
    "folder": lambda file: file.mkdir(),
}


def one_more(spoil):
    def write(folder):
        (folder / "d").mkdir()
        for i in range(20):
            Image.fromarray(IMAGES[i]).save(folder / "d" / f"{i:02}.png")
        spoil(folder / "d" / "z.png")

    return write


def folder_of_hidden(folder):
    (folder / "d").mkdir()
    Image.fromarray(IMAGES[0]).save(folder / "d" / ".hidden.png")
    (folder / "d" / "notes.txt").write_text("not an image")


def splits(*names):
    def write(folder):
        for name in names:
            (folder / "d" / name).mkdir(parents=True)
            for i in range(15):
                Image.fromarray(IMAGES[i]).save(folder / "d" / name / f"{i}.png")

    return write


def idx(file, array):
    header = struct.pack(f">I{array.ndim}I", 0x0800 + array.ndim, *array.shape)
    file.write_bytes(header + array.tobytes())


def mnist(name, array):
    """A set in the layout of MNIST, one of whose files holds another array."""

    def spoil(folder):
        raw = folder / "sets" / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for part, count in (("train", 240), ("t10k", 20)):
            idx(raw / f"{part}-images-idx3-ubyte", np.zeros((count, 28, 28), dtype=np.uint8))
            idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
        idx(raw / name, array.astype(np.uint8))

    return spoil


TRAIN_IMAGES, TEST_LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX = [
    ("labels-for-images", TRAIN_IMAGES, np.zeros(240), TRAIN_IMAGES),
    ("images-for-labels", TEST_LABELS, np.zeros((20, 28, 28)), TEST_LABELS),
    ("no-images", TRAIN_IMAGES, np.zeros((0, 28, 28)), TRAIN_IMAGES),
    ("fewer-labels", TEST_LABELS, np.zeros(9), "mnist (test)"),
    ("other-size", "t10k-images-idx3-ubyte", np.zeros((20, 14, 14)), "mnist (test)"),
]
LINES = [
    *(
        Line(
            f"{name[2:]}-{kind}",
            ["train", "--data", name, *GAUSSIAN],
            name,
            lambda folder, name=name, write=write: write(folder / name),
        )
        for name, kinds in FILES.items()
        for kind, write in kinds.items()
    ),
    *(
        Line(f"image-{kind}", ["train", "--data", "d", *GAUSSIAN], "d/z.png", one_more(write))
        for kind, write in ONE_IMAGE.items()
    ),
    *(
        Line(f"folders-{kind}", ["train", "--data", "d", *GAUSSIAN], "d", splits(*names))
        for kind, names in {
            "no-train": ("test", "val"),
            "val-twice": ("train", "val", "valid"),
            "beside": ("train", "test", "dogs"),
            "within": ("dogs/train", "dogs/test", "cats/train"),
        }.items()
    ),
    Line("folder-hidden", ["train", "--data", "d", *GAUSSIAN], "d holds", folder_of_hidden),
    *(
        Line(
            f"idx-{kind}",
            ["train", "--data", "mnist", "--data-dir", "sets", *FIT],
            culprit,
            mnist(name, array),
        )
        for kind, name, array, culprit in IDX
    ),
]
