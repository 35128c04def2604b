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


def empty(file):
    file.write_bytes(b"")


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


BROKEN, FORMAT = (
    r"run/config.json is broken \(.*\): fit again",
    "run/config.json is not of format 2: ",
)
CONFIG = [
    ("gone", gone, "run is no run: it has no config.json; fit one with ppl-vae train"),
    ("folder", a_folder, "run is no run: it has no config.json; fit one with ppl-vae train"),
    ("empty", empty, BROKEN),
    ("half", half, BROKEN),
    ("noise", noise, BROKEN),
    ("words", words("hello"), BROKEN),
    ("null", words("null"), BROKEN),
    ("list", words("[]"), BROKEN),
    ("number", words("3"), BROKEN),
    ("other-json", words('{"name": "site"}'), BROKEN),
    ("deep", words("[" * 100_000), BROKEN),
    ("long-number", words("1" * 5000), BROKEN),
    ("twice", lambda f: f.write_text(f.read_text() * 2), BROKEN),
    ("utf-16", lambda f: f.write_text(f.read_text(), encoding="utf-16"), BROKEN),
    ("more", changed(extra=1), BROKEN),
    ("no-program", without("program"), BROKEN),
    ("no-arguments", without("arguments"), BROKEN),
    ("no-data", without("data"), BROKEN),
    ("no-settings", without("settings"), BROKEN),
    ("format", changed(format=1), FORMAT),
    ("format-text", changed(format="2"), FORMAT),
    ("program-number", changed(program=3), FORMAT),
    ("program-null", changed(program=None), FORMAT),
    ("program-empty", changed(program=""), "fitted with '', code from outside ppl_vae: if you"),
    ("program-other", changed(program="os:system"), "'os:system', code from outside ppl_vae: if you"),
    ("program-gone", changed(program="ppl_vae.models:X"), "ppl_vae.models has no class 'X': "),
    ("program-no-program", changed(program="ppl_vae.models:MLP"), "is no program: it must be an nn"),
    ("arguments-list", changed(arguments=[]), FORMAT),
    ("arguments-other", changed(arguments={"depth": 1}), "the program cannot be built .*: fit again"),
    ("latent-dim-nan", changed(arguments__latent_dim=np.nan), "cannot be built .*latent_dim.*: fit"),
    ("latent-dim-text", changed(arguments__latent_dim="2"), "cannot be built .*latent_dim.*: fit"),
    ("latent-dim-null", changed(arguments__latent_dim=None), "cannot be built .*latent_dim.*: fit"),
    ("hidden-number", changed(arguments__hidden=4), "cannot be built .*hidden.*: fit again"),
    ("hidden-text", changed(arguments__hidden="44"), "cannot be built .*hidden.*: fit again"),
    ("hidden-other", changed(arguments__hidden=[8]), "weights.safetensors .*not this program's"),
    ("likelihood-list", changed(arguments__likelihood=[]), "cannot be built .*likelihood.*: fit"),
    ("scale-nan", changed(arguments__likelihood_scale=np.nan), "likelihood_scale must be .*: fit"),
    ("data-list", changed(data=[]), BROKEN),
    ("data-text", changed(data="t.npy"), BROKEN),
    ("no-shape", without("data", "shape"), BROKEN),
    ("shape-number", changed(data__shape=4), FORMAT),
    ("shape-null", changed(data__shape=None), FORMAT),
    ("shape-floats", changed(data__shape=[4.0]), FORMAT),
    ("shape-text", changed(data__shape="4"), FORMAT),
    ("shape-bool", changed(data__shape=[True]), FORMAT),
    ("shape-empty", changed(data__shape=[]), FORMAT),
    ("shape-negative", changed(data__shape=[-4]), FORMAT),
    ("shape-other", changed(data__shape=[5]), "weights.safetensors .*not this program's"),
    ("source-number", changed(data__source=3), FORMAT),
    ("source-null", changed(data__source=None), FORMAT),
    ("source-empty", changed(data__source=""), "no data set or file ''"),
    ("source-missing", without("data", "source"), "run does not say what it was fitted to: fit"),
    ("data-dir-number", changed(data__data_dir=3), FORMAT),
    ("binarize-other", changed(data__binarize="maybe"), "binarize must be one of .*'maybe'"),
    ("binarize-null", changed(data__binarize=None), FORMAT),
    ("digest-null", changed(data__digest=None), FORMAT),
    ("digest-other", changed(data__digest="0" * 64), "t.npy has changed since run was fitted to it: "),
    ("settings-list", changed(settings=[1]), FORMAT),
    ("settings-text", changed(settings="none"), FORMAT),
    ("versions-list", changed(versions=[1]), FORMAT),
]  # fmt: skip


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


