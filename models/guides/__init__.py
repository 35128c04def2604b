r"""Families of guides: from features of a datum to a distribution of its latent vector.

Each is a module ``family`` with ``family.features``, the number of outputs that it needs of an
encoder, and ``family(features)``, a Pyro distribution over vectors of length L, of the batch shape
that the features have.

>>> import torch
>>> family = GUIDES["full"](latent_dim=2)
>>> q = family(torch.zeros(7, family.features))
>>> q.batch_shape, q.event_shape
(torch.Size([7]), torch.Size([2]))
"""

from torch import nn

from .diagonal import Diagonal
from .flow import FlowGuide
from .full import Full
from .low_rank import LowRank
from .mixture import MixtureGuide
from .spline import SplineGuide

GUIDES: dict[str, type[nn.Module]] = {
    "diagonal": Diagonal,
    "full": Full,
    "low-rank": LowRank,
    "mixture": MixtureGuide,
    "flow": FlowGuide,
    "spline": SplineGuide,
}
"""The registry of families by name. A new one is one file and one line here."""

__all__ = ["GUIDES", "Diagonal", "FlowGuide", "Full", "LowRank", "MixtureGuide", "SplineGuide"]
