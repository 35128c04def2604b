"""Run directories that lack or garble one file, and data that changed since the fit."""

import json
import shutil

import numpy as np

from ppl_vae.storage.tensors import read_tensors, write_tensors

from ..strangers import sign
from . import Line
from .data_files import TABLE

NOISE = np.random.default_rng(0).bytes(5000)


def gone(file):
    file.unlink()


def a_folder(file):
    file.unlink()
    file.mkdir()


def half(file):
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def noise(file):
    file.write_bytes(NOISE)


def words(text):
    return lambda file: file.write_text(text)


def changed(**fields):
    """JSON with some fields changed; a field ``a__b`` is b in a, and None is no field."""

    def spoil(file):
        whole = json.loads(file.read_text())
        for path, value in fields.items():
            *outer, name = path.split("__")
            place = whole
            for key in outer:
                place = place[key]
            place[name] = value
        file.write_text(json.dumps(whole))

    return spoil


def without(*names):
    def spoil(file):
        whole = json.loads(file.read_text())
        place = whole
        for name in names[:-1]:
            place = place[name]
        place.pop(names[-1])
        file.write_text(json.dumps(whole))

    return spoil


def signed(spoil):
    """Spoil what is signed, and sign it again."""

    def spoil_and_sign(file):
        spoil(file)
        sign(file.parents[1], json.loads(file.read_text()))

    return spoil_and_sign


CONFIG = {
    "folder": a_folder,
    "empty": words(""),
    "noise": noise,
    "null": words("null"),
    "deep": words("[" * 100_000),
    "long-number": words("1" * 5000),
    "more": changed(extra=1),
    "no-program": without("program"),
    "no-shape": without("data", "shape"),
    "format": changed(format=1),
    "program-null": changed(program=None),
    "program-other": changed(program="os:system"),
    "program-gone": changed(program="ppl_vae.models:X"),
    "program-no-program": changed(program="ppl_vae.models:MLP"),
    "arguments-list": changed(arguments=[]),
    "arguments-other": changed(arguments={"depth": 1}),
    "latent-dim-nan": changed(arguments__latent_dim=np.nan),
    "hidden-other": changed(arguments__hidden=[8]),
    "shape-null": changed(data__shape=None),
    "shape-bool": changed(data__shape=[True]),
    "shape-empty": changed(data__shape=[]),
    "shape-negative": changed(data__shape=[-4]),
    "source-null": changed(data__source=None),
    "source-missing": without("data", "source"),
    "data-dir-number": changed(data__data_dir=3),
    "binarize-null": changed(data__binarize=None),
    "digest-null": changed(data__digest=None),
    "settings-list": changed(settings=[1]),
    "versions-list": changed(versions=[1]),
}


def same_header(file):
    """Weights whose header is right, and whose numbers are not."""
    whole = file.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    file.write_bytes(whole[:size] + b"\xff" * (len(whole) - size))


def of_nan(file):
    tensors, about = read_tensors(file)
    write_tensors(file, {name: tensor * float("nan") for name, tensor in tensors.items()}, about)


def of_another(file):
    tensors, about = read_tensors(file)
    write_tensors(file, tensors, {**about, "arguments": {"latent_dim": 7}})


WEIGHTS = {
    "gone": gone,
    "half": half,
    "flipped": same_header,
    "nan": of_nan,
    "of-another": of_another,
}
METRICS = {
    "gone": gone,
    "folder": a_folder,
    "noise": noise,
    "other-columns": words("a,b\n1,2\n"),
    "header-alone": words("epoch,reconstruction,loss\n"),
    "words": words("epoch,reconstruction,loss\n1,high,2\n"),
    "short-row": lambda f: f.write_text(f.read_text() + "2,3\n"),
}
NETCDF = {
    "gone": gone,
    "half": half,
    "other-netcdf": lambda f: shutil.copy(f.with_name("test-iw.nc"), f),
}
VERDICTS = {
    "gone": gone,
    "noise": noise,
    "list": words("[]"),
    "deep": words("[" * 100_000),
    "no-verdicts": signed(without("verdicts")),
    "verdicts-empty": signed(changed(verdicts={})),
    "verdict-text": signed(changed(verdicts__gaps="pass")),
    "verdict-short": signed(without("verdicts", "gaps", "meaning")),
    "verdict-more": signed(changed(verdicts__gaps__extra=1)),
    "grade-other": signed(changed(verdicts__gaps__grade="superb")),
    "meaning-number": signed(changed(verdicts__gaps__meaning=3)),
    "value-text": signed(changed(verdicts__gaps__value="small")),
    "value-nan": signed(changed(verdicts__gaps__value=np.nan, verdicts__gaps__error=1)),
    "error-negative": signed(changed(verdicts__gaps__error=-1)),
}
DATA = {
    "gone": gone,
    "one-value": lambda f: np.save(f, TABLE + (np.arange(240) == 7).reshape(60, 4)),
    "row-order": lambda f: np.save(f, TABLE[::-1]),
    "float32": lambda f: np.save(f, TABLE.astype(np.float32)),
}


def spoils(name, spoil):
    return lambda folder: spoil(folder / name)


LINES = [
    Line(f"{name}-{kind}", commands[i % len(commands)].split(), culprit, spoils(file, spoil))
    for name, file, culprit, commands, table in (
        ("config", "run/config.json", None, ["evaluate run"], CONFIG),
        ("weights", "run/weights.safetensors", None, ["sample run", "gradients run"], WEIGHTS),
        ("metrics", "run/metrics.csv", "metrics.csv", ["report run"], METRICS),
        ("netcdf", "run/results/diagnosis.nc", "results/diagnosis.", ["report run"], NETCDF),
        ("verdicts", "run/results/diagnosis.json", "diagnosis.json", ["report run"], VERDICTS),
        ("data", "t.npy", "t.npy", ["evaluate run", "reconstruct run", "diagnose run"], DATA),
    )
    for i, (kind, spoil) in enumerate(table.items())
]
