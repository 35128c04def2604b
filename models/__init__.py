"""Pyro programs: each an ``nn.Module`` with a ``model`` and a ``guide``.

They import torch and pyro only, and run under plain Pyro:

>>> import pyro, torch
>>> from ppl_vae.models import VAE
>>> vae = VAE((1, 8, 8), latent_dim=2, hidden=(32,))
>>> adam = pyro.optim.Adam({"lr": 1e-3})
>>> svi = pyro.infer.SVI(vae.model, vae.guide, adam, pyro.infer.Trace_ELBO())
>>> x = torch.rand(16, 1, 8, 8).round()
>>> loss = svi.step(x)  # nats, summed over the 16 data points
"""

from torch import nn

from .autoencoder import Autoencoder
from .conditional import ConditionalVAE
from .guides import GUIDES
from .likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
    LogNormal,
    MixedColumns,
    NegativeBinomial,
    Ordered,
    Poisson,
    StudentT,
    ZeroInflatedNegativeBinomial,
)
from .linear_gaussian import LinearGaussian
from .networks import MLP, Decoder, Encoder
from .not_miwae import NotMIWAE
from .priors import PRIORS
from .semi_supervised import SemiSupervisedVAE
from .vae import VAE

PROGRAMS: dict[str, type[nn.Module]] = {
    "vae": VAE,
    "autoencoder": Autoencoder,
    "linear-gaussian": LinearGaussian,
    "not-miwae": NotMIWAE,
    "conditional-vae": ConditionalVAE,
    "semi-supervised-vae": SemiSupervisedVAE,
}
"""The registry of programs by name. A new one is one file and one line here."""

__all__ = [
    "GUIDES",
    "LIKELIHOODS",
    "MLP",
    "PRIORS",
    "PROGRAMS",
    "VAE",
    "Autoencoder",
    "Bernoulli",
    "Categorical",
    "ConditionalVAE",
    "ContinuousBernoulli",
    "Decoder",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Encoder",
    "Gaussian",
    "Laplace",
    "LinearGaussian",
    "LogNormal",
    "MixedColumns",
    "NegativeBinomial",
    "NotMIWAE",
    "Ordered",
    "Poisson",
    "SemiSupervisedVAE",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]
