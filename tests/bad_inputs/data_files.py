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
GAUSSIAN = ["--likelihood", "gaussian", *FIT]


def train(name, *more):
    return ["train", "--data", name, *(more or GAUSSIAN)]


def saved(array, name="d.npy", pickle=False):
    return lambda folder: np.save(folder / name, array, allow_pickle=pickle)


def npz(**arrays):
    return lambda folder: np.savez(folder / "d.npz", **arrays)


def text(words, name="d.csv"):
    return lambda folder: (folder / name).write_bytes(
        words if isinstance(words, bytes) else words.encode()
    )


def cut(write, name, keep=0.5):
    """Write a file, and leave some share of its bytes."""

    def spoil(folder):
        write(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(keep * len(whole))])

    return spoil


def frame(table, name="d.parquet"):
    return lambda folder: table.to_parquet(folder / name)


def with_value(value, dtype=float):
    array = TABLE.astype(dtype)
    array[7, 2] = value
    return array


def ragged():
    rows = np.empty(9, dtype=object)
    rows[:] = [list(range(i)) for i in range(9)]
    return rows


def npz_called_npy(folder):
    np.savez(folder / "d.npz", p=TABLE, q=TABLE)
    (folder / "d.npz").rename(folder / "d.npy")


HUGE = np.full((60, 4), 2**64 - 1, dtype=np.uint64)
STRUCTURED = np.zeros(60, dtype=[("a", float), ("b", float)])
DATES = np.full((60, 4), "2026-01-01", dtype="datetime64[D]")
NPY = [
    ("empty", text("", "d.npy"), r"d.npy cannot be read .*: "),
    ("words", text("hello", "d.npy"), "d.npy is truncated, or holds no plain array.*: save it again"),
    ("zeros", text(bytes(500), "d.npy"), "d.npy is truncated, or holds no plain array"),
    ("magic", text(b"\x93NUMPY", "d.npy"), "d.npy is truncated, or holds no plain array"),
    ("version", text(b"\x93NUMPY\x09\x00" + bytes(99), "d.npy"), "d.npy is truncated, or holds"),
    ("header", cut(lambda f: np.save(f, TABLE), "d.npy", 0.03), "d.npy is truncated, or holds"),
    ("half", cut(lambda f: np.save(f, TABLE), "d.npy"), "d.npy is truncated, or holds no plain"),
    ("npz-inside", npz_called_npy, "d.npy holds arrays p, q: name them x"),
    ("objects", saved(np.array([{}] * 9), pickle=True), "d.npy .*holds no plain array of numbers"),
    ("ragged", saved(ragged(), pickle=True), "d.npy .*holds no plain array of numbers"),
    ("scalar", saved(np.float64(3)), r"d.npy: an array of shape \(\) holds no data, expected"),
    ("1-d", saved(np.arange(60.0)), r"d.npy: an array of shape \(60,\) holds no data, expected"),
    ("no-rows", saved(np.zeros((0, 4))), r"d.npy: an array of shape \(0, 4\) holds no data"),
    ("no-columns", saved(np.zeros((60, 0))), r"d.npy: an array of shape \(60, 0\) holds no data"),
    ("one-row", saved(TABLE[:1]), "d.npy: 1 data are too few to hold out 1 for validation.*: "),
    ("two-rows", saved(TABLE[:2]), "d.npy: 2 data are too few to hold out 1 for validation.*: "),
    ("few-rows", saved(TABLE[:12]), "d.npy: 10 training data are fewer than a batch of 16: lower"),
    ("strings", saved(TABLE.astype(str)), "d.npy: data are of type <U32, but must be numbers"),
    ("complex", saved(TABLE * 1j), "d.npy: data are of type complex128, but must be numbers"),
    ("dates", saved(DATES), r"d.npy: data are of type datetime64\[D\], but must be numbers"),
    ("durations", saved(DATES - DATES), r"d.npy: data are of type timedelta64\[D\], but must be"),
    ("structured", saved(STRUCTURED), "d.npy: data are of type .*'a'.*, but must be numbers"),
    ("bytes-strings", saved(TABLE.astype("S8")), r"d.npy: data are of type .S8, but must be"),
    ("nan", saved(with_value(np.nan)), r"d.npy: 1 values are NaN.* at index \(7, 2\): remove or"),
    ("infinite", saved(with_value(-np.inf)), r"d.npy: 1 values are .*infinite.*: remove or impute"),
    ("float16-infinite", saved(with_value(np.inf, np.float16)), r"first at index \(7, 2\): remove"),
    ("beyond-float32", saved(with_value(1e300)), r"beyond float32, the first at index \(7, 2\): "),
    ("uint64", saved(HUGE), "log p at site '.' is not finite on the first data: rescale"),
    ("huge-numbers", saved(TABLE * 1e30), "beyond|not finite|too large"),
]  # fmt: skip
NPZ = [
    ("empty", text("", "d.npz"), "d.npz cannot be read"),
    ("words", text("hello", "d.npz"), "d.npz is truncated, or holds no plain array.*: save"),
    ("half", cut(lambda f: np.savez(f, x=TABLE), "d.npz"), "d.npz cannot be read .*: "),
    ("npy-called-npz", text(b"\x93NUMPY", "d.npz"), "d.npz is truncated, or holds"),
    ("no-arrays", npz(), "d.npz holds arrays none: name them x"),
    ("other-names", npz(p=TABLE, q=TABLE), r"d.npz holds arrays p, q: name them x \(and y\)"),
    ("x-and-x_test", npz(x=TABLE, x_test=TABLE), "d.npz holds arrays x, x_test: name them"),
    ("no-x_train", npz(x_test=TABLE, y_train=TABLE[:, 0]), "holds arrays x_test, y_train: name"),
    ("objects", npz(x=np.array([{}] * 9)), "d.npz .*holds no plain array of numbers"),
    ("few-labels", npz(x=TABLE, y=np.arange(9)), r"d.npz: labels have shape \(9,\), but there are"),
    ("wide-labels", npz(x=TABLE, y=TABLE), r"d.npz: labels have shape \(60, 4\), but there are 60"),
    ("label-scalar", npz(x=TABLE, y=np.array(3)), r"d.npz: labels have shape \(\), but"),
    (
        "other-test-shape",
        npz(x_train=TABLE, x_test=TABLE[:, :3]),
        r"d.npz \(test\): test data have shape \(3,\), training data \(4,\)",
    ),
    ("empty-test", npz(x_train=TABLE, x_test=TABLE[:0]), r"d.npz \(test\): .*holds no data"),
    ("nan-in-test", npz(x_train=TABLE, x_test=TABLE * np.nan), r"d.npz \(test\): 240 values"),
    (
        "test-labels",
        npz(x_train=TABLE, x_test=TABLE, y_train=np.arange(60), y_test=np.arange(5)),
        r"d.npz \(test\): labels have shape \(5,\)",
    ),
    (
        "test-of-floats",
        npz(x_train=IMAGES, x_test=IMAGES / 255),
        r"d.npz \(test\): .*levels",
    ),
]  # fmt: skip
CSV = [
    ("empty", text(""), "d.csv is no CSV table"),
    ("newlines", text("\n\n\n"), "d.csv is no CSV table"),
    ("header-only", text("a,b\n"), "d.csv holds no data: expected rows of numbers"),
    ("label-only", text("label\nx\ny\n"), "d.csv holds no data: expected rows"),
    ("ragged", text("a,b\n1,2\n1,2,3\n"), "d.csv is no CSV table .*line 3"),
    ("words", text("a,b\n1,x\n2,y\n"), "d.csv: column 'b' is not numeric: drop or encode it"),
    ("holes", text("a,b\n1,2\n1,\n1,\n"), "d.csv: column 'b' lacks 2 values, .* row 1: remove"),
    ("index", lambda d: FRAME.to_csv(d / "d.csv"), "d.csv: its first column counts the rows: save"),
    ("latin-1", text("a,b\né,1\n".encode("latin-1")), "d.csv is no CSV table"),
    ("utf-16", text("a,b\n1,2\n".encode("utf-16")), "d.csv is no CSV table"),
    ("nul-bytes", text(b"a,b\n\x00\x00,\x00\n"), "d.csv"),
    ("semicolons", text("a;b\n1,5;2,5\n"), "d.csv"),
    ("decimal-commas", text('a,b\n"1,5","2,5"\n'), "d.csv: column 'a' is not numeric: drop"),
    ("html", text("<!doctype html>\n<p>Not found"), "d.csv: column .* is not numeric|no data"),
    ("open-quote", text('a,b\n"1,2\n3,4\n'), "d.csv is no CSV table"),
    ("infinity", text("a,b\n" + "1,inf\n" * 20), r"d.csv: 20 values are .*infinite.*: remove or"),
    ("huge-integers", text("a,b\n" + f"1,{10**400}\n" * 20), "d.csv"),
    ("long-integers", text("a,b\n" + f"1,{10**25}\n" * 20), "d.csv: column 'b' is not numeric"),
    ("dates", text("a,b\n1,2026-01-01\n"), "d.csv: column 'b' is not numeric: drop or encode"),
    ("two-labels", text("label,label\n1,2\n"), "d.csv: 1 data are too few"),
    ("one-row", text("a,b\n1,2\n"), "d.csv: 1 data are too few to hold out"),
    ("only-nan", text("a,b\n" + "nan,nan\n" * 20), "d.csv: column 'a' lacks 20 values, .* row 0"),
]  # fmt: skip
PARQUET = [
    ("empty", text("", "d.parquet"), "d.parquet is no Parquet table"),
    ("words", text("hello", "d.parquet"), "d.parquet is no Parquet table"),
    ("magic", text("PAR1PAR1", "d.parquet"), "d.parquet is no Parquet table"),
    ("half", cut(FRAME.to_parquet, "d.parquet"), "d.parquet is no Parquet table"),
    ("csv-called-parquet", text("a,b\n1,2\n", "d.parquet"), "d.parquet is no Parquet table"),
    ("no-rows", frame(FRAME[:0]), "d.parquet holds no data: expected rows"),
    ("no-columns", frame(FRAME[[]]), "d.parquet holds no data: expected rows"),
    ("words-in-it", frame(FRAME.assign(e="x")), "d.parquet: column 'e' is not numeric: drop"),
    ("dates", frame(FRAME.assign(e=pd.Timestamp(0))), "column 'e' is not numeric: drop or encode"),
    ("lists", frame(FRAME.assign(e=[[1, 2]] * 60)), "column 'e' is not numeric: drop or encode"),
    ("nulls", frame(FRAME.assign(e=[None, 1.0] * 30)), "column 'e' lacks 30 values, .* row 0"),
    ("categories", frame(FRAME.assign(e=pd.Categorical(["u", "v"] * 30))), "column 'e' is not"),
    ("infinity", frame(FRAME.assign(e=np.inf)), r"d.parquet: 60 values are .*infinite"),
]  # fmt: skip


