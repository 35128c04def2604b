"""Calls of every public function and class, with arguments that are wrong."""

import numpy as np
import pyro
import torch
from torch import nn

import ppl_vae
from ppl_vae import Annealing, Batch, Config, Effort, Estimate, Posterior, Run, Scores, Settings
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
FEW = Settings(batch_size=8)


def spoilt(x, value):
    x = x.clone()
    x[2, 1] = value
    return x


def built(kind, *arguments):
    """A program, whose initial weights leave the random state alone."""
    with torch.random.fork_rng():
        return kind(*arguments)


def diverged():
    program = built(VAE, (4,), 2, (4,))
    with torch.no_grad():
        next(program.parameters()).fill_(NAN)
    return program


SETTINGS = {
    "epochs": (2.5, "3", True, None),
    "batch_size": (NAN,),
    "learning_rate": ("fast", 1j, 0, INF),
    "warmup_epochs": (INF, -1),
    "kl_warmup_epochs": (None,),
    "free_bits": (-1,),
    "objective": ("nll", ["elbo"]),
    "clip_norm": ("no", 0),
    "patience": (1.5,),
    "engine": ("fast",),
    "seed": (0.5, True),
    "device": (3,),
}
# Settings that contradict the objective.
OBJECTIVES = {
    "particles": {"objective": "iw"},
    "free_bits": {"objective": "iw", "particles": 2, "free_bits": 1},
    "kl_warmup_epochs": {"objective": "dreg", "particles": 2, "kl_warmup_epochs": 1},
}
EFFORT = {
    "data_points": 0,
    "draws": 1.5,
    "simulations": "9",
    "gap_points": None,
    "nuts_points": True,
}
FIT = [
    ("no-program", lambda w: ppl_vae.fit(VAE, w.data), None),
    ("array", lambda w: ppl_vae.fit(w.vae, w.x), "data"),
    ("settings", lambda w: ppl_vae.fit(w.vae, w.data, {"epochs": 1}), "settings"),
    ("run", lambda w: ppl_vae.fit(w.vae, w.data, run="runs/a"), "run"),
    ("taken", lambda w: ppl_vae.fit(w.vae, w.data, FEW, run=Run.open(w.run)), None),
    ("batch", lambda w: ppl_vae.fit(w.vae, w.data, Settings(batch_size=99)), None),
    ("other-shape", lambda w: ppl_vae.fit(w.vae, wide(), FEW), "VAE"),
    ("weights", lambda w: ppl_vae.fit(diverged(), w.data, FEW), None),
    ("no-covariate", lambda w: ppl_vae.fit(w.conditional, w.data, FEW), "array"),
    ("covariate", lambda w: ppl_vae.fit(w.vae, masked(), FEW), "array"),
]


def wide():
    return ppl_vae.make_data(np.ones((60, 5)))


def masked():
    return ppl_vae.make_data(np.ones((60, 4)), covariates={"mask": np.ones(60)})


