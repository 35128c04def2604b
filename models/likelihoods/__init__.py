r"""Likelihoods: from the decoder's output to the distribution p(x | z).

Each is a module ``likelihood`` that takes the decoder's output, of shape (\*, \*output_shape), and
returns a Pyro distribution of batch shape (\*, \*data_shape). It may have

- ``output_shape`` and ``input_shape``, those of the decoder's output and of what the encoder reads
  for one datum, where they are not that of the data;
- ``inputs(x, mask)``, what the encoder reads: standardized, one-hot, zero where data are missing;
- a second argument, ``exposure``, which multiplies the means of counts.

With Pyro's validation on, as it is by default, the log probability of a value outside the support
raises a ``ValueError`` that names the column and a suitable likelihood.

>>> import torch
>>> LIKELIHOODS["poisson"]((3,))(torch.zeros(2, 3)).mean.shape
torch.Size([2, 3])
"""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from .base import Columns, Likelihood, data_distribution, encoder_inputs
from .bernoulli import Bernoulli
from .categorical import Categorical
from .columns import MixedColumns
from .continuous_bernoulli import ContinuousBernoulli
from .counts import Poisson
from .discretized_logistic import DiscretizedLogistic, DiscretizedLogisticMixture
from .location_scale import Gaussian, Laplace, LocationScale, LogNormal, StudentT
from .negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from .ordered import Ordered

LIKELIHOODS: dict[str, type[Likelihood]] = {
    "bernoulli": Bernoulli,
    "continuous-bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "laplace": Laplace,
    "student-t": StudentT,
    "lognormal": LogNormal,
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
    "zero-inflated-negative-binomial": ZeroInflatedNegativeBinomial,
    "categorical": Categorical,
    "ordered": Ordered,
    "discretized-logistic": DiscretizedLogistic,
    "discretized-logistic-mixture": DiscretizedLogisticMixture,
    "columns": MixedColumns,
}
"""The registry of likelihoods by name. A new one is one file and one line here."""


def make_likelihood(
    likelihood: str | nn.Module | None,
    data_shape: Sequence[int],
    scale: float | None = None,
    columns: Columns | None = None,
    levels: int | None = None,
) -> Any:
    """Make a likelihood from its name; a module is returned unchanged.

    Arguments:
        likelihood: A name from ``LIKELIHOODS``, or a module; ``None`` is ``"columns"`` where they
            are given, and ``"bernoulli"`` otherwise.
        data_shape: Shape of one datum.
        scale: A fixed scale.
        columns: What is known of each column of a table.
        levels: The highest level of an image.

    Raises:
        ValueError: If the name is unknown, or something has no use.
    """
    if likelihood is None:
        likelihood = "bernoulli" if columns is None else "columns"
    kind = LIKELIHOODS.get(likelihood) if isinstance(likelihood, str) else None
    if kind is None and not isinstance(likelihood, nn.Module):
        known = ", ".join(LIKELIHOODS)
        raise ValueError(f"likelihood must be one of {known}, or a module, got {likelihood!r}")
    if scale is not None and (kind is None or not issubclass(kind, LocationScale)):
        raise ValueError(
            f"likelihood_scale={scale} was given, but the likelihood {likelihood!r} has no scale: "
            "leave it out, or use gaussian or laplace"
        )
    given: dict[str, Any] = {"scale": scale, "columns": columns, "levels": levels}
    given = {name: value for name, value in given.items() if value is not None}
    taken = () if kind is None else inspect.signature(kind).parameters
    if stray := [name for name in given if name not in taken]:
        raise ValueError(
            f"{stray[0]} was given, but the likelihood {likelihood!r} has no use for it: leave it "
            "out, or make the module with it"
        )
    return likelihood if kind is None else kind(data_shape, **given)


__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "Categorical",
    "Columns",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogNormal",
    "MixedColumns",
    "NegativeBinomial",
    "Ordered",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "data_distribution",
    "encoder_inputs",
    "make_likelihood",
]
