"""The variational autoencoder of Kingma & Welling (2014)."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import make_likelihood
from .networks import Decoder, Encoder, check_architecture, positive
from .registration import register


class VAE(nn.Module):
    r"""A variational autoencoder (Kingma & Welling 2014, section 3).

    .. math::
        z &\sim N(0, I_L) \\
        x \mid z &\sim p(x \mid \mathrm{decoder}(z)) \\
        q(z \mid x) &= N(\mu, \mathrm{diag}(\sigma^2)), \quad (\mu, \sigma) = \mathrm{encoder}(x)

    Arguments:
        data_shape: Shape of one datum, such as ``(1, 28, 28)``.
        latent_dim: Number of latent variables :math:`L`.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        channels: Channels of the convolutions in front of them, for images; empty for none.
        activation: ``"silu"``, ``"tanh"`` or ``"relu"``, between layers.
        likelihood: A name from ``LIKELIHOODS``, or a module from decoder output to distribution.
        likelihood_scale: Scale of a Gaussian or Laplace likelihood; ``None`` learns it.

    Raises:
        ValueError: If a size is not an integer of at least 1, or the likelihood or activation is
            unknown.

    Example:
        >>> vae = VAE((1, 28, 28), latent_dim=20)
        >>> x = vae.model(size=3)  # draws from the prior predictive
        >>> x.shape
        torch.Size([3, 1, 28, 28])
        >>> vae.guide(x).shape  # draws from q(z|x)
        torch.Size([3, 20])
    """

    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(
        self,
        data_shape: Sequence[int],
        latent_dim: int = 50,
        hidden: Sequence[int] = (500, 500),
        channels: Sequence[int] = (),
        activation: str = "silu",
        likelihood: str | nn.Module = "bernoulli",
        likelihood_scale: float | None = None,
    ) -> None:
        super().__init__()
        check_architecture(data_shape, latent_dim, hidden, channels, activation)
        self.data_shape = tuple(data_shape)
        self.encoder = Encoder(data_shape, 2 * latent_dim, hidden, channels, activation)
        self.decoder = Decoder(latent_dim, data_shape, hidden, channels, activation)
        self.likelihood = make_likelihood(likelihood, data_shape, likelihood_scale)
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """p(x, z). Observes ``x`` of shape (N, \\*data_shape), or draws ``size`` data points."""
        register(self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(self.prior_loc, self.prior_scale).to_event(1))
            p = self.likelihood(self.decoder(z))
            return pyro.sample("x", p.to_event(len(self.data_shape)), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z | x). Draws z of shape (N, L)."""
        register(self)
        with pyro.plate("data", len(x)):
            loc, raw_scale = self.encoder(x).chunk(2, dim=-1)
            return pyro.sample("z", dist.Normal(loc, positive(raw_scale)).to_event(1))
