"""Calls of what a fitted program is used for, with arguments that are wrong."""

import ppl_vae
from ppl_vae import Run
from ppl_vae.models import LinearGaussian

from . import Call
from .calls import EIGHT, built

COMPARE = [
    ("one", lambda w: ppl_vae.compare({"a": w.vae}, w.data), "programs"),
    ("list", lambda w: ppl_vae.compare([w.vae, w.vae], w.data), "programs"),
    ("not-a-program", lambda w: ppl_vae.compare({"a": w.vae, "b": None}, w.data), "NoneType"),
    ("tensor", lambda w: ppl_vae.compare(two(w), w.x), "data"),
    ("estimator", lambda w: ppl_vae.compare(two(w), w.data, "loo"), "estimator"),
    ("draws", lambda w: ppl_vae.compare(two(w), w.data, draws=0), "draws"),
    ("split", lambda w: ppl_vae.compare(two(w), w.data, split="dev"), "split"),
    ("data-points", lambda w: ppl_vae.compare(two(w), w.data, data_points=99), "data_points"),
    ("point-mass", lambda w: ppl_vae.compare({"a": w.vae, "b": w.autoencoder}, w.data), "b"),
]
COMPARISON = [("difference", lambda w: ppl_vae.compare(two(w), w.data, seed=-1), "seed")]


IMPUTE = [
    ("not-a-program", lambda w: ppl_vae.impute(None, w.x), "NoneType"),
    ("no-mask", lambda w: ppl_vae.impute(w.vae, w.x), "data"),
    ("complete", lambda w: ppl_vae.impute(w.vae, holes(w, 9.0)), "data"),
    ("draws", lambda w: ppl_vae.impute(w.vae, holes(w), 1), "draws"),
    ("coverage", lambda w: ppl_vae.impute(w.vae, holes(w), coverage=90), "coverage"),
    ("imputations", lambda w: ppl_vae.impute(w.vae, holes(w), imputations=-1), "imputations"),
    ("columns", lambda w: ppl_vae.impute(w.vae, holes(w), columns=[1, 2]), "columns"),
]


KEEP_LABELS = [
    ("data", lambda w: ppl_vae.keep_labels(w.x, 10), "data"),
    ("none", lambda w: ppl_vae.keep_labels(w.data, 10), "labels"),
]
CLASSIFY = [("not-a-program", lambda w: ppl_vae.classify(None, w.x), "NoneType")]


def holes(world, above=0.0):
    return {"x": world.x, "mask": world.x < above}


def two(world):
    return {"a": world.vae, "b": world.vae}


REFIT = [
    ("not-a-program", lambda w: ppl_vae.refit_guide(None, w.data), "NoneType"),
    ("data", lambda w: ppl_vae.refit_guide(w.vae, w.x), "data"),
    ("settings", lambda w: ppl_vae.refit_guide(w.vae, w.data, 3), "settings"),
    ("on", lambda w: ppl_vae.refit_guide(w.vae, w.data, on=True), "on"),
    ("on-list", lambda w: ppl_vae.refit_guide(w.vae, w.data, on=["data"]), "on"),
    ("run", lambda w: ppl_vae.refit_guide(w.vae, w.data, EIGHT, run="runs/a"), "run"),
    ("taken", lambda w: ppl_vae.refit_guide(w.vae, w.data, EIGHT, run=Run.open(w.run)), "run"),
    ("parent", lambda w: ppl_vae.refit_guide(w.vae, w.data, parent=w.run), "PosixPath"),
    (
        "other-model",
        lambda w: ppl_vae.refit_guide(w.vae, w.data, parent=built(LinearGaussian, (4,))),
        "VAE",
    ),
    (
        "point-mass",
        lambda w: ppl_vae.refit_guide(w.autoencoder, w.data, EIGHT, on="both"),
        "the guide of Autoencoder",
    ),
]
INFER = [
    ("draws", lambda w: ppl_vae.infer(w.vae, w.x, 0), "draws"),
    ("target", lambda w: ppl_vae.infer(w.vae, w.x, target="best"), "target"),
    ("text", lambda w: ppl_vae.infer(w.vae, "x"), "data"),
    ("seed", lambda w: ppl_vae.infer(w.vae, w.x, seed="a"), "seed"),
]
ENCODE = [
    ("target", lambda w: ppl_vae.encode(w.vae, w.x, "best"), "target"),
    ("seed", lambda w: ppl_vae.encode(w.vae, w.x, seed=-1), "seed"),
]
NUTS = [("not-a-posterior", lambda w: ppl_vae.sample_posterior(w.vae), "posterior")]
REPAIR = [
    ("not-a-program", lambda w: ppl_vae.repair(None, w.data), "NoneType"),
    ("data", lambda w: ppl_vae.repair(w.vae, w.x), "data"),
    ("effort", lambda w: ppl_vae.repair(w.vae, w.data, effort=3), "effort"),
    ("settings", lambda w: ppl_vae.repair(w.vae, w.data, w.vae, 3), "settings"),
    ("successor", lambda w: ppl_vae.repair(w.vae, w.data, "flow"), "str"),
]
EXTEND = [
    ("no-run", lambda w: ppl_vae.extend(w.folder / "none", 9), "none"),
    ("no-path", lambda w: ppl_vae.extend(3, 9), "path"),
    ("fewer", lambda w: ppl_vae.extend(w.run, 1), "epochs"),
    ("text", lambda w: ppl_vae.extend(w.run, "9"), "epochs"),
]
CALLS = [
    *(Call("refit_guide", *case) for case in REFIT),
    *(Call("extend", *case) for case in EXTEND),
    *(Call("compare", *case) for case in COMPARE),
    *(Call("Comparison", *case) for case in COMPARISON),
    *(Call("infer", *case) for case in INFER),
    *(Call("repair", *case) for case in REPAIR),
    *(Call("encode", *case) for case in ENCODE),
    *(Call("impute", *case) for case in IMPUTE),
    *(Call("keep_labels", *case) for case in KEEP_LABELS),
    *(Call("classify", *case) for case in CLASSIFY),
    *(Call("sample_posterior", *case) for case in NUTS),
]
