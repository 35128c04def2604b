"""Calls of every public function and class, with arguments that are wrong."""

import numpy as np
import pyro
import torch
from torch import nn

import ppl_vae
from ppl_vae import Annealing, Batch, Config, Effort, Estimate, Posterior, Run, Scores, Settings
from ppl_vae.data.reading import Reading
from ppl_vae.models import VAE, Autoencoder, Gaussian, LinearGaussian

from .. import misfits
from ..tables import Conditional
from . import Call

NAN, INF = float("nan"), float("inf")


def spoilt(x, value):
    x = x.clone()
    x[2, 1] = value
    return x


def built(kind, *arguments):
    """A program, whose initial weights leave the random state alone."""
    with torch.random.fork_rng():
        return kind(*arguments)


def diverged(program):
    with torch.no_grad():
        next(program.parameters()).fill_(NAN)
    return program


def made_with(kind, table):
    """Calls of a class with one argument that is wrong, which the error names."""
    return [
        Call(kind.__name__, case, lambda w, given=given: kind(**given), [*given][-1])
        for case, given in table.items()
    ]


TABS = Reading(separator="tab")
EIGHT = Settings(batch_size=8)
WEIGHTED = {"objective": "iw", "particles": 2}
SETTINGS = {
    "epochs-zero": {"epochs": 0},
    "epochs-float": {"epochs": 2.5},
    "epochs-bool": {"epochs": True},
    "epochs-array": {"epochs": np.ones(2)},
    "batch": {"batch_size": NAN},
    "particles": {"particles": "3"},
    "patience": {"patience": 1.5},
    "rate-zero": {"learning_rate": 0},
    "rate-infinite": {"learning_rate": INF},
    "rate-complex": {"learning_rate": 1j},
    "warmup": {"warmup_epochs": -1},
    "kl-warmup": {"kl_warmup_epochs": None},
    "free-bits": {"free_bits": NAN},
    "clip": {"clip_norm": 0},
    "objective": {"objective": "nll"},
    "objective-list": {"objective": ["elbo"]},
    "engine": {"engine": "fast"},
    "seed-float": {"seed": 0.5},
    "seed-bool": {"seed": True},
    "seed-negative": {"seed": -1},
    "seed-large": {"seed": 2**63},
    "device": {"device": 3},
    "iw-of-one-draw": {"objective": "iw", "particles": 1},
    "iw-free-bits": {**WEIGHTED, "free_bits": 1},
    "iw-kl-warmup": {**WEIGHTED, "kl_warmup_epochs": 1},
}
EFFORT = {
    "data-points": {"data_points": 0},
    "draws": {"draws": 1.5},
    "simulations": {"simulations": "9"},
    "gap-points": {"gap_points": None},
    "nuts-points": {"nuts_points": True},
}
ANNEALING = {
    "chains-zero": {"chains": 0},
    "chains-many": {"chains": 4097},
    "temperatures": {"temperatures": 2.0},
    "leapfrog": {"leapfrog_steps": None},
    "start": {"start": "here"},
}
TABLE = {"data_shape": (4,)}
VAES = {
    "shape-empty": {"data_shape": ()},
    "shape-number": {"data_shape": 4},
    "shape-zero": {"data_shape": (1, 0, 8)},
    "latents-float": {**TABLE, "latent_dim": 2.0},
    "latents-bool": {**TABLE, "latent_dim": True},
    "hidden-text": {**TABLE, "hidden": "88"},
    "hidden-nested": {**TABLE, "hidden": [[8]]},
    "hidden-thousands": {**TABLE, "hidden": [1] * 10**6},
    "channels-of-a-table": {**TABLE, "channels": (4,)},
    "activation": {**TABLE, "activation": "gelu"},
    "activation-class": {**TABLE, "activation": nn.ReLU},
    "likelihood": {**TABLE, "likelihood": "zipf"},
    "guide": {**TABLE, "guide": "gaussian"},
    "guide-class": {**TABLE, "guide": nn.Linear},
    "prior": {**TABLE, "prior": None},
    "components-unused": {**TABLE, "components": 3},
    "components-float": {**TABLE, "prior": "vamp", "components": 3.0},
    "encoder-hidden": {**TABLE, "encoder_hidden": (8, 0)},
    "flow-of-one-unit": {**TABLE, "prior": "flow", "latent_dim": 1},
    "likelihood-class": {**TABLE, "likelihood": nn.Linear},
    "scale-of-bernoulli": {**TABLE, "likelihood_scale": 1.0},
    "scale-text": {**TABLE, "likelihood": "laplace", "likelihood_scale": "1"},
    "scale-zero": {**TABLE, "likelihood": "laplace", "likelihood_scale": 0.0},
    "scale-denormal": {**TABLE, "likelihood": "laplace", "likelihood_scale": 1e-320},
    "scale-nan": {**TABLE, "likelihood": "laplace", "likelihood_scale": NAN},
    "columns-number": {**TABLE, "columns": 3},
    "columns-text": {**TABLE, "columns": "abc"},
    "columns-names": {**TABLE, "columns": ["a"]},
    "columns-nameless": {**TABLE, "columns": [{"kind": "real"}] * 4},
    "columns-few": {**TABLE, "columns": [{"name": "a", "kind": "real"}]},
    "columns-kind": {**TABLE, "columns": [{"name": "a", "kind": "date"}] * 4},
    "columns-constant": {**TABLE, "columns": [{"name": "a", "kind": "real", "scale": 0.0}] * 4},
    "columns-nan": {**TABLE, "columns": [{"name": "a", "kind": "real", "loc": NAN}] * 4},
    "columns-codes": {**TABLE, "columns": [{"name": "a", "kind": "ordered"}] * 4},
    "columns-of-a-module": {**TABLE, "likelihood": Gaussian((4,)), "columns": [{"name": "a"}] * 4},
    "levels-unused": {**TABLE, "levels": 16},
    "levels-zero": {**TABLE, "likelihood": "discretized-logistic", "levels": 0},
    "levels-text": {**TABLE, "likelihood": "discretized-logistic", "levels": "16"},
    "scale-infinite": {**TABLE, "likelihood": "laplace", "likelihood_scale": INF},
}
FIT = [
    ("not-a-program", lambda w: ppl_vae.fit(None, w.data), "NoneType"),
    ("a-class", lambda w: ppl_vae.fit(VAE, w.data), "type"),
    ("tensor", lambda w: ppl_vae.fit(w.vae, w.x), "data"),
    ("settings", lambda w: ppl_vae.fit(w.vae, w.data, {"epochs": 1}), "settings"),
    ("run", lambda w: ppl_vae.fit(w.vae, w.data, run="runs/a"), "run"),
    (
        "taken",
        lambda w: ppl_vae.fit(w.vae, w.data, Settings(batch_size=8), run=Run.open(w.run)),
        "run",
    ),
    (
        "other-shape",
        lambda w: ppl_vae.fit(w.vae, ppl_vae.make_data(np.ones((60, 5))), Settings(batch_size=8)),
        "VAE",
    ),
    (
        "device",
        lambda w: ppl_vae.fit(w.vae, w.data, Settings(batch_size=8, device="tpu:0:0")),
        "device",
    ),
    (
        "weights",
        lambda w: ppl_vae.fit(diverged(built(VAE, (4,), 2, (4,))), w.data, Settings(batch_size=8)),
        "VAE",
    ),
    ("no-covariate", lambda w: ppl_vae.fit(built(Conditional, (4,)), w.data), "array"),
    ("covariate", lambda w: ppl_vae.fit(w.vae, masked()), "array"),
]
PROGRAMS = [
    Call(
        "check_program",
        kind.__name__,
        lambda w, kind=kind, size=size: ppl_vae.check_program(built(kind), torch.ones(60, size)),
        kind.__name__,
    )
    for size, kinds in {
        5: (
            misfits.NoModel,
            misfits.NoParameters,
            misfits.NoPlate,
            misfits.Unobserved,
            misfits.OtherSites,
            misfits.Foreign,
            misfits.Frozen,
            misfits.Transposed,
        ),
        1: (misfits.WrongSupport,),
    }.items()
    for kind in kinds
]
# What takes a program and data.
SCORERS = {
    "score": ppl_vae.score,
    "evaluate": ppl_vae.evaluate,
    "anneal": lambda program, x: ppl_vae.anneal(program, x, Annealing(1, 2)),
    "compare_gradients": lambda program, x: ppl_vae.compare_gradients(program, x, 2, 2),
    "posterior_predictive": ppl_vae.posterior_predictive,
    "infer": ppl_vae.infer,
    "encode": ppl_vae.encode,
    "check_program": ppl_vae.check_program,
    "Posterior": Posterior,
}
BAD_X = {
    "array": (lambda x: x.numpy(), "data"),
    "empty": (lambda x: x[:0], "data"),
    "0-d": (lambda x: x[0, 0], "data"),
    "1-d": (lambda x: x[0], "data"),
    "no-columns": (lambda x: x[:, :0], "data"),
    "complex": (lambda x: x * 1j, "data"),
    "sparse": (lambda x: x.to_sparse(), "data"),
    "meta": (lambda x: x.to("meta"), "data"),
    "other-shape": (lambda x: x[:, :3], "VAE"),
    "more-dims": (lambda x: x[:, None, None], "VAE"),
    "nan": (lambda x: spoilt(x, NAN), "datum 2"),
    "infinite": (lambda x: spoilt(x, INF), "datum 2"),
    "beyond-float32": (lambda x: spoilt(x.double(), 1e300), "datum 2"),
}
# A datum of imaging() has shape (3, 4, 5).
IMAGES = torch.zeros(20, 3, 4, 5)
OTHER_LAYOUTS = {
    "flat": lambda x: x.flatten(1),
    "channels-last": lambda x: x.permute(0, 2, 3, 1),
    "no-channels": lambda x: x[:, 0],
    "one-channel": lambda x: x[:, :1],
    "one-pixel": lambda x: x[..., :1],
    "transposed": lambda x: x.mT,
}


