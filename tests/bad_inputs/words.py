"""Options and paths of each command: wrong, out of range, in contradiction, hostile."""

import numpy as np
from PIL import Image

from . import Line
from .data_files import FIT, TABLE

TABLED = ["train", "--data", "t.npy", "--likelihood", "gaussian", *FIT]
DIGITS = ["train", *FIT]
LONG = "n" * 300


def wrote(name, words=""):
    return lambda folder: (folder / name).write_text(words)


def made(name):
    return lambda folder: (folder / name).mkdir()


def grey_images(folder):
    (folder / "d").mkdir()
    for i in range(40):
        grey = np.random.default_rng(i).integers(256, size=(6, 5), dtype=np.uint8)
        Image.fromarray(grey).save(folder / "d" / f"{i}.png")


def a_thesis(folder):
    made("d")(folder)
    wrote("d/thesis.tex")(folder)


def an_experiment(folder):
    made("new")(folder)
    wrote("new/findings.json", "{}")(folder)


REFUSING = """import torch
class A(torch.nn.Module):
    model = guide = None
    def __init__(self, shape):
        raise OSError("the constructor's own words")
"""
GREY = ["train", "--data", "d", *FIT]
AUTOENCODER = [*DIGITS, "--model", "autoencoder"]
PPCA = ["train", "--model", "linear-gaussian"]
MNIST = [*DIGITS, "--data", "mnist", "--data-dir"]
EVALUATE = ["evaluate", "run"]
EXPERIMENT = ["experiment", "gap", "--quick"]
# What is wrong, the command line, what the error must name, and what lies in the folder.
TRAIN = [
    ("model", [*DIGITS, "--model", "gan"], "gan"),
    ("model-colon", [*DIGITS, "--model", ":"], None),
    ("model-no-module", [*DIGITS, "--model", "nope.x:A"], "nope.x"),
    ("model-exits", [*DIGITS, "--model", "mine.py:A"], "mine.py", wrote("mine.py", "exit(3)")),
    ("model-other-class", [*DIGITS, "--model", "ppl_vae.models:X"], "X"),
    ("model-function", [*DIGITS, "--model", "os:getcwd"], "getcwd"),
    ("model-no-program", [*DIGITS, "--model", "ppl_vae.models:MLP"], "MLP"),
    ("model-refuses", ["train", "--model", "mine.py:A"], "A", wrote("mine.py", REFUSING)),
    ("latent-dim-huge", [*DIGITS, "--latent-dim", 10**15], None),
    ("data", [*DIGITS, "--data", "mnst"], "mnst"),
    ("data-empty", [*DIGITS, "--data", ""], "''"),
    ("data-escape", [*DIGITS, "--data", "\x1b[31m.npy"], r"\x1b[31m.npy"),
    ("data-nul", [*DIGITS, "--data", "a\0b.npy"], r"a\x00b.npy"),
    ("data-long", [*DIGITS, "--data", LONG], LONG),
    ("data-no-user", [*DIGITS, "--data", "~nope/x.npy"], "~nope/x.npy"),
    ("data-other-format", [*DIGITS, "--data", "d.txt"], "d.txt", wrote("d.txt")),
    ("data-dir-file", [*MNIST, "t.npy"], "mnist"),
    ("data-dir-nul", [*MNIST, "a\0"], "--data-dir"),
    ("data-dir-no-user", [*MNIST, "~nope"], "~nope"),
    ("scale-denormal", [*TABLED, "--likelihood-scale", "1e-320"], "likelihood-scale"),
    ("scale-words", [*TABLED, "--likelihood-scale", "big"], "--likelihood-scale"),
    ("hidden-words", [*DIGITS, "--hidden", "big"], "hidden"),
    ("hidden-empty", [*DIGITS, "--hidden", ","], "hidden"),
    ("hidden-zero", [*DIGITS, "--hidden", "0"], "hidden"),
    ("hidden-of-ppca", [*PPCA, "--hidden", 4], "--hidden"),
    ("epochs-half", [*DIGITS, "--epochs", 1.5], "--epochs"),
    ("epochs-missing", [*DIGITS, "--epochs"], "--epochs"),
    ("batch-zero", [*DIGITS, "--batch-size", 0], "batch-size"),
    ("batch-too-large", [*DIGITS, "--batch-size", 10**5], None),
    ("rate-nan", [*DIGITS, "--learning-rate", "nan"], "learning-rate"),
    ("objective", [*DIGITS, "--objective", "nll"], "--objective"),
    ("stl-of-autoencoder", [*AUTOENCODER, "--objective", "stl"], None),
    ("seed-huge", [*DIGITS, "--seed", 2**63], "seed"),
    ("device", [*DIGITS, "--device", "quantum"], "quantum"),
    ("device-meta", [*DIGITS, "--device", "meta"], "meta"),
    ("grey-under-bernoulli", GREY, "datum", grey_images),
    ("digits-not-binarized", [*DIGITS, "--binarize", "none"], "datum"),
    ("table-binarized", [*TABLED, "--binarize", "dynamic"], "t.npy"),
    ("output-is-a-file", [*DIGITS, "--output", "t.npy"], "t.npy"),
    ("output-is-a-run", [*DIGITS, "--output", "run"], "run"),
    ("output-full-overwrite", [*DIGITS, "--output", "d", "--overwrite"], "d", a_thesis),
    ("output-through-a-file", [*DIGITS, "--output", "t.npy/x"], "t.npy/x"),
    ("output-long", [*DIGITS, "--output", LONG], LONG),
    ("no-such-option", [*DIGITS, "--layers", 3], "--layers"),
    ("extra-argument", [*DIGITS, "mnist"], "mnist"),
]
RUN = [
    *(
        (f"{command}-no-run", [command, "none"], "none")
        for command in ("evaluate", "diagnose", "report", "gradients", "sample", "reconstruct")
    ),
    ("run-missing", ["evaluate"], "run"),
    ("run-long", ["evaluate", LONG], LONG),
    ("run-no-user", ["evaluate", "~nope"], "~nope"),
    ("draws-zero", [*EVALUATE, "--draws", 0], "draws"),
    ("points-zero", [*EVALUATE, "--data-points", 0], "data-points"),
    ("points-many", [*EVALUATE, "--data-points", 999], "999"),
    ("bdmc-of-a-split", [*EVALUATE, "--estimator", "bdmc", "--split", "train"], "--split"),
    ("bdmc-draws-zero", [*EVALUATE, "--estimator", "bdmc", "--draws", 0], "draws"),
    ("chains-of-iw", [*EVALUATE, "--chains", 4], "--chains"),
    ("evaluate-seed", [*EVALUATE, "--seed", -1], "seed"),
    ("evaluate-device", [*EVALUATE, "--device", "tpu"], "tpu"),
    ("other-model", [*EVALUATE, "--model", "autoencoder"], None),
    ("evaluate-output", [*EVALUATE, "--output", "x.txt"], "x.txt"),
    ("evaluate-no-folder", [*EVALUATE, "--output", "no/x.nc"], "no"),
    ("evaluate-output-folder", [*EVALUATE, "--output", "x.nc"], "x.nc", made("x.nc")),
    ("evaluate-json-in-the-way", [*EVALUATE, "--output", "x.nc"], "x.json", wrote("x.json")),
    ("diagnose-draws", ["diagnose", "run", "--draws", 0], "draws"),
    ("diagnose-seed", ["diagnose", "run", "--seed", 2**64], "seed"),
    ("gradients-particles", ["gradients", "run", "--particles", 1], "particles"),
    ("sample-zero", ["sample", "run", "--count", 0], "--count"),
    ("sample-long", ["sample", "run", "--output", f"{LONG}.npy"], f"{LONG}.npy"),
    ("sample-seed", ["sample", "run", "--seed", -5], "seed"),
    ("reconstruct-many", ["reconstruct", "run", "--count", 99], "count"),
    ("command", ["fit"], "fit"),
    ("experiment", ["experiment", "magic"], "magic"),
    ("experiment-missing", ["experiment"], "name"),
    ("experiment-seed", [*EXPERIMENT, "--seed", -1], "seed"),
    ("experiment-few", [*EXPERIMENT, "--data", "d", "--output", "new"], "d", grey_images),
    ("experiment-output-file", [*EXPERIMENT, "--output", "t.npy"], "t.npy"),
    ("experiment-output-taken", [*EXPERIMENT, "--output", "new"], "new", an_experiment),
    ("experiment-output-through-a-file", [*EXPERIMENT, "--output", "t.npy/x"], "t.npy/x"),
]
LINES = [Line(*case) for case in [*TRAIN, *RUN]]
assert TABLE.shape == (60, 4)
