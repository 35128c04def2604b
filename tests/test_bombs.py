"""Size bombs: refused in one line, before memory is taken."""

import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from ppl_vae import InputError, Posterior
from ppl_vae.models import VAE
from ppl_vae.programs.predictions import prior_predictive
from ppl_vae.storage.memory import memory_limit, refuse_beyond_memory

ROOT = Path(__file__).parents[1]
HUGE = 10**12


def npy(shape, dtype="<f8", data=b""):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text = (header + " " * (118 - len(header) - 1) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def zipped(file, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def sparse_npy(file):
    file.write_bytes(npy((HUGE,)))
    os.truncate(file, 128 + 8 * HUGE)


def declared_more(file):
    """An archive whose directory says that a member is larger than it is."""
    zipped(file, [("x.npy", npy((HUGE,), data=bytes(800)))])
    content = bytearray(file.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 2**32 - 2)
    file.write_bytes(content)


def declared_less(file):
    """An archive whose directory says that a member is as small as its header claims."""
    zipped(file, [("x.npy", npy((10, 10), data=bytes(2**26)))])
    content = bytearray(file.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 128 + 800)
    file.write_bytes(content)


def encrypted(file):
    zipped(file, [("x.npy", npy((10, 10), data=bytes(800)))])
    content = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.rindex(mark) + offset] |= 1
    file.write_bytes(content)


def overlapping(file):
    """Many members that are the same bytes of the file (Fifield 2019)."""
    zipped(file, [(f"{i}.npy", npy((2**20,), data=bytes(2**23)) if not i else b"") for i in (0, 1)])
    content = bytearray(file.read_bytes())
    first, second = content.index(b"PK\x01\x02"), content.rindex(b"PK\x01\x02")
    content[second + 10 : second + 28] = content[first + 10 : first + 28]
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    file.write_bytes(content)


def runs_of_one_value(file):
    """800 million values, each run of which takes a few bytes."""
    table = pa.table({f"c{i}": pa.array(np.zeros(2**20, dtype=bool)) for i in range(8)})
    with parquet.ParquetWriter(file, table.schema) as writer:
        for _ in range(96):
            writer.write_table(table)


def wide_csv(file):
    file.write_text(",".join(f"c{i}" for i in range(200_000)) + "\n" + "1\n" * 500_000)


def quoted_csv(file):
    """A header over many lines, none of which has a comma."""
    file.write_text('"\n",' * 100_000 + "a\n" + "1\n" * 500_000)


def long_label(file):
    file.write_text("a,label\n1," + "x" * 100_000 + "\n" + "1,y\n" * 200_000)


def long_label_npz(file):
    train, test = np.full(200_000, "y"), np.full(2, "x" * 100_000)
    np.savez_compressed(
        file, x_train=np.zeros((200_000, 1)), y_train=train, x_test=np.zeros((2, 1)), y_test=test
    )


def long_label_parquet(file):
    label = pa.DictionaryArray.from_arrays(np.zeros(200_000, np.int32), ["x" * 100_000])
    table = pa.table({"a": np.zeros(200_000), "label": label})
    parquet.write_table(table, file, store_schema=False)  # which would call it a dictionary


BOMBS = {
    "claims.npy": lambda f: f.write_bytes(npy((HUGE,))),
    "overflow.npy": lambda f: f.write_bytes(npy((2**32, 2**32))),
    "wide.npy": lambda f: f.write_bytes(npy((1,), "|S1000000000000")),
    "nothing.npy": lambda f: f.write_bytes(npy((HUGE,), "|V0")),
    "negative.npy": lambda f: f.write_bytes(npy((-1, 5))),
    "deep.npy": lambda f: f.write_bytes(npy("(" * 60)),
    "sparse.npy": sparse_npy,
    "claims.npz": lambda f: zipped(f, [("x.npy", npy((HUGE,)))]),
    "more.npz": declared_more,
    "less.npz": declared_less,
    "bytes.npz": lambda f: zipped(f, [("x", bytes(2**26))]),
    "nested.npz": lambda f: zipped(f, [("x.npy", b"PK\3\4" + bytes(2**20))]),
    "lzma.npz": lambda f: zipped(
        f, [("x.npy", npy((2**23,), data=bytes(2**26)))], zipfile.ZIP_LZMA
    ),
    "many.npz": lambda f: zipped(f, [(f"{i}", b"") for i in range(5000)]),
    "encrypted.npz": encrypted,
    "overlapping.npz": overlapping,
    "wide.csv": wide_csv,
    "quoted.csv": quoted_csv,
    "endless.csv": lambda f: f.write_text("1" * 2**25),
    "cells.csv": lambda f: f.write_text("1," * 2**24),
    "runs.parquet": runs_of_one_value,
    "label.csv": long_label,
    "label.npz": long_label_npz,
    "label.parquet": long_label_parquet,
}
# What these would take, as the line says it; others claim more than they hold, or are broken.
SIZES = {
    "sparse.npy": "8.0 TB",
    "runs.parquet": "6.4 GB",
    **dict.fromkeys(("label.csv", "label.npz", "label.parquet"), "80.0 GB"),
}

# One child, which may not have more than 8 GB, tries them all: to start it takes seconds.
CHILD = """
import resource, sys
from ppl_vae import InputError, load_data
import pandas, pyarrow.parquet, ppl_vae.data
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
def peak():  # that of getrusage may be the parent's
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0])
before = peak()
for source in sys.argv[1:]:
    try:
        load_data(source)
    except InputError as error:
        print("refused", error.culprit, error.problem)
    except Exception as error:  # each has a line, so that one does not hide the others
        print("raised", type(error).__name__)
    else:
        print("loaded")
print(peak() - before)
"""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        make(folder / name)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *(str(folder / name) for name in BOMBS)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, peak = done.stdout.splitlines()
    return dict(zip(BOMBS, lines, strict=True)), int(peak)


@pytest.mark.parametrize("name", BOMBS)
def test_a_size_bomb_is_refused(bombs, name):
    line = bombs[0][name]
    assert line.startswith("refused ")
    assert name in line
    assert SIZES.get(name, "") in line


def test_no_size_bomb_took_memory(bombs):
    assert bombs[1] < 300_000  # kB


def test_the_limit_is_that_of_the_process_too():
    script = (
        "import resource; from ppl_vae.storage.memory import memory_limit\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); print(memory_limit())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert int(done.stdout) == min(2**32, memory_limit())


def test_what_fits_is_not_refused():
    limit = memory_limit()
    refuse_beyond_memory(limit // 2, "half", "")
    with pytest.raises(InputError) as caught:
        refuse_beyond_memory(limit // 2 + 1, "more", "take fewer")
    assert (caught.value.culprit, caught.value.remedy) == ("more", "take fewer")


# Numbers that are arguments of the command line


def vae():
    return VAE((1, 8, 8), latent_dim=2, hidden=(8,))


def test_a_program_draws_no_more_than_fits():
    for draw in (
        lambda: prior_predictive(vae(), (1, 8, 8), HUGE),
        lambda: Posterior(vae(), torch.zeros(3, 1, 8, 8)).log_weight(HUGE),
    ):
        with pytest.raises(InputError, match="B of memory") as caught:
            draw()
        assert str(HUGE) in caught.value.culprit


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["sample", "--count", HUGE], "draws"),
        (["evaluate", "--draws", HUGE], "draws"),
        (["evaluate", "--estimator", "bdmc", "--data-points", HUGE], "data_points"),
        (["evaluate", "--estimator", "ais", "--temperatures", HUGE], "temperatures"),
        (["evaluate", "--estimator", "ais", "--chains", HUGE], "chains"),
        (["diagnose", "--draws", HUGE], "draws"),
        (["diagnose", "--simulations", HUGE], "simulations"),
        (["gradients", "--particles", HUGE], "particles"),
    ],
)
def test_absurd_counts_are_refused_in_one_line(fitted, words, culprit):
    code, out, err = fitted(words[0], "run", *words[1:])
    assert (code, out) == (2, "")
    assert culprit in err.replace("-", "_")
    assert err.count("\n") == 1, err
