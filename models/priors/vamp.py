"""A mixture of the guide's own distributions, at data points that are learned."""

from collections.abc import Callable, Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..distributions import VectorMixture
from ..parts import COMPONENTS


class Vamp(nn.Module):
    r""":math:`\sum_k \pi_k q(z \mid u_k)` (Tomczak & Welling 2018, eq. 11), with learned shares.

    The pseudo-inputs :math:`u_k` begin as uniform draws from [0, 1], and may become any real
    numbers. The encoder is part of this prior: whoever changes the guide alone changes p(z) too.

    Arguments:
        latent_dim: Number of latent variables L.
        data_shape: Shape of one datum, and so of a pseudo-input.
        components: Number of pseudo-inputs K.
    """

    def __init__(
        self, latent_dim: int, data_shape: Sequence[int], components: int = COMPONENTS
    ) -> None:
        super().__init__()
        self.components = components
        self.logits = nn.Parameter(torch.zeros(components))
        self.inputs = nn.Parameter(torch.rand(components, *data_shape))

    def forward(self, encode: Callable[[Tensor], dist.Distribution]) -> dist.Distribution:
        return VectorMixture(dist.Categorical(logits=self.logits), encode(self.inputs))