BROKEN_WEIGHTS = r"run/weights.safetensors is (missing|torn), .*: ppl-vae train --resume run"
WEIGHTS = [
    ("gone", gone, BROKEN_WEIGHTS),
    ("empty", empty, BROKEN_WEIGHTS),
    ("folder", a_folder, BROKEN_WEIGHTS),
    ("half", half, BROKEN_WEIGHTS),
    ("noise", noise, BROKEN_WEIGHTS),
    ("words", words("hello"), BROKEN_WEIGHTS),
    ("no-header", lambda f: f.write_bytes(bytes(8)), BROKEN_WEIGHTS),
    ("no-tensors", lambda f: f.write_bytes((2).to_bytes(8, "little") + b"{}"), BROKEN_WEIGHTS),
    ("flipped", same_header, BROKEN_WEIGHTS),
    ("nan", of_nan, "run/weights.safetensors: parameter '.*' holds NaN or infinity: fit again"),
    ("of-another", of_another, "config.json was altered: weights.safetensors is of .*; fit again"),
]
BROKEN_METRICS = r"run/metrics.csv is missing or broken \(.*\): ppl-vae train --resume run writes"
METRICS = [
    ("gone", gone, BROKEN_METRICS),
    ("empty", empty, BROKEN_METRICS),
    ("folder", a_folder, BROKEN_METRICS),
    ("noise", noise, BROKEN_METRICS),
    ("header-alone", words("epoch,elbo\n"), BROKEN_METRICS),
    ("words", words("epoch,elbo\n1,high\n"), BROKEN_METRICS),
    ("other-columns", words("a,b\n1,2\n"), BROKEN_METRICS),
    ("short-row", lambda f: f.write_text(f.read_text() + "2,3\n"), BROKEN_METRICS),
    ("long-row", lambda f: f.write_text(f.read_text().strip() + ",4\n"), BROKEN_METRICS),
]
AGAIN = "run ppl-vae diagnose again"
NETCDF = [
    ("gone", gone, "results/diagnosis.nc is missing, or no file: make it with ppl-vae diagnose"),
    (
        "folder",
        a_folder,
        "results/diagnosis.nc is missing, or no file: make it with ppl-vae diagnose",
    ),
    ("empty", empty, f"results/diagnosis.nc or diagnosis.json was altered or torn: {AGAIN}"),
    ("half", half, f"results/diagnosis.nc or diagnosis.json was altered or torn: {AGAIN}"),
    ("noise", noise, f"results/diagnosis.nc or diagnosis.json was altered or torn: {AGAIN}"),
    (
        "other-netcdf",
        lambda f: shutil.copy(f.with_name("test-iw.nc"), f),
        f"diagnosis.*: {AGAIN}",
    ),
]
BROKEN_VERDICTS = rf"results/diagnosis.json is broken \(.*\): {AGAIN}"
NO_VERDICTS = "results/diagnosis.json is missing, or no file: make it with ppl-vae diagnose"
VERDICTS = [
    ("gone", gone, NO_VERDICTS),
    ("folder", a_folder, NO_VERDICTS),
    ("empty", empty, BROKEN_VERDICTS),
    ("half", half, BROKEN_VERDICTS),
    ("noise", noise, BROKEN_VERDICTS),
    ("list", words("[]"), BROKEN_VERDICTS),
    ("number", words("3"), BROKEN_VERDICTS),
    ("deep", words("[" * 100_000), BROKEN_VERDICTS),
    ("no-verdicts", signed(without("verdicts")), BROKEN_VERDICTS),
    ("verdicts-empty", signed(changed(verdicts={})), BROKEN_VERDICTS),
    ("verdicts-list", signed(changed(verdicts=[])), BROKEN_VERDICTS),
    ("verdict-text", signed(changed(verdicts__gaps="pass")), BROKEN_VERDICTS),
    ("verdict-short", signed(without("verdicts", "gaps", "meaning")), BROKEN_VERDICTS),
    ("verdict-more", signed(changed(verdicts__gaps__extra=1)), BROKEN_VERDICTS),
    ("grade-other", signed(changed(verdicts__gaps__grade="superb")), BROKEN_VERDICTS),
    ("grade-null", signed(changed(verdicts__gaps__grade=None)), BROKEN_VERDICTS),
    ("meaning-number", signed(changed(verdicts__gaps__meaning=3)), BROKEN_VERDICTS),
    ("value-text", signed(changed(verdicts__gaps__value="small")), BROKEN_VERDICTS),
    (
        "value-nan",
        signed(changed(verdicts__gaps__value=np.nan, verdicts__gaps__error=1)),
        BROKEN_VERDICTS,
    ),
    ("error-infinite", signed(changed(verdicts__gaps__error=np.inf)), BROKEN_VERDICTS),
    ("error-negative", signed(changed(verdicts__gaps__error=-1)), BROKEN_VERDICTS),
]
DATA = [
    ("gone", gone, "no data set or file '/.*t.npy': choose from"),
    ("folder", a_folder, "t.npy holds no images: expected"),
    ("half", half, "t.npy is truncated, or holds no plain array.*: save it again"),
    ("one-value", lambda f: np.save(f, TABLE + (np.arange(240) == 7).reshape(60, 4)), "t.npy has "
     "changed since run was fitted to it: .*fit again"),
    ("row-gone", lambda f: np.save(f, TABLE[1:]), "t.npy has changed since run was fitted to it: "),
    ("row-order", lambda f: np.save(f, TABLE[::-1]), "t.npy has changed since run was fitted to it"),
    ("float32", lambda f: np.save(f, TABLE.astype(np.float32)), "t.npy has changed since run was"),
    ("column-gone", lambda f: np.save(f, TABLE[:, 1:]), "t.npy has changed since run was fitted to"),
    ("nan", lambda f: np.save(f, TABLE * np.nan), "t.npy: 240 values are NaN"),
]  # fmt: skip


def spoils(name, spoil):
    return lambda folder: spoil(folder / name)


LINES = [
    Line(f"{name}-{kind}", command, message, spoils(file, spoil))
    for name, file, commands, table in (
        ("config", "run/config.json", ["evaluate run"], CONFIG),
        ("weights", "run/weights.safetensors", ["sample run", "gradients run"], WEIGHTS),
        ("metrics", "run/metrics.csv", ["report run"], METRICS),
        ("netcdf", "run/results/diagnosis.nc", ["report run"], NETCDF),
        ("verdicts", "run/results/diagnosis.json", ["report run"], VERDICTS),
        ("data", "t.npy", ["evaluate run", "reconstruct run", "diagnose run"], DATA),
    )
    for i, (kind, spoil, message) in enumerate(table)
    for command in [commands[i % len(commands)].split()]
]
