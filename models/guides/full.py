"""Normal, with any covariance."""

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from ..networks import positive


class Full(nn.Module):
    r""":math:`N(\mu, T T^\top)` with a lower triangular T (Kingma & Welling 2019, section 2.5.1).

    Arguments:
        latent_dim: Number of latent variables L.
    """

    places: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        below = torch.ones(latent_dim, latent_dim).tril(-1).flatten()
        # Where in the features each entry of T is found; those above the diagonal are cut off.
        places = below.cumsum(0).long() - 1
        self.register_buffer("places", places.clamp(min=0), persistent=False)
        self.latent_dim = latent_dim
        self.features = 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def forward(self, features: Tensor) -> dist.Distribution:
        size = self.latent_dim
        loc, raw_scale, below = features.split([size, size, self.features - 2 * size], dim=-1)
        tril = positive(raw_scale).diag_embed()
        if size > 1:
            tril = tril + below[..., self.places].unflatten(-1, (size, size)).tril(-1)
        return dist.MultivariateNormal(loc, scale_tril=tril)
