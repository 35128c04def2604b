"""Options and paths of each command: wrong, out of range, contradictory, hostile."""

import numpy as np
from PIL import Image

from . import Line, nothing
from .data_files import FIT, IMAGES, TABLE

TABLED = ["train", "--data", "t.npy", "--likelihood", "gaussian", *FIT]
DIGITS = ["train", *FIT]
MINE = [*DIGITS, "--model", "mine.py:A"]
LONG = "n" * 300
REFUSING = """
import torch
class A(torch.nn.Module):
    model = guide = None
    def __init__(self, shape):
        raise OSError("the constructor's own words")
"""


def wrote(name, text=""):
    return lambda folder: (folder / name).write_text(text)


def made(name, inside=None):
    def make(folder):
        (folder / name).mkdir()
        if inside:
            (folder / name / inside).write_text("{}")

    return make


def grey_images(folder):
    (folder / "d").mkdir()
    for i, grey in enumerate(np.concatenate([IMAGES, 255 - IMAGES[:10]])):
        Image.fromarray(grey).save(folder / "d" / f"{i}.png")


# What is wrong, the command line, what must be named, and what lies in the folder.
TRAIN = [
    ("model", [*DIGITS, "--model", "gan"], "'gan'"),
    ("model-empty", [*DIGITS, "--model", ""], "''"),
    ("model-colon", [*DIGITS, "--model", "mine.py:"], "'mine.py:'"),
    ("model-no-file", [*DIGITS, "--model", "none.py:A"], "none.py"),
    ("model-no-module", [*DIGITS, "--model", "nope.x:A"], "nope.x"),
    ("model-relative", [*DIGITS, "--model", ".x:A"], ".x"),
    ("model-no-class", [*DIGITS, "--model", "ppl_vae.models:X"], "ppl_vae.models"),
    ("model-function", [*DIGITS, "--model", "os:getcwd"], "os"),
    ("model-not-a-program", [*DIGITS, "--model", "ppl_vae.models:MLP"], "ppl_vae.models:MLP"),
    ("model-syntax", MINE, "mine.py", wrote("mine.py", "def")),
    ("model-exits", MINE, "mine.py", wrote("mine.py", "import sys; sys.exit(3)")),
    ("model-refuses", MINE[:1] + MINE[-2:], "A", wrote("mine.py", REFUSING)),
    ("decimal", [*DIGITS, "--decimal", ";"], "decimal"),
    ("digits-separator", [*DIGITS, "--separator", "tab"], "digits"),
    ("data", [*DIGITS, "--data", "mnst"], "'mnst'"),
    ("data-empty", [*DIGITS, "--data", ""], "''"),
    ("data-newline", [*DIGITS, "--data", "a\nb.npy"], r"'a\nb.npy'"),
    ("data-escape", [*DIGITS, "--data", "\x1b[31m.npy"], r"'\x1b[31m.npy'"),
    ("data-brackets", [*DIGITS, "--data", "[red].npy"], "'[red].npy'"),
    ("data-nul", [*DIGITS, "--data", "a\0b.npy"], r"'a\x00b.npy'"),
    ("data-long", [*DIGITS, "--data", LONG], f"'{LONG}'"),
    ("data-no-user", [*DIGITS, "--data", "~nope/x.npy"], "~nope/x.npy"),
    ("data-format", [*DIGITS, "--data", "d.txt"], "d.txt", wrote("d.txt")),
    ("resize-words", [*DIGITS, "--data", "d", "--resize", "big"], "resize"),
    ("resize-one", [*DIGITS, "--data", "d", "--resize", "28"], "resize"),
    ("resize-zero", [*DIGITS, "--data", "d", "--resize", "0,28"], "resize"),
    ("resize-of-a-table", [*TABLED, "--resize", "2,2"], "resize"),
    ("grey-of-digits", [*DIGITS, "--grey"], "grey"),
    ("data-dir-no-user", [*DIGITS, "--data", "mnist", "--data-dir", "~nope"], "~nope"),
    ("data-dir-file", [*DIGITS, "--data", "mnist", "--data-dir", "t.npy"], "mnist"),
    ("data-dir-nul", [*DIGITS, "--data", "mnist", "--data-dir", "a\0"], "'--data-dir'"),
    ("likelihood", [*DIGITS, "--likelihood", "zipf"], "likelihood"),
    ("guide", [*DIGITS, "--guide", "ful"], "guide must be one of diagonal, full"),
    ("guide-hint", [*DIGITS, "--guide", "lowrank"], "did you mean 'low-rank'?"),
    ("prior", [*DIGITS, "--prior", "vampprior"], "prior must be one of standard"),
    ("components-unused", [*DIGITS, "--components", 3], "components=3"),
    ("components-zero", [*DIGITS, "--prior", "vamp", "--components", 0], "components"),
    ("components-words", [*DIGITS, "--prior", "vamp", "--components", "few"], "'--components'"),
    ("encoder-hidden-words", [*DIGITS, "--encoder-hidden", "a"], "encoder_hidden"),
    ("guide-of-autoencoder", [*DIGITS, "--model", "autoencoder", "--guide", "full"], "guide"),
    ("flow-of-one-unit", [*DIGITS, "--guide", "flow", "--latent-dim", 1], "latent_dim"),
    ("hidden-of-ppca", [*DIGITS[:1], "--model", "linear-gaussian", "--hidden", 4], "hidden"),
    ("scale-words", [*TABLED, "--likelihood-scale", "big"], "'--likelihood-scale'"),
    ("hidden-words", [*DIGITS, "--hidden", "1.5"], "hidden"),
    ("hidden-empty", [*DIGITS, "--hidden", ","], "hidden"),
    ("latent-dim-huge", [*DIGITS, "--latent-dim", 10**15], "VAE"),
    ("latent-dim-large", [*DIGITS, "--latent-dim", 10**9], "VAE"),
    ("hidden-thousands", [*DIGITS, "--hidden", ",".join(["1"] * 5000)], "hidden"),
    ("channels-words", [*DIGITS, "--channels", "a,b"], "channels"),
    ("epochs-zero", [*DIGITS, "--epochs", 0], "epochs"),
    ("epochs-half", [*DIGITS, "--epochs", 1.5], "'--epochs'"),
    ("epochs-missing", [*DIGITS, "--epochs"], "'--epochs'"),
    ("batch-zero", [*DIGITS, "--batch-size", 0], "batch_size"),
    ("labels-few", [*DIGITS, "--labels", 9], "labels"),
    ("labels-many", [*DIGITS, "--labels", 10**6], "labels"),
    ("labels-of-none", [*TABLED, "--data", "t.npy", "--labels", 10], "labels"),
    ("given-without-value", ["sample", "run", "--given", "label"], "given"),
    ("given-twice", ["sample", "run", "--given", "a=1", "--given", "a=2"], "given"),
    ("given-words", ["sample", "run", "--given", "a=high"], "given"),
    ("given-infinite", ["sample", "run", "--given", "a=inf"], "given"),
    ("given-stray", ["sample", "run", "--given", "a=1"], "given"),
    ("given-no-classes", ["sample", "run", "--given", "label=1"], "given"),
    ("objective", [*DIGITS, "--objective", "nll"], "'--objective'"),
    ("stl-of-autoencoder", [*DIGITS, "--model", "autoencoder", "--objective", "stl"], "utoencoder"),
    ("device", [*DIGITS, "--device", "quantum"], "device 'quantum'"),
    ("device-empty", [*DIGITS, "--device", ""], "device ''"),
    ("device-meta", [*DIGITS, "--device", "meta"], "device 'meta'"),
    ("grey-under-bernoulli", ["train", "--data", "d", *FIT], "datum", grey_images),
    (
        "table-under-bernoulli",
        ["train", "--data", "t.npy", *FIT, "--likelihood", "bernoulli"],
        "datum",
    ),
    ("output-is-a-file", [*DIGITS, "--output", "t.npy"], "t.npy"),
    ("output-is-a-run", [*DIGITS, "--output", "run"], "run"),
    ("output-empty", [*DIGITS, "--output", ""], "."),
    ("output-overwritten", [*DIGITS, "--output", "d", "--overwrite"], "d", made("d", "thesis.tex")),
    ("output-through-a-file", [*DIGITS, "--output", "t.npy/x"], "t.npy/x"),
    ("output-long", [*DIGITS, "--output", LONG], LONG),
    ("no-such-option", [*DIGITS, "--layers", 3], "--layers"),
    ("one-dash", [*DIGITS, "-epochs", 3], "-e"),
    ("extra-argument", [*DIGITS, "mnist"], "mnist"),
]
RUN = [
    *(
        (f"{command}-no-run", [command, "none"], "none")
        for command in (
            *("evaluate", "diagnose", "report", "refit", "gradients", "sample", "reconstruct"),
            *("encode", "score", "repair"),
        )
    ),
    ("compare-one", ["compare", "run"], "RUN"),
    ("compare-twice", ["compare", "run", "run"], "RUN"),
    ("compare-no-run", ["compare", "run", "none"], "none"),
    ("compare-estimator", ["compare", "run", "run/", "--estimator", "loo"], "'--estimator'"),
    ("run-long", ["evaluate", LONG], LONG),
    ("run-newline", ["evaluate", "a\nb"], r"a\nb"),
    ("run-no-user", ["evaluate", "~nope"], "~nope"),
    ("run-missing", ["evaluate"], "RUN"),
    ("points-zero", ["evaluate", "run", "--data-points", 0], "data_points"),
    ("points-many", ["evaluate", "run", "--data-points", 999], "data_points"),
    ("gradients-zero", ["gradients", "run", "--data-points", 0], "data_points"),
    ("chains-of-iw", ["evaluate", "run", "--chains", 4], "chains"),
    ("chains-zero", ["evaluate", "run", "--chains", 0], "chains"),
    ("bdmc-of-a-split", ["evaluate", "run", "--estimator", "bdmc", "--split", "train"], "split"),
    ("bdmc-draws", ["evaluate", "run", "--estimator", "bdmc", "--draws", 0], "draws"),
    ("other-model", ["evaluate", "run", "--model", "autoencoder"], "weights.safetensors"),
    ("evaluate-seed", ["evaluate", "run", "--seed", -1], "seed"),
    ("output-in-the-way", ["evaluate", "run", "--output", "run/config.nc"], "run/config.json"),
    ("output-folder", ["evaluate", "run", "--output", "x.nc"], "x.nc", made("x.nc")),
    ("evaluate-ending", ["evaluate", "run", "--output", "x"], "x"),
    ("report-ending", ["report", "run", "--output", "x.pdf"], "x.pdf"),
    ("gradients-ending", ["gradients", "run", "--output", "x.npy"], "x.npy"),
    ("sample-ending", ["sample", "run", "--output", "x.jpg"], "x.jpg"),
    ("reconstruct-ending", ["reconstruct", "run", "--output", ".npy"], ".npy"),
    ("report-twice", ["report", "run", "run"], "RUN"),
    ("report-of-none", ["report", "run", "none"], "none"),
    ("report-no-folder", ["report", "run", "--output", "no/x.html"], "no"),
    ("report-folder", ["report", "run", "--output", "x.html"], "x.html", made("x.html")),
    ("sample-no-folder", ["sample", "run", "--output", "no/x.png"], "no"),
    ("sample-long", ["sample", "run", "--output", f"{LONG}.npy"], f"{LONG}.npy"),
    ("sample-zero", ["sample", "run", "--count", 0], "'--count'"),
    ("sample-seed", ["sample", "run", "--seed", -5], "seed"),
    ("reconstruct-many", ["reconstruct", "run", "--count", 99], "count"),
    ("diagnose-draws", ["diagnose", "run", "--draws", 0], "draws"),
    ("diagnose-seed", ["diagnose", "run", "--seed", 2**64], "seed"),
    ("diagnose-device", ["diagnose", "run", "--device", "tpu"], "device 'tpu'"),
    ("particles", ["gradients", "run", "--particles", 1], "particles"),
    ("on", ["refit", "run", "--on", "dreams"], "'--on'"),
    ("parent-as-output", ["refit", "run", "--output", "run", "--overwrite"], "output"),
    ("refit-of-iw", ["refit", "run", "--objective", "iw"], "particles"),
    ("iw-without-data", ["refit", "run", "--on", "simulations", "--objective", "stl"], "objective"),
    ("encoder-words", ["refit", "run", "--encoder-hidden", "a"], "encoder_hidden"),
    ("refit-batch", ["refit", "run", "--batch-size", 0], "batch_size"),
    ("repair-as-output", ["repair", "run", "--output", "run", "--overwrite"], "output"),
    ("repair-points", ["repair", "run", "--nuts-points", 0], "nuts_points"),
    ("repair-guide", ["repair", "run", "--guide", "wide"], "guide"),
    ("impute-complete", ["impute", "run"], "data"),
    ("impute-ending", ["impute", "run", "--output", "x.txt"], "x.txt"),
    ("impute-coverage", ["impute", "run", "--coverage", 90], "coverage"),
    ("encode-ending", ["encode", "run", "--output", "x.txt"], "x.txt"),
    ("encode-many", ["encode", "run", "--data-points", 999], "data_points"),
    ("encode-draws", ["encode", "run", "--draws", 0, "--output", "x.nc"], "draws"),
    ("encode-file", ["encode", "run", "--data", "none.npy"], "'none.npy'"),
    ("score-method", ["score", "run", "--method", "best"], "'--method'"),
    ("score-table", ["score", "run", "--data", "t.npy", "--split", "test"], "split"),
    ("extend-less", ["train", "--resume", "run", "--epochs", 1], "epochs"),
    ("extend-zero", ["train", "--resume", "run", "--epochs", 0], "epochs"),
    ("data", ["inspect", "none.csv"], "'none.csv'"),
    ("schema", ["inspect", "t.npy", "--schema", "none.toml"], "none.toml"),
    ("schema-words", ["inspect", "t.npy", "--schema", "s.toml"], "s.toml", wrote("s.toml", "a")),
    ("resize", ["inspect", "t.npy", "--resize", "3"], "resize"),
    ("levels", ["inspect", "t.npy", "--levels", 300], "levels"),
    ("separator", ["inspect", "t.npy", "--separator", "ab"], "separator"),
    ("write-schema", ["inspect", "t.npy", "--write-schema", "s.txt"], "s.txt"),
    ("command", ["fit"], "'fit'"),
    ("name", ["experiment", "magic"], "'magic'"),
    ("seed", ["experiment", "gap", "--quick", "--seed", -1], "seed"),
    (
        "few",
        ["experiment", "gap", "--quick", "--data", "d", "--output", "new"],
        "d",
        grey_images,
    ),
    ("output", ["experiment", "gap", "--quick", "--output", "run"], "run"),
    (
        "output-taken",
        ["experiment", "gap", "--quick", "--output", "new"],
        "new",
        made("new", "findings.json"),
    ),
    (
        "output-through-a-file",
        ["experiment", "gap", "--quick", "--output", "t.npy/x"],
        "t.npy/x",
    ),
]
LINES = [
    Line(name, words, culprit, *(rest or [nothing]))
    for name, words, culprit, *rest in [*TRAIN, *RUN]
]
assert TABLE.shape == (60, 4)
