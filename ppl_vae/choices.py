"""The choices that arguments and command-line options offer."""

from typing import Literal

Binarize = Literal["none", "fixed", "dynamic"]
"""How grey values become zeros and ones: not, once, or anew each time that they are read."""

ColumnKind = Literal["real", "positive", "count", "binary", "category", "ordered"]
"""What the values of a table's column are; see :class:`ppl_vae.data.schema.Column`."""

SplitName = Literal["train", "validation", "test"]
"""Part of a data set."""

Objective = Literal["elbo", "analytic-kl", "stl", "iw", "dreg"]
"""What SVI maximizes; see :func:`ppl_vae.objectives.estimators.make_objective`."""

GuideData = Literal["data", "simulations", "both"]
"""What a guide is trained on while its model stays; see :func:`ppl_vae.refit_guide`."""

Engine = Literal["auto", "compiled", "eager"]
"""What runs a Pyro program; see :class:`ppl_vae.CompiledSVI`."""

Estimator = Literal["iw", "refined", "ais", "bdmc"]
"""How log p(x) is bounded; see :func:`ppl_vae.inference.estimate.estimate`."""

ComparisonEstimator = Literal["iw", "refined", "ais"]
"""How log p(x) of several programs is bounded; see :func:`ppl_vae.compare`."""

Start = Literal["prior", "guide", "mixture"]
"""Where draws come from, and annealing starts: a mixture has half of its draws from each."""

Family = Literal["own", "diagonal", "full"]
"""What guides are refined in: their own family, or normal ones; see
:meth:`ppl_vae.Posterior.refine`."""

Target = Literal["guide", "refined", "certified"]
"""How far inference goes; see :func:`ppl_vae.infer`."""

ExperimentName = Literal[
    "reparameterization", "latent-size", "reconstruction-loss", "generate", "gap"
]
"""Claims that are tested by experiment."""
