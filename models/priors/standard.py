"""The standard normal."""

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn


class Standard(nn.Module):
    """:math:`N(0, I_L)`, without parameters.

    Arguments:
        latent_dim: Number of latent variables L.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("scale", torch.ones(latent_dim), persistent=False)

    def forward(self, encode: Any) -> dist.Distribution:
        return dist.Normal(self.loc, self.scale).to_event(1)
