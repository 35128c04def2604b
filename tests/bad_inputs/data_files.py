"""Data files of each format, broken in every way that a user's may be."""

import struct

import numpy as np
import pandas as pd
from PIL import Image

from . import Line

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(30, 6, 5), dtype=np.uint8)
TABLE = RNG.normal(size=(60, 4))
FRAME = pd.DataFrame(TABLE, columns=["a", "b", "c", "d"])
FIT = ["--hidden", 4, "--epochs", 1, "--batch-size", 16, "--output", "new"]


def train(name):
    return ["train", "--data", name, "--likelihood", "gaussian", *FIT]


def saved(array, name="d.npy", pickle=False):
    return lambda folder: np.save(folder / name, array, allow_pickle=pickle)


def npz(**arrays):
    return lambda folder: np.savez(folder / "d.npz", **arrays)


def text(words, name="d.csv"):
    return lambda folder: (folder / name).write_bytes(
        words if isinstance(words, bytes) else words.encode()
    )


def halved(file):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def cut(write, name):
    def spoil(folder):
        write(folder / name)
        halved(folder / name)

    return spoil


def frame(table, name="d.parquet"):
    return lambda folder: table.to_parquet(folder / name)


def npz_called_npy(folder):
    np.savez(folder / "d.npz", p=TABLE, q=TABLE)
    (folder / "d.npz").rename(folder / "d.npy")


HUGE = np.full((60, 4), 2**64 - 1, dtype=np.uint64)
MASK = TABLE > 0
PAIR = {"x_train": TABLE, "x_test": TABLE}
NPY = {
    "empty": text("", "d.npy"),
    "words": text("hello", "d.npy"),
    "version": text(b"\x93NUMPY\x09\x00" + bytes(99), "d.npy"),
    "half": cut(lambda f: np.save(f, TABLE), "d.npy"),
    "npz-inside": npz_called_npy,
    "objects": saved(np.array([{}] * 9), pickle=True),
    "one-row": saved(TABLE[:1]),
}
NPZ = {
    "half": cut(lambda f: np.savez(f, x=TABLE), "d.npz"),
    "no-arrays": npz(),
    "other-names": npz(p=TABLE, q=TABLE),
    "x-and-x_test": npz(x=TABLE, x_test=TABLE),
    "x-and-mask_train": npz(x=TABLE, mask_train=MASK),
    "no-x_train": npz(x_test=TABLE, y_train=TABLE[:, 0]),
    "mask-of-train-alone": npz(**PAIR, mask_train=MASK),
    "mask-of-test-alone": npz(**PAIR, mask_test=MASK),
    "mask-of-no-part": npz(**PAIR, mask=MASK),
    "many": npz(**{f"x{i}": TABLE for i in range(17)}),
    "few-labels": npz(x=TABLE, y=np.arange(9)),
    "objects": npz(x=np.array([{}] * 9)),
    "objects-for-mask": npz(x=TABLE, mask=MASK.astype(object)),
    "mask-of-other-length": npz(x=TABLE, mask=MASK[1:]),
    "mask-that-vae-does-not-take": npz(x=TABLE, mask=MASK),
    "other-test-shape": npz(x_train=TABLE, x_test=TABLE[:, :3]),
    "other-mask-shape": npz(**PAIR, mask_train=MASK, mask_test=MASK[:, :3]),
}
CSV = {
    "empty": text(""),
    "latin-1": text("a,b\né,1\n".encode("latin-1")),
    "nul-bytes": text(b"a,b\n\x00\x00,\x00\n"),
    "ragged": text("a,b\n1,2\n1,2,3\n"),
    "open-quote": text('a,b\n"1,2\n3,4\n'),
    "header-only": text("a,b\n"),
    "words": text("a,b\n1,x\n2,y\n"),
    "holes": text("a,b\n1,2\n1,\n1,\n"),
    "index": lambda d: FRAME.to_csv(d / "d.csv"),
    "infinity": text("a,b\n" + "1,inf\n" * 20),
    "huge-integers": text("a,b\n" + f"1,{10**400}\n" * 20),
}
PARQUET = {
    "words": text("hello", "d.parquet"),
    "half": cut(FRAME.to_parquet, "d.parquet"),
    "no-columns": frame(FRAME[[]]),
    "words-in-it": frame(FRAME.assign(e="x")),
    "dates": frame(FRAME.assign(e=pd.Timestamp(0))),
    "lists": frame(FRAME.assign(e=[[1, 2]] * 60)),
    "nulls": frame(FRAME.assign(e=[None, 1.0] * 30)),
}


def one_more(write, suffix=".png"):
    """A folder of images, one of which is spoilt."""

    def spoil(folder):
        (folder / "d").mkdir()
        for i in range(20):
            Image.fromarray(IMAGES[i]).save(folder / "d" / f"{i:02}.png")
        write(folder / "d" / f"z{suffix}")

    return spoil


def image(array):
    return lambda file: Image.fromarray(array).save(file)


def cut_image(file):
    image(RNG.integers(256, size=(64, 64), dtype=np.uint8))(file)
    halved(file)


def hidden(folder):
    (folder / "d").mkdir()
    image(IMAGES[0])(folder / "d" / ".hidden.png")


SUFFIXES = (".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm")  # a decoder each
FOLDERS = [
    *((f"cut{suffix}", one_more(cut_image, suffix), f"d/z{suffix}") for suffix in SUFFIXES),
    ("hidden", hidden, "d"),
    ("other-size", one_more(image(IMAGES[0][:4])), "d/z.png"),
    ("deep", one_more(image(IMAGES[0].astype(np.uint16))), "d/z.png"),
    ("words", one_more(lambda f: f.write_text("hello")), "d/z.png"),
    ("folder-named-png", one_more(lambda f: f.mkdir()), "d/z.png"),
]


def idx(file, array, magic=None):
    header = struct.pack(f">I{array.ndim}I", magic or 0x0800 + array.ndim, *array.shape)
    file.write_bytes(header + array.tobytes())


def mnist(folder):
    raw = folder / "sets" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 240), ("t10k", 20)):
        idx(raw / f"{part}-images-idx3-ubyte", np.zeros((count, 28, 28), dtype=np.uint8))
        idx(raw / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return raw


def idx_file(name, change):
    def spoil(folder):
        file = mnist(folder) / name
        change(file)

    return spoil


TRAIN_IMAGES, TEST_LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
IDX = [
    ("cut", TRAIN_IMAGES, halved),
    ("no-data", TRAIN_IMAGES, lambda f: idx(f, np.zeros((0, 28, 28), np.uint8))),
    ("other-type", TRAIN_IMAGES, lambda f: idx(f, np.zeros((240, 28, 28), np.uint8), 0x0D03)),
    ("images-for-labels", TEST_LABELS, lambda f: idx(f, np.zeros((20, 28, 28), np.uint8))),
]
MNIST = ["train", "--data", "mnist", "--data-dir", "sets", *FIT]
LINES = [
    *(
        Line(f"{file[2:]}-{name}", train(file), file, spoil)
        for file, table in (
            ("d.npy", NPY),
            ("d.npz", NPZ),
            ("d.csv", CSV),
            ("d.parquet", PARQUET),
        )
        for name, spoil in table.items()
    ),
    Line("npy-uint64", train("d.npy"), None, saved(HUGE)),
    *(Line(f"folder-{name}", train("d"), file, spoil) for name, spoil, file in FOLDERS),
    *(Line(f"idx-{name}", MNIST, file, idx_file(file, change)) for name, file, change in IDX),
]
