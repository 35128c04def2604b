"""Calls of every public function and class, with arguments that are wrong."""

import numpy as np
import pyro
import torch
from torch import nn

import ppl_vae
from ppl_vae import Annealing, Config, Effort, Estimate, Run, Scores, Settings
from ppl_vae.models import VAE, Autoencoder, LinearGaussian

from ..misfits import (
    Foreign,
    Frozen,
    NoModel,
    NoParameters,
    NoPlate,
    OtherSites,
    Transposed,
    Unobserved,
    WrongSupport,
)
from . import Call

NAN, INF = float("nan"), float("inf")
WHOLE = "must be an integer of at least 1, got"
NUMBER = "must be a number of at least 0, got"


def settings(**given):
    return lambda world: Settings(**given)


def spoilt(x, value, index=(2, 1)):
    x = x.clone()
    x[index] = value
    return x


def built(kind, *arguments):
    """A program, whose initial weights leave the random state alone."""
    with torch.random.fork_rng():
        return kind(*arguments)


def diverged(program):
    with torch.no_grad():
        next(program.parameters()).fill_(NAN)
    return program


SETTINGS = [
    ("epochs-float", settings(epochs=2.5), f"epochs {WHOLE} 2.5"),
    ("epochs-text", settings(epochs="3"), f"epochs {WHOLE} '3'"),
    ("epochs-bool", settings(epochs=True), f"epochs {WHOLE} True"),
    ("epochs-none", settings(epochs=None), f"epochs {WHOLE} None"),
    ("epochs-array", settings(epochs=np.ones(2)), f"epochs {WHOLE} array"),
    ("batch-nan", settings(batch_size=NAN), f"batch_size {WHOLE} nan"),
    ("rate-text", settings(learning_rate="fast"), "learning_rate must be a positive number, got"),
    ("rate-complex", settings(learning_rate=1j), "learning_rate must be a positive number, got 1j"),
    ("warmup-infinite", settings(warmup_epochs=INF), f"warmup_epochs {NUMBER} inf"),
    ("kl-warmup-none", settings(kl_warmup_epochs=None), f"kl_warmup_epochs {NUMBER} None"),
    ("objective", settings(objective="nll"), r"objective must be in \('elbo', .*got 'nll'"),
    ("objective-list", settings(objective=["elbo"]), r"objective must be in \('elbo', .*got \["),
    ("clip-text", settings(clip_norm="no"), "clip_norm must be positive, got 'no'"),
    ("patience-float", settings(patience=1.5), f"patience {WHOLE} 1.5"),
    ("engine", settings(engine="fast"), r"engine must be in \('auto', .*got 'fast'"),
    ("seed-float", settings(seed=0.5), r"seed must be .*0 \.\.\. 2\^63 - 1, got 0.5"),
    ("seed-bool", settings(seed=True), r"seed must be .*0 \.\.\. 2\^63 - 1, got True"),
    ("device-number", settings(device=3), "device must be .*, got 3"),
]  # fmt: skip
FIT = [
    ("no-program", lambda w: ppl_vae.fit(None, w.data), "NoneType is no program: it must be"),
    ("a-class", lambda w: ppl_vae.fit(VAE, w.data), "is no program: it must be"),
    ("a-function", lambda w: ppl_vae.fit(len, w.data), "is no program: it must be an nn.Module"),
    (
        "array",
        lambda w: ppl_vae.fit(w.vae, np.ones((9, 4))),
        "data must be a DataSet, as make_data",
    ),
    (
        "tensor",
        lambda w: ppl_vae.fit(w.vae, w.x),
        "data must be a DataSet, as make_data gives, not T",
    ),
    ("name", lambda w: ppl_vae.fit(w.vae, "digits"), "data must be a DataSet, as make_data gives"),
    (
        "settings",
        lambda w: ppl_vae.fit(w.vae, w.data, {"epochs": 1}),
        "settings must be of type Settings",
    ),
    ("run", lambda w: ppl_vae.fit(w.vae, w.data, run="runs/a"), "run must be of type Run, not str"),
    (
        "taken",
        lambda w: ppl_vae.fit(w.vae, w.data, Settings(batch_size=8), run=Run.open(w.run)),
        "holds a run: choose another",
    ),
    (
        "batch",
        lambda w: ppl_vae.fit(w.vae, w.data, Settings(batch_size=99)),
        "lower the batch size",
    ),
    (
        "other-shape",
        lambda w: ppl_vae.fit(w.vae, ppl_vae.make_data(np.ones((60, 5))), Settings(batch_size=8)),
        r"VAE does not run on data of shape \(5,\) \(RuntimeError: ",
    ),
    (
        "device",
        lambda w: ppl_vae.fit(w.vae, w.data, Settings(batch_size=8, device="tpu:0:0")),
        "device 'tpu:0:0' cannot be used here .*: try --device cpu",
    ),
    (
        "weights",
        lambda w: ppl_vae.fit(diverged(built(VAE, (4,), 2, (4,))), w.data, Settings(batch_size=8)),
        "holds NaN or infinity: its fit diverged; fit again",
    ),
]
PROGRAMS = [
    (
        kind.__name__,
        lambda w, kind=kind: ppl_vae.check_program(built(kind), torch.ones(6, 5)),
        message,
    )
    for kind, message in {
        NoModel: "NoModel is no program: it must be an nn.Module with model and guide",
        NoParameters: "NoParameters has no parameters: assign its networks",
        NoPlate: "site 'z' is not in a plate 'data' at dim -1 over the batch: wrap it",
        Unobserved: "Unobserved.model observes nothing: it must observe",
        OtherSites: "site .* is only in the .*: both need the same latent sites",
        Foreign: "parameter 'shift' does not belong to the module, .*: assign it",
        Frozen: r"Frozen: every parameter is frozen \(requires_grad=False\)",
        Transposed: "is not contiguous, .*: make it of tensor.contiguous",
    }.items()
] + [
    (
        "WrongSupport",
        lambda w: ppl_vae.check_program(built(WrongSupport), torch.ones(60, 1)),
        "outside the prior's support, .*: give the guide the same support",
    ),
]
# What each function that scores data makes of data that cannot be scored.
SCORERS = {
    "score": ppl_vae.score,
    "evaluate": ppl_vae.evaluate,
    "log_weights": ppl_vae.log_weights,
    "log_terms": ppl_vae.log_terms,
    "anneal": lambda program, x: ppl_vae.anneal(program, x, Annealing(1, 2)),
    "compare_gradients": lambda program, x: ppl_vae.compare_gradients(program, x, 2, 2),
    "posterior_predictive": ppl_vae.posterior_predictive,
    "check_program": ppl_vae.check_program,
}
BAD_X = {
    "array": (lambda x: x.numpy(), "data must be a tensor, such as DataSet.fixed gives, not"),
    "list": (lambda x: x.tolist(), "data must be a tensor, such as DataSet.fixed gives, not"),
    "none": (lambda x: None, "data must be a tensor, such as DataSet.fixed gives, not"),
    "empty": (lambda x: x[:0], r"data of shape \(0, 4\) are empty, or no batch: expected \(N"),
    "0-d": (lambda x: x[0, 0], r"data of shape \(\) are empty, or no batch: expected \(N"),
    "1-d": (lambda x: x[0], r"data of shape \(4,\) are empty, or no batch: expected \(N"),
    "no-columns": (
        lambda x: x[:, :0],
        r"data of shape \(6, 0\) are empty, or no batch: expected \(N",
    ),
    "other-shape": (lambda x: x[:, :3], r"VAE does not run on data of shape \(3,\) \(Runtime.*: "),
    "more-dims": (
        lambda x: x[:, None, None],
        r"VAE does not run on data of shape .*: |batch shape",
    ),
    "complex": (lambda x: x * 1j, "data are of type torch.complex128, but must be real"),
    "sparse": (lambda x: x.to_sparse(), "data is sparse, or without values: make it dense"),
    "meta": (lambda x: x.to("meta"), "data is sparse, or without values: make it dense"),
    "nan": (lambda x: spoilt(x, NAN), "datum 2: nan lies outside .*; remove or impute"),
    "infinite": (lambda x: spoilt(x, INF), "datum 2 is infinite, or beyond torch.float32: remove"),
    "too-large": (
        lambda x: spoilt(x.double(), 1e300),
        "datum 2 is infinite, or beyond torch.float32: remove",
    ),
}


