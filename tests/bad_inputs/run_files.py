"""Run directories that lack or garble one file, and data that changed since the fit."""

import json

import numpy as np

from ppl_vae.storage.tensors import read_tensors, write_tensors

from ..strangers import sign
from . import Line
from .data_files import TABLE

NOISE = np.random.default_rng(0).bytes(5000)


def gone(file):
    file.unlink()


def empty(file):
    file.write_bytes(b"")


def a_folder(file):
    file.unlink()
    file.mkdir()


def noise(file):
    file.write_bytes(NOISE)


def text(words):
    return lambda file: file.write_text(words)


def edited(edit):
    """JSON after an edit of it."""

    def spoil(file):
        found = json.loads(file.read_text())
        edit(found)
        file.write_text(json.dumps(found))

    return spoil


def changed(**fields):
    """JSON with some fields changed; a field ``a__b`` is b in a, and ``...`` takes it away."""

    def edit(found):
        for path, value in fields.items():
            *outer, name = path.split("__")
            place = found
            for key in outer:
                place = place[key]
            if value is ...:
                del place[name]
            else:
                place[name] = value

    return edited(edit)


def signed(**fields):
    """What is signed, changed, and signed again."""

    def spoil(file):
        changed(**fields)(file)
        sign(file.parents[1], json.loads(file.read_text()))

    return spoil


def tensors(change):
    """Weights changed, with the checksum that belongs to them."""
    return lambda file: write_tensors(file, *change(*read_tensors(file)))


def same_header(file):
    """Weights whose header is right, and whose numbers are not."""
    whole = file.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[:size] + b"\xff" * (len(whole) - size))


DATA = "t.npy"
# By file and command: what is done to the file, and what is named if that is not the file itself.
SPOILT = {
    ("run/config.json", "evaluate"): {
        "gone": (gone, "run"),
        "folder": (a_folder, "run"),
        "empty": empty,
        "noise": noise,
        "null": text("null"),
        "deep": text("[" * 100_000),
        "long-number": text("1" * 5000),
        "more": changed(extra=1),
        "no-data": changed(data=...),
        "no-shape": changed(data__shape=...),
        "format": changed(format=1),
        "program-number": changed(program=3),
        "program-outside": (changed(program="os:system"), "run"),
        "arguments-list": changed(arguments=[]),
        "arguments-other": (changed(arguments={"depth": 1}), "VAE"),
        "arguments-nan": (changed(arguments__latent_dim=np.nan), "latent_dim"),
        "hidden-thousands": (changed(arguments__hidden=[1] * 10**5), "hidden"),
        "hidden-huge": (changed(arguments__hidden=[10**9]), "run/config.json"),
        "hidden-other": (changed(arguments__hidden=[8]), "run/weights.safetensors"),
        "shape-number": changed(data__shape=4),
        "shape-empty": changed(data__shape=[]),
        "shape-bool": changed(data__shape=[True]),
        "shape-negative": changed(data__shape=[-4]),
        "source-number": changed(data__source=3),
        "source-missing": (changed(data__source=...), "run"),
        "data-dir-number": changed(data__data_dir=3),
        "binarize-null": changed(data__binarize=None),
        "binarize-other": (changed(data__binarize="maybe"), "binarize"),
        "digest-null": changed(data__digest=None),
        "digest-other": (changed(data__digest="0" * 64), DATA),
        "label-names-text": changed(data__label_names="abc"),
        "label-names-numbers": changed(data__label_names=[1, 2]),
        "known-labels-number": changed(data__known_labels=10),
        "known-labels-negative": changed(data__known_labels=[-1, 0]),
        "known-labels-of-none": (changed(data__known_labels=[10, 0]), "labels"),
        "settings-list": changed(settings=[1]),
        "versions-list": changed(versions=[1]),
    },
    ("run/weights.safetensors", "sample"): {
        "gone": gone,
        "noise": noise,
        "no-tensors": lambda file: file.write_bytes((2).to_bytes(8, "little") + b"{}"),
        "flipped": same_header,
        "nan": tensors(lambda weights, about: ({k: v * np.nan for k, v in weights.items()}, about)),
        "of-another": (
            tensors(lambda weights, about: (weights, {**about, "arguments": {"latent_dim": 7}})),
            "run/config.json",
        ),
    },
    ("run/metrics.csv", "report"): {
        "gone": gone,
        "folder": a_folder,
        "noise": noise,
        "header-alone": text("epoch,reconstruction,loss\n"),
        "other-columns": text("a,b\n1,2\n"),
        "words": text("epoch,reconstruction,loss\n1,high,2\n"),
        "short-row": lambda file: file.write_text(file.read_text() + "2,3\n"),
    },
    ("run/results/diagnosis.nc", "report"): {"gone": gone, "noise": noise},
    ("run/results/diagnosis.json", "report"): {
        "gone": gone,
        "noise": noise,
        "list": text("[]"),
        "deep": text("[" * 100_000),
        "no-verdicts": signed(verdicts=...),
        "verdicts-empty": signed(verdicts={}),
        "verdict-text": signed(verdicts__gaps="pass"),
        "verdict-short": signed(verdicts__gaps__meaning=...),
        "grade-other": signed(verdicts__gaps__grade="superb"),
        "meaning-number": signed(verdicts__gaps__meaning=3),
        "value-text": signed(verdicts__gaps__value="small"),
        "value-nan": signed(verdicts__gaps__value=np.nan),
        "error-negative": signed(verdicts__gaps__error=-1),
    },
    (DATA, "reconstruct"): {
        "gone": gone,
        "one-value": lambda f: np.save(f, TABLE + (np.arange(240) == 7).reshape(60, 4)),
        "row-order": lambda f: np.save(f, TABLE[::-1]),
        "float32": lambda f: np.save(f, TABLE.astype(np.float32)),
    },
}
LINES = [
    Line(
        f"{file.rpartition('/')[2]}-{kind}",
        [command, "run"],
        culprit,
        lambda folder, file=file, spoil=spoil: spoil(folder / file),
    )
    for (file, command), cases in SPOILT.items()
    for kind, case in cases.items()
    for spoil, culprit in [case if isinstance(case, tuple) else (case, file)]
]