def pictures(folder, suffix=".png", count=20, **options):
    (folder / "d").mkdir()
    for i in range(count):
        Image.fromarray(IMAGES[i]).save(folder / "d" / f"{i:02}{suffix}", **options)


def one_more(write, suffix=".png"):
    """A folder of images, one of which is spoilt."""

    def spoil(folder):
        pictures(folder)
        write(folder / "d" / f"z{suffix}")

    return spoil


def image(array, mode=None):
    return lambda file: (
        Image.fromarray(array) if mode is None else Image.fromarray(array).convert(mode)
    ).save(file)


def cut_image(suffix):
    def write(file):
        noise = RNG.integers(256, size=(64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])

    return one_more(write, suffix)


def empty_folder(folder):
    (folder / "d").mkdir()


def folder_of_text(folder):
    empty_folder(folder)
    (folder / "d" / "notes.txt").write_text("no image")


def folder_of_hidden(folder):
    empty_folder(folder)
    Image.fromarray(IMAGES[0]).save(folder / "d" / ".hidden.png")


FOLDERS = [
    *(
        (f"cut{suffix}", cut_image(suffix), f"d/z{suffix} is truncated or no image .*: ")
        for suffix in (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".webp", ".pgm", ".ppm")
    ),
    ("empty", empty_folder, "d holds no images: expected .bmp"),
    ("text", folder_of_text, "d holds no images: expected .bmp"),
    ("hidden", folder_of_hidden, "d holds no images: expected .bmp"),
    ("other-size", one_more(image(IMAGES[0][:4])), r"d/z.png has shape \(4, 5\), .*: crop or resize"),
    ("other-mode", one_more(image(IMAGES[0], "RGB")), r"z.png has shape \(6, 5, 3\), .*: crop or"),
    ("deep", one_more(image(IMAGES[0].astype(np.uint16))), "z.png has mode I;16: convert it to"),
    ("floats", one_more(image(IMAGES[0].astype(np.float32)), ".tif"), "z.tif has mode F: convert"),
    ("integers", one_more(image(IMAGES[0].astype(np.int32)), ".tif"), "z.tif has mode I: convert"),
    ("words", one_more(lambda f: f.write_text("hello")), "z.png is truncated or no image"),
    ("empty-file", one_more(lambda f: f.write_bytes(b"")), "z.png is truncated or no image"),
    ("folder-named-png", one_more(lambda f: f.mkdir()), "z.png"),
    ("one-image", lambda folder: pictures(folder, count=1), "d: 1 data are too few to hold out"),
]  # fmt: skip


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


