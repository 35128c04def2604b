"""Variational autoencoders as Pyro programs, fitted by SVI, their posteriors diagnosed.

>>> import ppl_vae
>>> from ppl_vae.models import VAE
>>> data = ppl_vae.load_data("digits", binarize="dynamic")
>>> vae = VAE(data.shape, latent_dim=2, hidden=(32,))
>>> history = ppl_vae.fit(vae, data, ppl_vae.Settings(epochs=1), progress=False)
>>> estimates = ppl_vae.evaluate(vae, data.fixed("test"))  # in nats per datum
>>> bool(estimates["elbo"].mean < estimates["iw_bound"].mean)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annealing import Annealing, anneal, bidirectional
    from .config import Config
    from .data import DataSet, make_data
    from .diagnosis import Diagnosis, Effort, diagnose
    from .errors import InputError
    from .evidence import Estimate, Ledger, Scores, evaluate, score
    from .gradients import compare_gradients
    from .pathwise import PathwiseELBO
    from .predict import decode, posterior_predictive, prior_predictive
    from .program import Program, check_program
    from .report import write_report
    from .runs import Run, load
    from .settings import Settings
    from .sources import load_data
    from .svi import CompiledSVI
    from .training import fit
    from .weights import log_terms, log_weights

__all__ = [
    "Annealing",
    "CompiledSVI",
    "Config",
    "DataSet",
    "Diagnosis",
    "Effort",
    "Estimate",
    "InputError",
    "Ledger",
    "PathwiseELBO",
    "Program",
    "Run",
    "Scores",
    "Settings",
    "anneal",
    "bidirectional",
    "check_program",
    "compare_gradients",
    "decode",
    "diagnose",
    "evaluate",
    "fit",
    "load",
    "load_data",
    "log_terms",
    "log_weights",
    "make_data",
    "posterior_predictive",
    "prior_predictive",
    "score",
    "write_report",
]

_HOMES = {
    "annealing": ("Annealing", "anneal", "bidirectional"),
    "config": ("Config",),
    "data": ("DataSet", "make_data"),
    "diagnosis": ("Diagnosis", "Effort", "diagnose"),
    "errors": ("InputError",),
    "evidence": ("Estimate", "Ledger", "Scores", "evaluate", "score"),
    "gradients": ("compare_gradients",),
    "pathwise": ("PathwiseELBO",),
    "predict": ("decode", "posterior_predictive", "prior_predictive"),
    "program": ("Program", "check_program"),
    "report": ("write_report",),
    "runs": ("Run", "load"),
    "settings": ("Settings",),
    "sources": ("load_data",),
    "svi": ("CompiledSVI",),
    "training": ("fit",),
    "weights": ("log_terms", "log_weights"),
}


def __getattr__(name: str) -> Any:
    # Names are fetched at first use, so that `ppl-vae --help` answers without importing torch.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
