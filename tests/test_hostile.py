"""Data from a stranger: no code runs, nothing hangs, nothing is written; one line says why."""

import ast
import contextlib
import io
import json
import os
import pickle
import re
import socket
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image, PngImagePlugin
from pyarrow import parquet

from ppl_vae import InputError, load_data
from ppl_vae.errors import printable
from ppl_vae.storage.memory import memory_limit

from .test_bombs import npy, zipped

ROOT = Path(__file__).parents[1]
IMAGES = np.random.default_rng(0).integers(256, size=(30, 6, 5), dtype=np.uint8)
HUGE = 10**12


def refused(source, *words, **options):
    """The error with which data are refused, whose culprit is a name in them."""
    with pytest.raises(InputError) as caught:
        load_data(source, **options)
    assert str(caught.value).isprintable()
    assert printable(Path(source).name) in caught.value.culprit
    for word in words:
        assert word in str(caught.value)
    return caught.value


# No pickle


class Witness:
    """What writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def test_the_witness_would_tell(tmp_path):
    pickle.loads(pickle.dumps(Witness(tmp_path / "witness"))).close()
    assert (tmp_path / "witness").exists()


SUFFIXES = [".npy", ".npz", ".csv", ".parquet", ".png", ".nc", ".json", ".safetensors"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("made_by", ["pickle", "torch", "numpy", "numpy zipped"])
def test_a_pickle_of_any_name_is_not_opened(suffix, made_by, tmp_path):
    witness, file = tmp_path / "witness", tmp_path / "data" / f"x{suffix}"
    file.parent.mkdir()
    with file.open("wb") as stream:
        if made_by == "pickle":
            pickle.dump(Witness(witness), stream)
        elif made_by == "torch":
            torch.save(Witness(witness), stream)
        else:
            objects = np.array([Witness(witness)] * 9, dtype=object)
            save = np.save if made_by == "numpy" else np.savez
            save(stream, objects, allow_pickle=True)
    source = file.parent if suffix == ".png" else file
    refused(source, "data" if suffix == ".png" else suffix)
    assert not witness.exists()


def test_what_parquet_says_of_pandas_runs_nothing(tmp_path):
    witness = tmp_path / "witness"
    poison = pickle.dumps(Witness(witness))
    plain = pa.table({"a": np.arange(30.0), "b": np.arange(30.0)})
    # What PyArrow before 14.0.1 unpickled (CVE-2023-47248), and what pandas makes an index of.
    marks = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": poison,
    }
    fields = [pa.field("a", pa.float64(), metadata=marks), pa.field("b", pa.float64())]
    kinds = {"pandas_type": "object", "numpy_type": "object", "metadata": {"x": "!!python"}}
    index = {"kind": "range", "name": None, "start": 0, "stop": HUGE, "step": 1}
    about = {
        "index_columns": [index],
        "columns": [{"name": "a", "field_name": "a", **kinds}],
        "column_indexes": [],
    }
    told = {b"pandas": json.dumps(about).encode(), b"pickle": poison}
    table = plain.cast(pa.schema(fields, metadata=told))
    parquet.write_table(table, tmp_path / "x.parquet")
    with contextlib.suppress(InputError):
        assert load_data(tmp_path / "x.parquet").shape == (2,)
    assert not witness.exists()


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load"),
    *(
        "pickle.load",
        "pickle.loads",
        "torch.jit.load",
        "np.fromfile",
        "pd.read_pickle",
        "yaml.load",
        "numpy.core.multiarray",
    ),
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
WRITERS = {ROOT / "benchmarks" / "pyro_data.py"}  # of what Pyro's own examples read
NUMPY = {"np.load", "numpy.load", "np.lib.format.read_array"}


@pytest.mark.parametrize("folder", ["ppl_vae", "models", "benchmarks"])
def test_no_source_calls_what_runs_the_content_of_a_file(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                forbidden = MODULES - {"pickle"} if file in WRITERS else MODULES
                assert not {alias.name.partition(".")[0] for alias in node.names} & forbidden, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in MODULES, file
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in FORBIDDEN, f"{file}:{node.lineno} calls {called}"
                if called in NUMPY:
                    given = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert given.get("allow_pickle") == "False", f"{file}:{node.lineno}"


# Images


def pixels(file, count=1):
    for i in range(count):
        Image.fromarray(IMAGES[i]).save(file.parent / f"{i}.png")


def text_bomb(file):
    pixels(file, 3)
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 2**26, zip=True)
    Image.fromarray(IMAGES[0]).save(file, pnginfo=info)


def tiff_claims(file):
    pixels(file, 3)
    Image.fromarray(IMAGES[0]).save(file, format="TIFF")
    content = bytearray(file.read_bytes())
    at = re.search(struct.pack("<H", 256) + b"[\3\4]\0\1\0\0\0", content).start()  # its width
    content[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 2**31 - 1)
    file.write_bytes(content)


def webp_torn(file):
    pixels(file, 3)
    Image.fromarray(IMAGES[0]).save(file, format="WEBP")
    file.write_bytes(file.read_bytes()[:40])


def gif_torn(file):
    pixels(file, 3)
    frames = [Image.fromarray(image) for image in IMAGES[:5]]
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:])
    file.write_bytes(file.read_bytes()[:830])


@pytest.mark.parametrize("spoil", [text_bomb, tiff_claims, webp_torn, gif_torn])
def test_a_hostile_image_is_named(spoil, tmp_path):
    spoil(tmp_path / "z.png")
    assert refused(tmp_path).culprit.endswith("z.png")


def test_no_postscript_reaches_ghostscript(tmp_path, monkeypatch):
    witness, ghostscript = tmp_path / "witness", tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\n: > {witness}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    folder = tmp_path / "images"
    folder.mkdir()
    pixels(folder / "0.png", 3)
    head = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n%%EndComments\n"
    (folder / "z.png").write_text(head + "showpage\n%%EOF\n")  # Pillow goes by content
    assert refused(folder).culprit.endswith("z.png")
    assert not witness.exists()


def test_flipped_bytes_of_an_image_are_refused_or_harmless(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("PNG", "GIF", "TIFF", "WEBP", "BMP", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(IMAGES[0]).save(stream, format=kind)
        whole = np.frombuffer(stream.getvalue(), dtype=np.uint8)
        for _ in range(60):
            spoiled = whole.copy()
            spoiled[rng.integers(len(whole), size=3)] = rng.integers(256, size=3)
            (tmp_path / "z.png").write_bytes(spoiled.tobytes())
            with pytest.raises(InputError) as caught:  # one image is too few in any case
                load_data(tmp_path)
            assert "\n" not in str(caught.value)


def test_a_folder_of_images_beyond_memory_is_refused_at_the_first(tmp_path):
    Image.new("L", (9000, 9000)).save(tmp_path / "0.png")
    count = memory_limit() // (4 * 9000 * 9000) + 2
    for i in range(1, count):
        (tmp_path / f"{i}.png").symlink_to("0.png")
    assert refused(tmp_path, "GB of memory").remedy == "take fewer images"


# What is not a file


def fifo(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def unix_socket(path):
    with contextlib.chdir(path.parent):  # its name may have 108 characters
        socket.socket(socket.AF_UNIX).bind(path.name)


def loop(path):
    path.symlink_to(path.name)


NOT_FILES = [fifo, device, unix_socket, loop]


@pytest.mark.filterwarnings("ignore:.*unclosed.*socket:ResourceWarning")
@pytest.mark.parametrize("make", NOT_FILES)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_only_regular_files_are_opened(make, suffix, tmp_path):
    make(tmp_path / f"x{suffix}")
    refused(tmp_path / f"x{suffix}")


@pytest.mark.filterwarnings("ignore:.*unclosed.*socket:ResourceWarning")
@pytest.mark.parametrize("make", NOT_FILES)
def test_a_folder_of_images_with_something_else_in_it(make, tmp_path):
    pixels(tmp_path / "0.png", 3)
    make(tmp_path / "z.png")
    assert refused(tmp_path).culprit.endswith("z.png")


def test_folders_that_hold_each_other_end(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "loop").symlink_to(tmp_path)
    refused(tmp_path)
    (tmp_path / "x.npy").mkdir()
    refused(tmp_path / "x.npy")


@pytest.mark.parametrize("make", [fifo, device, loop, lambda path: path.mkdir()])
def test_an_idx_set_of_other_things_is_not_there(make, tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(MNIST, "mirrors", ["file:///nonexistent/"])
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        make(tmp_path / "MNIST" / "raw" / f"{part}-ubyte")
    assert refused("mnist", data_dir=tmp_path).remedy == "data-dir"


@pytest.mark.parametrize("shape", [(2**31, 28, 28), (2**32 - 1,) * 3])
def test_an_idx_file_that_claims_more_than_it_holds(shape, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{part}-ubyte").write_bytes(struct.pack(">4I", 0x0803, *shape) + bytes(784))
    with pytest.raises(InputError) as caught:
        load_data("mnist", data_dir=tmp_path)
    assert caught.value.culprit == str(raw / "train-images-idx3-ubyte")


@pytest.mark.parametrize("name", ["~nobody-of-that-name/x.npy", "a\0b.npy", "a" * 5000 + ".npy"])
def test_a_path_that_cannot_be(name):
    with pytest.raises(InputError) as caught:
        load_data(name)
    assert caught.value.culprit in (name, repr(name))


# Names


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "a\nb", "\u202egnp.x", "[bold]", "a" * 9])
def test_names_reach_no_terminal_as_they_are(name, tmp_path):
    zipped(tmp_path / "x.npz", [(f"{name}{i}.npy", npy((1,), data=bytes(8))) for i in (0, 1)])
    refused(tmp_path / "x.npz", printable(name))
    pd.DataFrame({name: ["1"] * 29 + ["x"]}).to_csv(tmp_path / "x.csv", index=False)
    refused(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["../../evil", "{folder}/evil", "..\\evil"])
def test_members_of_an_archive_are_read_and_never_written(name, tmp_path):
    name = name.format(folder=tmp_path)
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    zipped(inner / "x.npz", [(f"{name}.npy", npy((30, 2), data=bytes(480)))])
    assert load_data(inner / "x.npz").shape == (2,)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["x.npz"]
