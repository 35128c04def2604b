"""Options and paths of each command: wrong, out of range, in contradiction, hostile."""

import numpy as np
from PIL import Image

from . import Line, nothing
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


def module(words):
    return wrote("mine.py", words)


def an_experiment(folder):
    (folder / "new").mkdir()
    (folder / "new" / "findings.json").write_text("{}")


GREY = ["train", "--data", "d", *FIT]
# What is wrong, the command line, what is said of it, and what lies in the folder.
TRAIN = [
    ("model", [*DIGITS, "--model", "gan"], "no model 'gan': choose from vae, autoencoder"),
    ("model-empty", [*DIGITS, "--model", ""], "no model '': choose from vae"),
    ("model-colon", [*DIGITS, "--model", ":"], "no model ':': give a registered name"),
    ("model-no-class", [*DIGITS, "--model", "mine.py:"], "no model 'mine.py:': give a registered"),
    ("model-no-file", [*DIGITS, "--model", "none.py:A"], r"none.py cannot be imported \(FileNot.*: "),
    ("model-folder", [*DIGITS, "--model", "d.py:A"], r"d.py cannot be imported \(.*: ", made("d.py")),
    ("model-no-module", [*DIGITS, "--model", "nope.x:A"], "nope.x cannot be imported .*No module"),
    ("model-relative", [*DIGITS, "--model", ".x:A"], r"\.x cannot be imported \(.*: "),
    ("model-dots", [*DIGITS, "--model", "..:A"], r"\.\. cannot be imported \(.*: "),
    ("model-other-class", [*DIGITS, "--model", "ppl_vae.models:X"], "ppl_vae.models has no class 'X'"),
    ("model-no-program", [*DIGITS, "--model", "ppl_vae.models:MLP"], "is no program: it must be an"),
    ("model-function", [*DIGITS, "--model", "os:getcwd"], "os has no class 'getcwd'"),
    (
        "model-syntax",
        [*DIGITS, "--model", "mine.py:A"],
        r"mine.py cannot be imported \(SyntaxError: ",
        module("def"),
    ),
    (
        "model-raises",
        [*DIGITS, "--model", "mine.py:A"],
        r"mine.py cannot be imported \(ZeroDivisionError: ",
        module("1 / 0"),
    ),
    (
        "model-exits",
        [*DIGITS, "--model", "mine.py:A"],
        r"mine.py cannot be imported \(SystemExit: ",
        module("import sys; sys.exit(3)"),
    ),
    (
        "model-refuses",
        ["train", "--model", "mine.py:A"],
        "A: the constructor.s own words",
        module(
            "import torch\nclass A(torch.nn.Module):\n  model = guide = None\n"
            "  def __init__(self, shape):\n    raise OSError('the constructor\\'s own words')\n"
        ),
    ),
    ("data", [*DIGITS, "--data", "mnst"], "no data set or file 'mnst': choose from digits, mnist"),
    ("data-empty", [*DIGITS, "--data", ""], "no data set or file '': choose from digits"),
    ("data-spaces", [*DIGITS, "--data", "  "], "no data set or file '  ': choose from digits"),
    ("data-dash", [*DIGITS, "--data", "-"], "no data set or file '-': choose from digits"),
    ("data-newline", [*DIGITS, "--data", "a\nb.npy"], r"no data set or file 'a\\nb.npy': choose"),
    ("data-unicode", [*DIGITS, "--data", "дані.npy"], "no data set or file 'дані.npy': choose"),
    ("data-escape", [*DIGITS, "--data", "\x1b[31m.npy"], r"no data set or file '\\x1b.31m.npy': "),
    ("data-brackets", [*DIGITS, "--data", "[red].npy"], r"no data set or file '\[red\].npy': "),
    ("data-nul", [*DIGITS, "--data", "a\0b.npy"], r"no data set or file 'a\\x00b.npy': choose"),
    ("data-long", [*DIGITS, "--data", LONG], "no data set or file 'nnn.*': choose from digits"),
    ("data-nobody", [*DIGITS, "--data", "~nobody/x.npy"], "no data set or file '~nobody/x.npy'"),
    ("data-no-user", [*DIGITS, "--data", "~nope/x.npy"], "~nope/x.npy begins with no user.*: write"),
    (
        "data-dir-no-user",
        [*DIGITS, "--data", "mnist", "--data-dir", "~nope"],
        "~nope begins with no user's name: write the path in full",
    ),
    ("run-no-user", ["evaluate", "~nope"], "~nope begins with no user's name: write the path in"),
    ("data-through-a-file", [*DIGITS, "--data", "t.npy/x.npy"], "no data set or file 't.npy/x.npy'"),
    ("data-other-format", [*DIGITS, "--data", "d.txt"], "unknown format, expected", wrote("d.txt")),
    ("data-no-ending", [*DIGITS, "--data", "d"], "d: unknown format, expected .npy", wrote("d")),
    ("data-folder", [*DIGITS, "--data", "d.npy"], "d.npy holds no images: expected", made("d.npy")),
    ("data-run", [*DIGITS, "--data", "run"], r"shape .*: crop or resize images to one size"),
    ("data-dir-file", [*DIGITS, "--data", "mnist", "--data-dir", "t.npy"], "mnist is not in t.npy"),
    ("data-dir-nul", [*DIGITS, "--data", "mnist", "--data-dir", "a\0"], "'--data-dir'.*null byte: see"),
    ("likelihood", [*DIGITS, "--likelihood", "poisson"], "VAE: no likelihood 'poisson': choose"),
    ("likelihood-empty", [*DIGITS, "--likelihood", ""], "VAE: no likelihood '': choose from"),
    ("activation", [*DIGITS, "--activation", "gelu"], "VAE: no activation 'gelu': choose from"),
    ("scale-of-bernoulli", [*DIGITS, "--likelihood-scale", 1], "takes none: leave it out, or use"),
    ("scale-zero", [*TABLED, "--likelihood-scale", 0], "likelihood_scale must be a positive number"),
    ("scale-nan", [*TABLED, "--likelihood-scale", "nan"], "likelihood_scale must be a positive"),
    ("scale-infinite", [*TABLED, "--likelihood-scale", "inf"], "likelihood_scale must be a positive"),
    ("scale-negative", [*TABLED, "--likelihood-scale", "-1"], "likelihood_scale must be a positive"),
    ("scale-denormal", [*TABLED, "--likelihood-scale", "1e-320"], "likelihood_scale must be"),
    ("scale-words", [*TABLED, "--likelihood-scale", "big"], "'--likelihood-scale'.*: see ppl-vae"),
    ("hidden-words", [*DIGITS, "--hidden", "big"], "--hidden must be whole numbers like 500,500"),
    ("hidden-floats", [*DIGITS, "--hidden", "1.5"], "--hidden must be whole numbers like 500,500"),
    ("hidden-zero", [*DIGITS, "--hidden", "0"], "VAE: hidden must hold whole numbers of at least 1"),
    ("hidden-empty", [*DIGITS, "--hidden", ","], "--hidden must be whole numbers like 500,500"),
    ("hidden-other-digits", [*DIGITS, "--hidden", "9,,9"], "--hidden must be whole numbers like"),
    ("latent-dim-zero", [*DIGITS, "--latent-dim", 0], "VAE: latent_dim must hold whole numbers"),
    ("latent-dim-words", [*DIGITS, "--latent-dim", "two"], "'--latent-dim'.*: see ppl-vae train"),
    ("latent-dim-huge", [*DIGITS, "--latent-dim", 10**15], "VAE: .*memory|VAE: .*large"),
    ("channels-zero", [*DIGITS, "--channels", "0"], "VAE: channels must hold whole numbers"),
    ("channels-words", [*DIGITS, "--channels", "a,b"], "--channels must be whole numbers like"),
    ("channels-of-a-table", [*TABLED, "--channels", 4], "channels ask for convolutions.*: leave"),
    (
        "hidden-of-ppca",
        ["train", "--model", "linear-gaussian", "--hidden", 4],
        "--hidden was given, but LinearGaussian takes no hidden: leave it out",
    ),
    (
        "likelihood-of-ppca",
        ["train", "--model", "linear-gaussian", "--likelihood", "gaussian"],
        "--likelihood was given, but LinearGaussian takes no likelihood: leave it out",
    ),
    ("epochs-zero", [*DIGITS, "--epochs", 0], "epochs must be an integer of at least 1, got 0"),
    ("epochs-words", [*DIGITS, "--epochs", "many"], "'--epochs'.*valid integer.*: see ppl-vae train"),
    ("epochs-half", [*DIGITS, "--epochs", 1.5], "'--epochs'.*valid integer.*: see ppl-vae train"),
    ("epochs-empty", [*DIGITS, "--epochs", ""], "'--epochs'.*valid integer.*: see ppl-vae train"),
    ("epochs-missing", [*DIGITS, "--epochs"], "'--epochs' requires an argument: see ppl-vae"),
    ("batch-zero", [*DIGITS, "--batch-size", 0], "batch_size must be an integer of at least 1"),
    ("batch-too-large", [*DIGITS, "--batch-size", 10**5], "fewer than a batch of 100000: lower"),
    ("rate-zero", [*DIGITS, "--learning-rate", 0], "learning_rate must be a positive number, got"),
    ("rate-nan", [*DIGITS, "--learning-rate", "nan"], "learning_rate must be a positive number"),
    ("rate-infinite", [*DIGITS, "--learning-rate", "inf"], "learning_rate must be a positive number"),
    ("warmup-negative", [*DIGITS, "--warmup-epochs", -1], "warmup_epochs must be a number of at"),
    ("objective", [*DIGITS, "--objective", "nll"], "'--objective'.*'nll' is not one of.*: see"),
    ("iw-of-one-draw", [*DIGITS, "--objective", "iw"], "particles must be 2 or more for the objective"),
    ("dreg-of-one-draw", [*DIGITS, "--objective", "dreg"], "particles must be 2 or more for the obj"),
    (
        "iw-free-bits",
        [*DIGITS, "--objective", "iw", "--particles", 2, "--free-bits", 1],
        "free_bits must be 0 for the objective iw, which has no KL term, got 1.0",
    ),
    (
        "dreg-kl-warmup",
        [*DIGITS, "--objective", "dreg", "--particles", 2, "--kl-warmup-epochs", 1],
        "kl_warmup_epochs must be 0 for the objective dreg, which has no KL term",
    ),
    (
        "stl-of-autoencoder",
        [*DIGITS, "--model", "autoencoder", "--objective", "stl"],
        "Autoencoder is a point mass|cannot be reparameterized|use the objective elbo",
    ),
    ("particles-zero", [*DIGITS, "--particles", 0], "particles must be an integer of at least 1"),
    ("free-bits-nan", [*DIGITS, "--free-bits", "nan"], "free_bits must be a number of at least 0"),
    ("free-bits-negative", [*DIGITS, "--free-bits", -1], "free_bits must be a number of at least"),
    ("clip-zero", [*DIGITS, "--clip-norm", 0], "clip_norm must be positive, got 0.0"),
    ("patience-zero", [*DIGITS, "--patience", 0], "patience must be an integer of at least 1"),
    ("engine", [*DIGITS, "--engine", "fast"], "'--engine'.*'fast' is not one of.*: see ppl-vae"),
    ("seed-negative", [*DIGITS, "--seed", -1], r"seed must be .*0 \.\.\. 2\^63 - 1, got -1"),
    ("seed-huge", [*DIGITS, "--seed", 2**63], r"seed must be .*0 \.\.\. 2\^63 - 1, got 922"),
    ("device", [*DIGITS, "--device", "quantum"], "device 'quantum' cannot be used .*: try --device cpu"),
    ("device-empty", [*DIGITS, "--device", ""], "device '' cannot be used .*: try --device cpu"),
    ("device-number", [*DIGITS, "--device", "cpu:x"], "device 'cpu:x' cannot be used .*: try"),
    ("device-meta", [*DIGITS, "--device", "meta"], "device 'meta' cannot be used .*: try --device"),
    ("grey-under-bernoulli", GREY, "datum .* use continuous-bernoulli, or --binarize", grey_images),
    ("digits-not-binarized", [*DIGITS, "--binarize", "none"], "use continuous-bernoulli, or --bin"),
    ("table-under-bernoulli", ["train", "--data", "t.npy", *FIT], "datum .*: use gaussian or lapl"),
    (
        "table-binarized",
        [*TABLED, "--binarize", "dynamic"],
        r"t.npy: values run from .*in \[0, 1\] can be binarized: rescale them",
    ),
    ("binarize", [*DIGITS, "--binarize", "maybe"], "'--binarize'.*'maybe' is not one of.*: see"),
    ("output-is-a-file", [*DIGITS, "--output", "t.npy"], "t.npy exists and is no run: choose another"),
    ("output-is-a-run", [*DIGITS, "--output", "run"], "run holds a run: choose another --output"),
    ("output-is-full", [*DIGITS, "--output", "."], r"\. exists and is no run: choose another"),
    (
        "output-full-overwrite",
        [*DIGITS, "--output", "d", "--overwrite"],
        "d exists and is no run: choose another --output",
        lambda folder: (made("d")(folder), wrote("d/thesis.tex")(folder)),
    ),
    ("output-through-a-file", [*DIGITS, "--output", "t.npy/x"], "t.npy/x cannot be written .*: "),
    ("output-long", [*DIGITS, "--output", LONG], "n+ cannot be (read|written) .*: choose another"),
    ("output-nul", [*DIGITS, "--output", "a\0b"], "'--output'.*null byte: see ppl-vae"),
    ("output-empty", [*DIGITS, "--output", ""], r"\. exists and is no run: choose another"),
    ("no-such-option", [*DIGITS, "--layers", 3], "No such option: --layers.*: see ppl-vae train"),
    ("one-dash", [*DIGITS, "-epochs", 3], "No such option: .*: see ppl-vae train"),
    ("extra-argument", [*DIGITS, "mnist"], r"unexpected extra argument.*mnist.*: see ppl-vae"),
]  # fmt: skip
RUN = [
    *(
        (f"{name}-{kind}", [name, path, *more], message)
        for name, more in {
            "evaluate": (),
            "diagnose": (),
            "report": (),
            "gradients": (),
            "sample": (),
            "reconstruct": (),
        }.items()
        for kind, path, message in (
            ("no-run", "none", "none is no run: it has no config.json; fit one"),
            ("file-for-run", "t.npy", "t.npy is no run: it has no config.json; fit one"),
        )
    ),
    ("run-empty", ["evaluate", ""], r"\. is no run: it has no config.json"),
    ("run-nul", ["evaluate", "a\0b"], "'run'.*null byte: see ppl-vae evaluate"),
    ("run-long", ["evaluate", LONG], "n+ is no run: it has no config.json"),
    ("run-newline", ["evaluate", "a\nb"], r"a\\nb is no run: it has no config.json"),
    ("run-nobody", ["evaluate", "~nobody"], "is no run: it has no config.json"),
    ("run-config", ["evaluate", "run/config.json"], "run/config.json is no run: it has no config"),
    ("run-missing", ["evaluate"], "Missing argument 'run': see ppl-vae evaluate --help"),
    ("estimator", ["evaluate", "run", "--estimator", "nuts"], "'--estimator'.*'nuts' is not one of"),
    ("draws-zero", ["evaluate", "run", "--draws", 0], "draws must be an integer of at least 1"),
    ("points-zero", ["evaluate", "run", "--data-points", 0], "--data-points must be at least 1, got"),
    ("points-many", ["evaluate", "run", "--data-points", 999], "999 are more than the 6 test data"),
    ("chains-zero", ["evaluate", "run", "--chains", 0], "chains must be an integer of at least"),
    ("chains-many", ["evaluate", "run", "--chains", 5000], "chains must be at most 4096, got 5000"),
    ("temperatures-zero", ["evaluate", "run", "--temperatures", 0], "temperatures must be a whole"),
    ("start", ["evaluate", "run", "--start", "here"], "'--start'.*'here' is not one of.*: see"),
    ("split", ["evaluate", "run", "--split", "dev"], "'--split'.*'dev' is not one of.*: see ppl-vae"),
    (
        "bdmc-of-a-split",
        ["evaluate", "run", "--estimator", "bdmc", "--split", "train"],
        "--split was given, but .*bdmc.*: leave it out",
    ),
    (
        "bdmc-draws-zero",
        ["evaluate", "run", "--estimator", "bdmc", "--draws", 0],
        "draws must be an integer of at least 1, got 0",
    ),
    (
        "evaluate-config-in-the-way",
        ["evaluate", "run", "--output", "run/config.nc"],
        "run/config.json exists, and would be replaced: choose another output",
    ),
    ("chains-of-iw", ["evaluate", "run", "--chains", 4], "--chains was given, but iw does not .*: "),
    ("start-of-iw", ["evaluate", "run", "--start", "guide"], "--start was given, but iw does not"),
    ("evaluate-seed", ["evaluate", "run", "--seed", -1], r"seed must be .*0 \.\.\. 2\^63 - 1, got -1"),
    ("evaluate-device", ["evaluate", "run", "--device", "tpu"], "device 'tpu' cannot be used .*: try"),
    ("other-model", ["evaluate", "run", "--model", "autoencoder"], "not this program's .*: fit again, or"),
    ("evaluate-output", ["evaluate", "run", "--output", "x.txt"], "x.txt: output must end in .nc"),
    ("evaluate-no-ending", ["evaluate", "run", "--output", "x"], "x: output must end in .nc"),
    ("evaluate-no-folder", ["evaluate", "run", "--output", "no/x.nc"], "no is no folder: make it, or"),
    (
        "evaluate-output-folder",
        ["evaluate", "run", "--output", "x.nc"],
        "x.nc is a folder: choose another output",
        made("x.nc"),
    ),
    (
        "evaluate-json-in-the-way",
        ["evaluate", "run", "--output", "x.nc"],
        "x.json exists, and would be replaced: choose another output",
        wrote("x.json", "mine"),
    ),
    *(
        (f"diagnose-{name}", ["diagnose", "run", f"--{name}", 0], f"{field} must be a whole number of")
        for name, field in {
            "data-points": "data_points",
            "draws": "draws",
            "simulations": "simulations",
            "gap-points": "gap_points",
            "nuts-points": "nuts_points",
        }.items()
    ),
    ("diagnose-device", ["diagnose", "run", "--device", "tpu"], "device 'tpu' cannot be used .*: try"),
    ("diagnose-seed", ["diagnose", "run", "--seed", 2**64], r"seed must be .*0 \.\.\. 2\^63 - 1"),
    ("report-output", ["report", "run", "--output", "x.pdf"], "x.pdf: output must end in .html"),
    ("report-no-folder", ["report", "run", "--output", "no/x.html"], "no is no folder: make it"),
    (
        "report-output-folder",
        ["report", "run", "--output", "x.html"],
        "x.html (is a folder|cannot be written .*): ",
        made("x.html"),
    ),
    ("gradients-particles", ["gradients", "run", "--particles", 1], "particles must be .*2, got 1"),
    ("gradients-repeats", ["gradients", "run", "--repeats", 1], "repeats must be .*2, got 1"),
    ("gradients-points", ["gradients", "run", "--data-points", 0], "--data-points must be at least 1"),
    ("gradients-many", ["gradients", "run", "--data-points", 99], "99 are more than the 48 train data"),
    ("gradients-output", ["gradients", "run", "--output", "x.npy"], "x.npy: output must end in .png"),
    ("sample-zero", ["sample", "run", "--count", 0], "'--count'.*: see ppl-vae sample --help"),
    ("sample-output", ["sample", "run", "--output", "x.jpg"], "x.jpg: output must end in .png or .npy"),
    ("sample-no-folder", ["sample", "run", "--output", "no/x.png"], "no is no folder: make it, or"),
    (
        "sample-output-folder",
        ["sample", "run", "--output", "x.npy"],
        "x.npy (is a folder|cannot be written .*): ",
        made("x.npy"),
    ),
    ("sample-long", ["sample", "run", "--output", f"{LONG}.npy"], "n+.npy cannot be written .*: "),
    ("sample-nul", ["sample", "run", "--output", "a\0.npy"], "'--output'.*null byte: see ppl-vae"),
    ("sample-seed", ["sample", "run", "--seed", -5], r"seed must be .*0 \.\.\. 2\^63 - 1, got -5"),
    ("reconstruct-zero", ["reconstruct", "run", "--count", 0], "'--count'.*: see ppl-vae recon"),
    ("reconstruct-many", ["reconstruct", "run", "--count", 99], "--count 99 .*more than the 6 test"),
    ("reconstruct-no-folder", ["reconstruct", "run", "--output", "no/x.npy"], "no is no folder: make"),
    ("reconstruct-ending", ["reconstruct", "run", "--output", ".npy"], "output must end in .png or"),
    ("command", ["fit"], "No such command 'fit'.*: see ppl-vae --help"),
    ("experiment", ["experiment", "magic"], "'magic' is not one of .*: see ppl-vae experiment"),
    ("experiment-missing", ["experiment"], "Missing argument 'name'.*: see ppl-vae experiment"),
    ("experiment-seed", ["experiment", "gap", "--quick", "--seed", -1], "seed must be .*, got -1"),
    ("experiment-data", ["experiment", "gap", "--data", "nope"], "no data set or file 'nope': choose"),
    (
        "experiment-table",
        ["experiment", "gap", "--data", "t.npy"],
        r"t.npy: values run from .*in \[0, 1\] can be binarized: rescale them",
    ),
    (
        "experiment-few",
        ["experiment", "gap", "--quick", "--data", "d", "--output", "new"],
        "d: an experiment needs 128 train data .*got 32: ",
        grey_images,
    ),
    (
        "experiment-output",
        ["experiment", "gap", "--quick", "--output", "run"],
        "run exists and is no experiment: choose another --output",
    ),
    (
        "experiment-output-file",
        ["experiment", "gap", "--quick", "--output", "t.npy"],
        "t.npy exists and is no experiment: choose another --output",
    ),
    (
        "experiment-output-taken",
        ["experiment", "gap", "--quick", "--output", "new"],
        "new holds an experiment: choose another --output, or --overwrite it",
        an_experiment,
    ),
    (
        "experiment-output-through-a-file",
        ["experiment", "gap", "--quick", "--output", "t.npy/x"],
        "t.npy/x cannot be .*: write elsewhere",
    ),
]  # fmt: skip
LINES = [
    Line(name, words, message, *(rest or [nothing]))
    for name, words, message, *rest in [*TRAIN, *RUN]
]
assert TABLE.shape == (60, 4)