def halved(file):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


TRAIN_IMAGES, TEST_LABELS = "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
BROKEN_IDX = "is truncated or no idx file: delete it and retry"
SMALL = np.zeros((20, 14, 14), dtype=np.uint8)
IDX = [
    ("cut", TRAIN_IMAGES, halved),
    ("empty", TRAIN_IMAGES, lambda f: f.write_bytes(b"")),
    ("words", TRAIN_IMAGES, lambda f: f.write_text("<html>not found</html>")),
    ("labels-for-images", TRAIN_IMAGES, lambda f: idx(f, np.zeros(240, dtype=np.uint8))),
    ("other-type", TRAIN_IMAGES, lambda f: idx(f, np.zeros((240, 28, 28), np.uint8), 0x0D03)),
    ("cut-labels", TEST_LABELS, halved),
    ("images-for-labels", TEST_LABELS, lambda f: idx(f, np.zeros((20, 28, 28), np.uint8))),
]
IDX_LINES = [
    Line(
        f"idx-{name}",
        ["train", "--data", "mnist", "--data-dir", "sets", *FIT],
        f"{file} {BROKEN_IDX}",
        idx_file(file, change),
    )
    for name, file, change in IDX
] + [
    Line(
        "idx-no-data",
        ["train", "--data", "mnist", "--data-dir", "sets", *FIT],
        "train-images-idx3-ubyte is truncated or no idx file: delete it",
        idx_file(TRAIN_IMAGES, lambda f: idx(f, np.zeros((0, 28, 28), np.uint8))),
    ),
    Line(
        "idx-fewer-labels",
        ["train", "--data", "mnist", "--data-dir", "sets", *FIT],
        r"mnist \(test\): labels have shape \(9,\), but there are 20 data",
        idx_file(TEST_LABELS, lambda f: idx(f, np.zeros(9, dtype=np.uint8))),
    ),
    Line(
        "idx-other-size-of-test-images",
        ["train", "--data", "mnist", "--data-dir", "sets", *FIT],
        r"mnist \(test\): test data have shape \(1, 14, 14\), training data \(1, 28, 28\)",
        idx_file("t10k-images-idx3-ubyte", lambda f: idx(f, SMALL)),
    ),
]
LINES = [
    Line(f"{kind}-{name}", train(file), message, spoil)
    for kind, file, table in (
        ("npy", "d.npy", NPY),
        ("npz", "d.npz", NPZ),
        ("csv", "d.csv", CSV),
        ("parquet", "d.parquet", PARQUET),
        ("folder", "d", FOLDERS),
    )
    for name, spoil, message in table
] + IDX_LINES