PROGRAMS = {
    NoModel: "NoModel",
    NoParameters: "NoParameters",
    NoPlate: None,
    Unobserved: None,
    OtherSites: None,
    Foreign: None,
    Frozen: "Frozen",
    Transposed: None,
    WrongSupport: None,
}
# The functions that score data all make a Posterior first.
SCORERS = {
    "Posterior": Posterior,
    "score": ppl_vae.score,
    "evaluate": ppl_vae.evaluate,
    "anneal": lambda program, x: ppl_vae.anneal(program, x, Annealing(1, 2)),
    "compare_gradients": lambda program, x: ppl_vae.compare_gradients(program, x, 2, 2),
    "posterior_predictive": ppl_vae.posterior_predictive,
    "check_program": ppl_vae.check_program,
}
BAD_X = {
    "array": (lambda x: x.numpy(), "data"),
    "none": (lambda x: None, "data"),
    "empty": (lambda x: x[:0], "data"),
    "0-d": (lambda x: x[0, 0], "data"),
    "1-d": (lambda x: x[0], "data"),
    "no-columns": (lambda x: x[:, :0], "data"),
    "other-shape": (lambda x: x[:, :3], "VAE"),
    "more-dims": (lambda x: x[:, None, None], None),
    "complex": (lambda x: x * 1j, "data"),
    "sparse": (lambda x: x.to_sparse(), "data"),
    "meta": (lambda x: x.to("meta"), "data"),
    "nan": (lambda x: spoilt(x, NAN), None),
    "infinite": (lambda x: spoilt(x, INF), None),
    "too-large": (lambda x: spoilt(x.double(), 1e300), None),
}
BATCHES = {
    "no-x": (lambda w: Posterior(w.vae, Batch(y=w.x)), "data"),
    "stray": (lambda w: Posterior(w.vae, Batch(x=w.x, y=w.x)), None),
    "lacking": (lambda w: Posterior(w.conditional, w.x), None),
    "array": (lambda w: Posterior(w.conditional, {"x": w.x, "y": w.x.numpy()}), "covariate 'y'"),
    "rows": (lambda w: Posterior(w.conditional, {"x": w.x, "y": w.x[1:, 0]}), "covariate 'y'"),
    "scalar": (lambda w: Posterior(w.conditional, {"x": w.x, "y": w.x[0, 0]}), "covariate 'y'"),
}
DRAWS = [
    ("Posterior", "draws", lambda w: Posterior(w.vae, w.x).draw(0), "draws"),
    ("Posterior", "terms-of-float", lambda w: Posterior(w.vae, w.x).terms(1.5), "draws"),
    ("Posterior", "seed", lambda w: Posterior(w.vae, w.x).log_weight(2, -1), "seed"),
    ("Posterior", "point-mass", lambda w: Posterior(w.autoencoder, w.x).log_weight(2), None),
    ("score", "draws-zero", lambda w: ppl_vae.score(w.vae, w.x, 0), "draws"),
    ("evaluate", "draws-float", lambda w: ppl_vae.evaluate(w.vae, w.x, 1.5), "draws"),
    ("score", "draws-text", lambda w: ppl_vae.score(w.vae, w.x, "9"), "draws"),
    ("score", "seed-text", lambda w: ppl_vae.score(w.vae, w.x, 2, "a"), "seed"),
    ("evaluate", "seed-float", lambda w: ppl_vae.evaluate(w.vae, w.x, 2, 1.5), "seed"),
    ("Annealing", "chains", lambda w: Annealing(chains=0), "chains"),
    ("Annealing", "chains-many", lambda w: Annealing(chains=10**9), "chains"),
    ("Annealing", "temperatures", lambda w: Annealing(temperatures=2.0), "temperatures"),
    ("Annealing", "leapfrog", lambda w: Annealing(leapfrog_steps=None), "leapfrog_steps"),
    ("Annealing", "start", lambda w: Annealing(start="here"), "start"),
    ("anneal", "annealing", lambda w: ppl_vae.anneal(w.vae, w.x, 9), "annealing"),
    ("anneal", "point-mass", lambda w: ppl_vae.anneal(w.autoencoder, w.x), None),
    ("bidirectional", "size", lambda w: ppl_vae.bidirectional(w.vae, (4,), 2.5), "size"),
    ("bidirectional", "shape", lambda w: ppl_vae.bidirectional(w.vae, (5,), 2), "VAE"),
    ("bidirectional", "shape-int", lambda w: ppl_vae.bidirectional(w.vae, 4, 2), "data_shape"),
    ("bidirectional", "none", lambda w: ppl_vae.bidirectional(None, (4,), 2), "NoneType"),
    ("compare_gradients", "one", lambda w: ppl_vae.compare_gradients(w.vae, w.x, 1), "particles"),
    ("compare_gradients", "text", lambda w: ppl_vae.compare_gradients(w.vae, w.x, 2, "9"), "repeats"),
    ("compare_gradients", "mass", lambda w: ppl_vae.compare_gradients(w.autoencoder, w.x), None),
    ("prior_predictive", "size", lambda w: ppl_vae.prior_predictive(w.vae, (4,), 0), "size"),
    ("prior_predictive", "shape", lambda w: ppl_vae.prior_predictive(w.vae, 4, 2), "data_shape"),
    ("prior_predictive", "none", lambda w: ppl_vae.prior_predictive(None, (4,), 2), "NoneType"),
    ("prior_predictive", "seed", lambda w: ppl_vae.prior_predictive(w.vae, (4,), 2, -1), "seed"),
    ("decode", "size", lambda w: ppl_vae.decode(w.vae, {}, (4,), -2), "size"),
    ("decode", "none", lambda w: ppl_vae.decode(None, {}, (4,), 2), "NoneType"),
    ("decode", "site", lambda w: ppl_vae.decode(w.vae, {"w": torch.ones(2, 2)}, (4,), 2), None),
    ("decode", "array", lambda w: ppl_vae.decode(w.vae, {"z": np.ones((2, 2))}, (4,), 2), None),
    ("decode", "count", lambda w: ppl_vae.decode(w.vae, {"z": torch.ones(3, 2)}, (4,), 2), None),
    ("decode", "width", lambda w: ppl_vae.decode(w.vae, {"z": torch.ones(2, 7)}, (4,), 2), "VAE"),
    ("decode", "list", lambda w: ppl_vae.decode(w.vae, [1], (4,), 2), "latents"),
    ("Estimate", "empty", lambda w: Estimate.of(torch.ones(0)), None),
    ("Estimate", "matrix", lambda w: Estimate.of(torch.ones(3, 3)), None),
    ("Estimate", "list", lambda w: Estimate.of([1.0, 2.0]), "values"),
    ("Scores", "no-ledger", lambda w: Scores({"reconstruction": w.x[:, 0]}).ledger(), None),
    ("Ledger", "point-mass", lambda w: ppl_vae.score(w.autoencoder, w.x).ledger(), None),
    ("PathwiseELBO", "none", lambda w: ppl_vae.PathwiseELBO(0), "num_particles"),
    ("CompiledSVI", "engine", lambda w: svi(w, engine="fast"), "engine"),
]  # fmt: skip