def imaging():
    return built(VAE, (3, 4, 5), 2, (4,))


DATA = [
    *(
        Call("Posterior", f"x-{kind}", lambda w, f=change: Posterior(w.vae, f(w.x)), culprit)
        for kind, (change, culprit) in BAD_X.items()
    ),
    *(
        Call(name, f"x-{kind}", lambda w, f=scorer, g=change: f(imaging(), g(IMAGES)), "VAE")
        for name, scorer in SCORERS.items()
        for kind, change in OTHER_LAYOUTS.items()
    ),
    *(
        Call(name, "x-list", lambda w, f=scorer: f(w.vae, w.x.tolist()), "data")
        for name, scorer in SCORERS.items()
    ),
    *(
        Call(name, "not-a-program", lambda w, f=scorer: f(built(nn.Linear, 4, 4), w.x), "Linear")
        for name, scorer in SCORERS.items()
    ),
]
CONFIG = Config("ppl_vae.models:VAE", {}, {"shape": [4]}, {})
OTHERS = [
    ("score", "draws", lambda w: ppl_vae.score(w.vae, w.x, 0), "draws"),
    ("score", "seed", lambda w: ppl_vae.score(w.vae, w.x, 2, -1), "seed"),
    ("evaluate", "draws", lambda w: ppl_vae.evaluate(w.vae, w.x, 1.5), "draws"),
    ("evaluate", "seed", lambda w: ppl_vae.evaluate(w.vae, w.x, 2, None), "seed"),
    ("Posterior", "draws", lambda w: Posterior(w.vae, w.x).draw("9"), "draws"),
    ("Posterior", "weights", lambda w: Posterior(w.vae, w.x).log_weight(True), "draws"),
    ("Posterior", "mass", lambda w: Posterior(w.autoencoder, w.x).log_weight(), "Autoencoder"),
    ("Batch", "rows", lambda w: Posterior(w.vae, Batch(x=w.x, y=w.x[:2])), "'y'"),
    ("Batch", "missing", lambda w: Posterior(built(Conditional), torch.ones(6, 5)), "batch"),
    ("Batch", "stray", lambda w: Posterior(w.vae, Batch(x=w.x, y=w.x)), "batch"),
    ("Batch", "array", lambda w: Posterior(w.vae, Batch(x=w.x, y=w.x.numpy())), "'y'"),
    ("Batch", "0-d", lambda w: Posterior(w.vae, Batch(x=w.x, y=w.x[0, 0])), "'y'"),
    ("Batch", "no-x", lambda w: Posterior(w.vae, Batch(y=w.x)), "data"),
    ("anneal", "annealing", lambda w: ppl_vae.anneal(w.vae, w.x, 9), "annealing"),
    ("anneal", "point-mass", lambda w: ppl_vae.anneal(w.autoencoder, w.x), "Autoencoder"),
    ("bidirectional", "size", lambda w: ppl_vae.bidirectional(w.vae, (4,), 2.5), "size"),
    ("bidirectional", "shape", lambda w: ppl_vae.bidirectional(w.vae, (5,), 2), "VAE"),
    ("bidirectional", "shape-int", lambda w: ppl_vae.bidirectional(w.vae, 4, 2), "data_shape"),
    ("bidirectional", "program", lambda w: ppl_vae.bidirectional(None, (4,), 2), "NoneType"),
    ("compare_gradients", "one", lambda w: ppl_vae.compare_gradients(w.vae, w.x, 1), "particles"),
    ("compare_gradients", "two", lambda w: ppl_vae.compare_gradients(w.vae, w.x, 2, 1), "repeats"),
    ("compare_gradients", "mass", lambda w: ppl_vae.compare_gradients(w.autoencoder, w.x), "guide"),
    ("prior_predictive", "size", lambda w: ppl_vae.prior_predictive(w.vae, (4,), 0), "size"),
    ("prior_predictive", "shape", lambda w: ppl_vae.prior_predictive(w.vae, 4, 2), "data_shape"),
    ("prior_predictive", "none", lambda w: ppl_vae.prior_predictive(None, (4,), 2), "NoneType"),
    ("prior_predictive", "seed", lambda w: ppl_vae.prior_predictive(w.vae, (4,), 2, -1), "seed"),
    ("prior_predictive", "flat", lambda w: ppl_vae.prior_predictive(imaging(), (60,), 2), "VAE"),
    ("diagnose", "flat", lambda w: ppl_vae.diagnose(imaging(), flat()), "VAE"),
    ("fit", "flat", lambda w: ppl_vae.fit(imaging(), flat(), EIGHT), "VAE"),
    ("refit_guide", "flat", lambda w: ppl_vae.refit_guide(imaging(), flat(), EIGHT), "VAE"),
    ("bidirectional", "flat", lambda w: ppl_vae.bidirectional(imaging(), (60,), 2), "VAE"),
    ("decode", "flat", lambda w: ppl_vae.decode(imaging(), {}, (60,), 2), "VAE"),
    ("decode", "site", lambda w: decode(w, {"w": torch.ones(2, 2)}), "'w'"),
    ("decode", "array", lambda w: decode(w, {"z": np.ones((2, 2))}), "'z'"),
    ("decode", "count", lambda w: decode(w, {"z": torch.ones(3, 2)}), "'z'"),
    ("decode", "width", lambda w: decode(w, {"z": torch.ones(2, 7)}), "VAE"),
    ("decode", "list", lambda w: decode(w, [1]), "latents"),
    ("Estimate", "matrix", lambda w: Estimate.of(torch.ones(3, 3)), "values"),
    ("Estimate", "list", lambda w: Estimate.of([1.0, 2.0]), "values"),
    ("Scores", "no-ledger", lambda w: Scores({"reconstruction": w.x[:, 0]}).ledger(), "guide"),
    ("Ledger", "point-mass", lambda w: ppl_vae.score(w.autoencoder, w.x).ledger(), "guide"),
    ("PathwiseELBO", "zero", lambda w: ppl_vae.PathwiseELBO(0), "num_particles"),
    ("CompiledSVI", "engine", lambda w: compiled(w.vae, engine="fast"), "engine"),
    ("VAE", "latents-zero", lambda w: VAE((4,), 0), "latent_dim"),
    ("Autoencoder", "latents-zero", lambda w: Autoencoder((4,), 0), "latent_dim"),
    ("LinearGaussian", "shape-number", lambda w: LinearGaussian(4), "data_shape"),
    ("LinearGaussian", "no-noise", lambda w: maximized(2), "latent_dim"),
    ("LinearGaussian", "constant", lambda w: maximized(4), "latent_dim"),
    ("load", "missing", lambda w: ppl_vae.load(w.folder / "none"), "none"),
    ("load", "number", lambda w: ppl_vae.load(3), "path"),
    ("load", "other-class", lambda w: ppl_vae.load(w.run, Autoencoder), "weights.safetensors"),
    ("load", "not-a-program", lambda w: ppl_vae.load(w.run, "vae"), "str"),
    ("load", "not-a-class", lambda w: ppl_vae.load(w.run, int), "int"),
    ("Run", "open", lambda w: Run.open(w.folder), "empty"),
    ("Run", "create-taken", lambda w: Run.create(w.run, CONFIG), "run"),
    ("Run", "create-config", lambda w: Run.create(w.folder / "a", {}), "config"),
    ("Run", "create-number", lambda w: Run.create(3, CONFIG), "path"),
    ("Config", "data", lambda w: Config.of("m:C", {}, w.x), "data"),
    ("Config", "settings", lambda w: Config.of("m:C", {}, w.data, {}), "settings"),
    ("Config", "arguments", lambda w: Config.of("m:C", {"a": w.x}, w.data), "arguments"),
    ("load_data", "missing", lambda w: ppl_vae.load_data(w.folder / "x.npy"), "x.npy"),
    ("load_data", "number", lambda w: ppl_vae.load_data(3), "source"),
    ("load_data", "reading", lambda w: ppl_vae.load_data("digits", reading=TABS), "digits"),
    ("load_data", "binarize", lambda w: ppl_vae.load_data("digits", binarize=True), "binarize"),
    ("diagnose", "not-a-program", lambda w: ppl_vae.diagnose(nn.ReLU(), w.data), "ReLU"),
    ("diagnose", "tensor", lambda w: ppl_vae.diagnose(w.vae, w.x), "data"),
    ("diagnose", "no-covariate", lambda w: ppl_vae.diagnose(built(Conditional), w.data), "array"),
    ("diagnose", "covariate", lambda w: ppl_vae.diagnose(w.vae, masked()), "array"),
    ("diagnose", "effort", lambda w: ppl_vae.diagnose(w.vae, w.data, 9), "effort"),
    ("diagnose", "seed", lambda w: ppl_vae.diagnose(w.vae, w.data, None, -1), "seed"),
    ("write_report", "none", lambda w: ppl_vae.write_report(w.folder / "a.html", None), ""),
    ("Diagnosis", "none", lambda w: ppl_vae.write_report(w.folder / "a.html", empty()), ""),
    ("Program", "object", lambda w: ppl_vae.check_program(object(), w.x), "object"),
    ("DataSet", "split", lambda w: w.data.fixed("dev"), "split"),
    ("DataSet", "seed", lambda w: w.data.fixed("test", -1), "seed"),
    ("DataSet", "batch", lambda w: next(w.data.batches(0, torch.Generator())), "size"),
]


def flat():
    return ppl_vae.make_data(np.zeros((30, 60)))


def decode(world, latents):
    return ppl_vae.decode(world.vae, latents, (4,), 2)


def compiled(vae, **options):
    optim, loss = pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO()
    return ppl_vae.CompiledSVI(vae.model, vae.guide, optim, loss, **options)


def masked():
    return ppl_vae.make_data(np.ones((60, 4)), covariates={"dose": np.ones(60)})


def maximized(dim):
    return LinearGaussian((dim,), 2).set_maximum_likelihood(torch.ones(9, dim))


def empty():
    return ppl_vae.Diagnosis({}, None, {})


CALLS = [
    *made_with(Settings, SETTINGS),
    *made_with(Effort, EFFORT),
    *made_with(Annealing, ANNEALING),
    *made_with(VAE, VAES),
    *(Call("fit", *case) for case in FIT),
    *PROGRAMS,
    *DATA,
    *(Call(*case) for case in OTHERS),
]