VALUES = ("nan", "infinite", "too-large")
THOROUGH = ("posterior_predictive", "log_terms")


def scoring(function, change):
    return lambda world: function(world.vae, change(world.x))


DATA = [
    Call(name, f"x-{kind}", scoring(function, change), message)
    for i, (name, function) in enumerate(SCORERS.items())
    for j, (kind, (change, message)) in enumerate(BAD_X.items())
    # Terms are what they are, and what is observed may be missing.
    if (name in THOROUGH and kind not in VALUES)
    or name == "score"
    or (name not in THOROUGH and (i + j) % 3 == 0)
]
NO_PROGRAM = [
    Call(
        name,
        "no-program",
        lambda w, f=function: f(built(nn.Linear, 4, 4), w.x),
        "Linear is no program: ",
    )
    for name, function in SCORERS.items()
]
COUNTS = [
    ("score", "draws-zero", lambda w: ppl_vae.score(w.vae, w.x, 0), f"draws {WHOLE} 0"),
    ("evaluate", "draws-float", lambda w: ppl_vae.evaluate(w.vae, w.x, 1.5), f"draws {WHOLE} 1.5"),
    ("log_weights", "draws-text", lambda w: ppl_vae.log_weights(w.vae, w.x, "9"), f"draws {WHOLE} '9'"),
    ("log_terms", "draws-negative", lambda w: ppl_vae.log_terms(w.vae, w.x, -1), f"draws {WHOLE} -1"),
    ("log_terms", "draws-bool", lambda w: ppl_vae.log_terms(w.vae, w.x, True), f"draws {WHOLE} True"),
    ("score", "seed", lambda w: ppl_vae.score(w.vae, w.x, 2, -1), r"seed must be .*, got -1"),
    ("score", "seed-text", lambda w: ppl_vae.score(w.vae, w.x, 2, "a"), "seed must be .*, got 'a'"),
    ("evaluate", "seed-float", lambda w: ppl_vae.evaluate(w.vae, w.x, 2, 1.5), "seed must be .*, got 1.5"),
    ("evaluate", "seed-none", lambda w: ppl_vae.evaluate(w.vae, w.x, 2, None), "seed must be .*, got None"),
    ("log_weights", "point-mass", lambda w: ppl_vae.log_weights(w.autoencoder, w.x), "point mass: it has"),
    ("Annealing", "chains", lambda w: Annealing(chains=0), f"chains {WHOLE} 0"),
    ("Annealing", "chains-many", lambda w: Annealing(chains=10**9), "chains must be at most 4096"),
    ("Annealing", "temperatures", lambda w: Annealing(temperatures=2.0), f"temperatures {WHOLE} 2.0"),
    ("Annealing", "leapfrog", lambda w: Annealing(leapfrog_steps=None), f"leapfrog_steps {WHOLE} None"),
    ("Annealing", "start", lambda w: Annealing(start="here"), "start must be one of .*, got 'here'"),
    ("anneal", "annealing", lambda w: ppl_vae.anneal(w.vae, w.x, 9), "annealing must be of type Annealing, not int"),
    ("anneal", "point-mass", lambda w: ppl_vae.anneal(w.autoencoder, w.x), "is a point mass: it has no"),
    ("bidirectional", "size", lambda w: ppl_vae.bidirectional(w.vae, (4,), 0), f"size {WHOLE} 0"),
    ("bidirectional", "size-float", lambda w: ppl_vae.bidirectional(w.vae, (4,), 2.5), f"size {WHOLE} 2.5"),
    ("bidirectional", "shape", lambda w: ppl_vae.bidirectional(w.vae, (5,), 2), r"data of shape \(5,\) "),
    ("bidirectional", "shape-int", lambda w: ppl_vae.bidirectional(w.vae, 4, 2), "data_shape must hold"),
    ("bidirectional", "no-program", lambda w: ppl_vae.bidirectional(None, (4,), 2), "is no program: "),
    ("compare_gradients", "one", lambda w: ppl_vae.compare_gradients(w.vae, w.x, 1), "at least 2, got 1"),
    ("compare_gradients", "text", lambda w: ppl_vae.compare_gradients(w.vae, w.x, 2, "9"), "repeats must"),
    ("compare_gradients", "mass", lambda w: ppl_vae.compare_gradients(w.autoencoder, w.x), "is a point mass: it has no"),
    ("prior_predictive", "size", lambda w: ppl_vae.prior_predictive(w.vae, (4,), 0), f"size {WHOLE} 0"),
    ("prior_predictive", "shape", lambda w: ppl_vae.prior_predictive(w.vae, 4, 2), "data_shape must hold"),
    ("prior_predictive", "none", lambda w: ppl_vae.prior_predictive(None, (4,), 2), "is no program: "),
    ("prior_predictive", "seed", lambda w: ppl_vae.prior_predictive(w.vae, (4,), 2, -1), "seed must be"),
    ("decode", "size", lambda w: ppl_vae.decode(w.vae, {}, (4,), -2), f"size {WHOLE} -2"),
    ("decode", "none", lambda w: ppl_vae.decode(None, {}, (4,), 2), "is no program: "),
    ("decode", "other-site", lambda w: ppl_vae.decode(w.vae, {"w": torch.ones(2, 2)}, (4,), 2), "site 'w'.*: "),
    ("decode", "array", lambda w: ppl_vae.decode(w.vae, {"z": np.ones((2, 2))}, (4,), 2), "'z' must be of type Tensor"),
    ("decode", "count", lambda w: ppl_vae.decode(w.vae, {"z": torch.ones(3, 2)}, (4,), 2), r"'z' has shape \(3, 2\): expected 2"),
    ("decode", "width", lambda w: ppl_vae.decode(w.vae, {"z": torch.ones(2, 7)}, (4,), 2), "does not run .*: "),
    ("decode", "list", lambda w: ppl_vae.decode(w.vae, [1], (4,), 2), "latents must be of type dict, not list"),
    ("Estimate", "empty", lambda w: Estimate.of(torch.ones(0)), r"shape \(0,\): expected \(N,\)"),
    ("Estimate", "matrix", lambda w: Estimate.of(torch.ones(3, 3)), r"expected \(N,\)"),
    ("Estimate", "list", lambda w: Estimate.of([1.0, 2.0]), "values must be of type Tensor, not list"),
    ("Scores", "no-ledger", lambda w: Scores({"reconstruction": w.x[:, 0]}).ledger(), "no ledger: "),
    ("Ledger", "point-mass", lambda w: ppl_vae.score(w.autoencoder, w.x).ledger(), "no ledger: "),
    ("PathwiseELBO", "none", lambda w: ppl_vae.PathwiseELBO(0), f"num_particles {WHOLE} 0"),
    ("PathwiseELBO", "float", lambda w: ppl_vae.PathwiseELBO(2.5), f"num_particles {WHOLE} 2.5"),
    ("PathwiseELBO", "text", lambda w: ppl_vae.PathwiseELBO("two"), f"num_particles {WHOLE} 'two'"),
    (
        "CompiledSVI",
        "engine",
        lambda w: ppl_vae.CompiledSVI(
            w.vae.model,
            w.vae.guide,
            pyro.optim.Adam({"lr": 1e-3}),
            pyro.infer.Trace_ELBO(),
            engine="fast",
        ),
        "engine must be .*'fast'",
    ),
]  # fmt: skip
EFFORT = [
    (name, lambda w, name=name, value=value: Effort(**{name: value}), f"{name} {WHOLE} {value!r}")
    for name, value in {
        "data_points": 0,
        "draws": 1.5,
        "simulations": "9",
        "gap_points": None,
        "nuts_points": True,
    }.items()
]
MODELS = [
    (kind.__name__, what, lambda w, kind=kind, given=given: kind(**given), message)
    for kind in (VAE, Autoencoder, LinearGaussian)
    for what, given, message in (
        ("shape-empty", {"data_shape": ()}, "data_shape is empty: a datum needs"),
        ("shape-number", {"data_shape": 4}, "data_shape must hold whole numbers of at least 1, got 4"),
        ("shape-none", {"data_shape": None}, "data_shape must hold whole numbers of at least 1, got"),
        ("shape-zero", {"data_shape": (1, 0, 8)}, "data_shape must hold whole numbers of at least 1"),
        ("latents-zero", {"data_shape": (4,), "latent_dim": 0}, "latent_dim must hold whole numbers"),
        ("latents-float", {"data_shape": (4,), "latent_dim": 2.0}, "latent_dim must hold whole num"),
        ("latents-bool", {"data_shape": (4,), "latent_dim": True}, "latent_dim must hold whole numb"),
    )
] + [
    ("VAE", what, lambda w, given=given: VAE(**{"data_shape": (4,), **given}), message)
    for what, given, message in (
        ("hidden-number", {"hidden": 8}, "hidden must hold whole numbers of at least 1, got 8"),
        ("hidden-text", {"hidden": "88"}, "hidden must hold whole numbers of at least 1, got '88'"),
        ("hidden-nested", {"hidden": [[8]]}, "hidden must hold whole numbers of at least 1, got"),
        ("channels-table", {"channels": (4,)}, "channels ask for convolutions.*: leave channels out"),
        ("activation", {"activation": "gelu"}, "no activation 'gelu': choose from silu"),
        ("activation-class", {"activation": nn.ReLU}, "no activation .*ReLU.*: choose from silu"),
        ("likelihood", {"likelihood": "poisson"}, "no likelihood 'poisson': choose from bernoulli"),
        ("likelihood-class", {"likelihood": nn.Linear}, "no likelihood .*Linear.*: choose from"),
        ("likelihood-none", {"likelihood": None}, "no likelihood None: choose from bernoulli"),
        ("scale-of-bernoulli", {"likelihood_scale": 1.0}, "takes none: leave it out, or use gaussian"),
        (
            "scale-text",
            {"likelihood": "laplace", "likelihood_scale": "1"},
            "likelihood_scale must be a positive number, got '1'",
        ),
    )
] + [
    (
        "LinearGaussian",
        "no-noise",
        lambda w: LinearGaussian((2,), 2).set_maximum_likelihood(torch.ones(9, 2)),
        "latent_dim=2 leaves no direction for the noise.*; choose a smaller",
    ),
    (
        "LinearGaussian",
        "constant",
        lambda w: LinearGaussian((4,), 2).set_maximum_likelihood(torch.ones(9, 4)),
        "explain the data exactly: .*; choose a smaller latent_dim",
    ),
]  # fmt: skip
CONFIG = Config("ppl_vae.models:VAE", {}, {"shape": [4]}, {})
RUNS = [
    ("load", "missing", lambda w: ppl_vae.load(w.folder / "none"), "is no run: it has no config.json"),
    ("load", "number", lambda w: ppl_vae.load(3), "path must be a path, not int"),
    ("load", "none", lambda w: ppl_vae.load(None), "path must be a path, not NoneType"),
    ("load", "other-class", lambda w: ppl_vae.load(w.run, Autoencoder), "not this program's .*: fit"),
    ("load", "no-program", lambda w: ppl_vae.load(w.run, "vae"), "str is no program: it must be"),
    ("load", "no-class", lambda w: ppl_vae.load(w.run, int), "cannot be built .*: fit again"),
    ("Run", "open", lambda w: Run.open(w.folder), "is no run: it has no config.json"),
    ("Run", "create-taken", lambda w: Run.create(w.run, CONFIG), "holds a run: choose another"),
    ("Run", "create-config", lambda w: Run.create(w.folder / "a", {}), "config must be of type Config, not dict"),
    ("Run", "create-number", lambda w: Run.create(3, CONFIG), "path must be a path, not int"),
    ("Config", "of-no-data", lambda w: Config.of("m:C", {}, w.x), "data must be of type DataSet"),
    ("Config", "of-settings", lambda w: Config.of("m:C", {}, w.data, {}), "settings must be of type Settings, not dict"),
    ("Config", "of-tensor", lambda w: Config.of("m:C", {"a": w.x}, w.data), "arguments cannot be kept as JSON .*: give plain"),
    ("load_data", "missing", lambda w: ppl_vae.load_data(w.folder / "x.npy"), "no data set or file"),
    ("load_data", "number", lambda w: ppl_vae.load_data(3), "source must be a path, not int"),
    ("load_data", "none", lambda w: ppl_vae.load_data(None), "source must be a path, not NoneType"),
    ("load_data", "array", lambda w: ppl_vae.load_data(np.ones((9, 4))), "source must be a path, not ndarray"),
    ("load_data", "binarize", lambda w: ppl_vae.load_data("digits", binarize=True), "binarize must be"),
    ("diagnose", "no-program", lambda w: ppl_vae.diagnose(nn.ReLU(), w.data), "is no program: see"),
    ("diagnose", "array", lambda w: ppl_vae.diagnose(w.vae, w.x), "data must be a DataSet: make one"),
    ("diagnose", "effort", lambda w: ppl_vae.diagnose(w.vae, w.data, 9), "effort must be of type Effort, not int"),
    ("diagnose", "seed", lambda w: ppl_vae.diagnose(w.vae, w.data, None, -1), "seed must be"),
    ("write_report", "nothing", lambda w: ppl_vae.write_report(w.folder / "a.html", None), "diagnosis must be of type"),
    (
        "write_report",
        "folder",
        lambda w: ppl_vae.write_report(w.folder, ppl_vae.Diagnosis({}, {}, {})),
        "shown .*: |cannot be written .*: ",
    ),
    (
        "Diagnosis",
        "no-inference-data",
        lambda w: ppl_vae.write_report(w.folder / "a.html", ppl_vae.Diagnosis({}, None, {})),
        "the diagnosis cannot be shown .*: ",
    ),
    ("Program", "not-a-module", lambda w: ppl_vae.check_program(object(), w.x), "object is no program: "),
    ("DataSet", "split", lambda w: w.data.fixed("dev"), "no split 'dev': choose from train, validation"),
    ("DataSet", "seed", lambda w: w.data.fixed("test", -1), "seed must be"),
    ("DataSet", "batch", lambda w: next(w.data.batches(0, torch.Generator())), f"size {WHOLE} 0"),
]  # fmt: skip
CALLS = [
    *(Call("Settings", *case) for case in SETTINGS),
    *(Call("fit", *case) for case in FIT),
    *(Call("check_program", *case) for case in PROGRAMS),
    *DATA,
    *NO_PROGRAM,
    *(Call(*case) for case in [*COUNTS, *MODELS, *RUNS]),
    *(Call("Effort", *case) for case in EFFORT),
]