def svi(world, engine):
    adam, elbo = pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    return ppl_vae.CompiledSVI(world.vae.model, world.vae.guide, adam, elbo, engine=engine)


# The model, its arguments, and the one at fault.
MODELS = [
    *((kind, "shape-zero", {"data_shape": (1, 0, 8)}) for kind in (VAE, Autoencoder, LinearGaussian)),
    (VAE, "shape-empty", {"data_shape": ()}),
    (VAE, "shape-number", {"data_shape": 4}),
    (VAE, "latents-float", {"latent_dim": 2.0}),
    (VAE, "latents-bool", {"latent_dim": True}),
    (VAE, "hidden-text", {"hidden": "88"}),
    (VAE, "hidden-nested", {"hidden": [[8]]}),
    (VAE, "channels-table", {"channels": (4,)}),
    (VAE, "activation", {"activation": "gelu"}),
    (VAE, "activation-class", {"activation": nn.ReLU}),
    (VAE, "likelihood", {"likelihood": "poisson"}),
    (VAE, "likelihood-class", {"likelihood": nn.Linear}),
    (VAE, "scale-of-bernoulli", {"likelihood_scale": 1.0}),
    (VAE, "scale-text", {"likelihood_scale": "1", "likelihood": "laplace"}),
]  # fmt: skip
CONSTANT = torch.ones(9, 4)
CONFIG = Config("ppl_vae.models:VAE", {}, {"shape": [4]}, {})
RUNS = [
    ("load", "missing", lambda w: ppl_vae.load(w.folder / "none"), None),
    ("load", "number", lambda w: ppl_vae.load(3), "path"),
    ("load", "other-class", lambda w: ppl_vae.load(w.run, Autoencoder), None),
    ("load", "no-program", lambda w: ppl_vae.load(w.run, "vae"), "str"),
    ("load", "no-class", lambda w: ppl_vae.load(w.run, int), None),
    ("Run", "open", lambda w: Run.open(w.folder), None),
    ("Run", "create-taken", lambda w: Run.create(w.run, CONFIG), None),
    ("Run", "create-config", lambda w: Run.create(w.folder / "a", {}), "config"),
    ("Run", "create-number", lambda w: Run.create(3, CONFIG), "path"),
    ("Config", "of-no-data", lambda w: Config.of("m:C", {}, w.x), "data"),
    ("Config", "of-settings", lambda w: Config.of("m:C", {}, w.data, {}), "settings"),
    ("Config", "of-tensor", lambda w: Config.of("m:C", {"a": w.x}, w.data), None),
    ("load_data", "missing", lambda w: ppl_vae.load_data(w.folder / "x.npy"), None),
    ("load_data", "array", lambda w: ppl_vae.load_data(np.ones((9, 4))), "source"),
    ("load_data", "binarize", lambda w: ppl_vae.load_data("digits", binarize=True), "binarize"),
    ("diagnose", "no-program", lambda w: ppl_vae.diagnose(nn.ReLU(), w.data), None),
    ("diagnose", "array", lambda w: ppl_vae.diagnose(w.vae, w.x), "data"),
    ("diagnose", "effort", lambda w: ppl_vae.diagnose(w.vae, w.data, 9), "effort"),
    ("diagnose", "seed", lambda w: ppl_vae.diagnose(w.vae, w.data, None, -1), "seed"),
    ("diagnose", "no-covariate", lambda w: ppl_vae.diagnose(w.conditional, w.data), "array"),
    ("diagnose", "covariate", lambda w: ppl_vae.diagnose(w.vae, masked()), "array"),
    ("write_report", "none", lambda w: ppl_vae.write_report(w.folder / "a.html", None), "diagnosis"),
    ("Diagnosis", "no-inference-data", lambda w: report(w.folder / "a.html"), None),
    ("Program", "not-a-module", lambda w: ppl_vae.check_program(object(), w.x), "object"),
    ("DataSet", "split", lambda w: w.data.fixed("dev"), "split"),
    ("DataSet", "seed", lambda w: w.data.fixed("test", -1), "seed"),
    ("DataSet", "batch", lambda w: next(w.data.batches(0, torch.Generator())), "size"),
]  # fmt: skip


def report(file):
    return ppl_vae.write_report(file, ppl_vae.Diagnosis({}, None, {}))


def with_argument(kind, name, value, **given):
    return lambda world: kind(**{name: value, **given})


CALLS = [
    *(
        Call("Settings", f"{name}-{value!r}", with_argument(Settings, name, value), name)
        for name, values in SETTINGS.items()
        for value in values
    ),
    *(
        Call("Settings", f"{name}-of-{given['objective']}", lambda w, g=given: Settings(**g), name)
        for name, given in OBJECTIVES.items()
    ),
    *(
        Call("Effort", name, with_argument(Effort, name, value), name)
        for name, value in EFFORT.items()
    ),
    *(Call("fit", *case) for case in FIT),
    *(
        Call(
            "check_program",
            kind.__name__,
            lambda w, kind=kind: ppl_vae.check_program(
                built(kind), torch.ones(60, 1 if kind is WrongSupport else 5)
            ),
            culprit,
        )
        for kind, culprit in PROGRAMS.items()
    ),
    *(
        Call("Posterior", f"x-{name}", lambda w, f=change: Posterior(w.vae, f(w.x)), culprit)
        for name, (change, culprit) in BAD_X.items()
    ),
    *(
        Call(name, "x-nan", lambda w, f=scorer: f(w.vae, spoilt(w.x, NAN)))
        for name, scorer in SCORERS.items()
        if name not in ("Posterior", "posterior_predictive")  # what is observed may be missing
    ),
    *(
        Call(name, "no-program", lambda w, f=scorer: f(built(nn.Linear, 4, 4), w.x), "Linear")
        for name, scorer in SCORERS.items()
    ),
    *(Call("Batch", name, *case) for name, case in BATCHES.items()),
    *(Call(*case) for case in [*DRAWS, *RUNS]),
    *(
        Call(
            kind.__name__,
            name,
            lambda w, kind=kind, given=given: kind(**{"data_shape": (4,), **given}),
            next(iter(given)),
        )
        for kind, name, given in MODELS
    ),
    Call(
        "LinearGaussian",
        "no-noise",
        lambda w: LinearGaussian((4,), 4).set_maximum_likelihood(CONSTANT),
        "latent_dim",
    ),
    Call(
        "LinearGaussian",
        "constant",
        lambda w: LinearGaussian((4,), 2).set_maximum_likelihood(CONSTANT),
        "latent_dim",
    ),
]
