"""The variational autoencoder of Kingma & Welling (2014)."""

from collections.abc import Sequence
from typing import Any

import pyro
from torch import Tensor, nn

from .guides import GUIDES
from .likelihoods import make_likelihood
from .networks import Decoder, Encoder, check_architecture
from .parts import make_part, refuse_components
from .priors import PRIORS
from .registration import register


class VAE(nn.Module):
    r"""A variational autoencoder (Kingma & Welling 2014, section 3).

    .. math::
        z &\sim N(0, I_L) \\
        x \mid z &\sim p(x \mid \mathrm{decoder}(z)) \\
        q(z \mid x) &= N(\mu, \mathrm{diag}(\sigma^2)), \quad (\mu, \sigma) = \mathrm{encoder}(x)

    Prior and guide may be of other families.

    Arguments:
        data_shape: Shape of one datum, such as ``(1, 28, 28)``.
        latent_dim: Number of latent variables :math:`L`.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        channels: Channels of the convolutions in front of them, for images; empty for none.
        activation: ``"silu"``, ``"tanh"`` or ``"relu"``, between layers.
        likelihood: A name from ``LIKELIHOODS``, or a module from decoder output to distribution.
        likelihood_scale: Scale of a Gaussian or Laplace likelihood; ``None`` learns it.
        guide: The family of q(z|x): a name from ``GUIDES``, or a module like those there.
        prior: A name from ``PRIORS``, or a module like those there.
        encoder_hidden: Widths of the encoder's hidden layers, where not those of ``hidden``.
        components: Number of components of a mixture guide, and of a mixture or vamp prior (10).

    Raises:
        ValueError: If a size is not an integer of at least 1, a name is unknown, or an argument
            has no use.

    Example:
        >>> vae = VAE((1, 28, 28), latent_dim=20, guide="full", prior="flow")
        >>> x = vae.model(size=3)  # draws from the prior predictive
        >>> x.shape
        torch.Size([3, 1, 28, 28])
        >>> vae.guide(x).shape  # draws from q(z|x)
        torch.Size([3, 20])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        latent_dim: int = 50,
        hidden: Sequence[int] = (500, 500),
        channels: Sequence[int] = (),
        activation: str = "silu",
        likelihood: str | nn.Module = "bernoulli",
        likelihood_scale: float | None = None,
        guide: str | nn.Module = "diagonal",
        prior: str | nn.Module = "standard",
        encoder_hidden: Sequence[int] | None = None,
        components: int | None = None,
    ) -> None:
        super().__init__()
        wide = hidden if encoder_hidden is None else encoder_hidden
        check_architecture(data_shape, latent_dim, hidden, channels, activation, wide, components)
        self.data_shape = tuple(data_shape)
        sizes = {"latent_dim": latent_dim, "data_shape": data_shape, "components": components}
        self.family = make_part("guide", guide, GUIDES, **sizes)
        self.encoder = Encoder(data_shape, self.family.features, wide, channels, activation)
        self.decoder = Decoder(latent_dim, data_shape, hidden, channels, activation)
        self.likelihood = make_likelihood(likelihood, data_shape, likelihood_scale)
        self.prior = make_part("prior", prior, PRIORS, **sizes)
        refuse_components(components, self.family, self.prior)

    def encode(self, x: Tensor) -> Any:
        """q(z | x), of batch shape (N,) and event shape (L,)."""
        return self.family(self.encoder(x))

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """p(x, z). Observes ``x`` of shape (N, \\*data_shape), or draws ``size`` data points."""
        register(self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", self.prior(self.encode))
            p = self.likelihood(self.decoder(z))
            return pyro.sample("x", p.to_event(len(self.data_shape)), obs=x)

    def guide(self, x: Tensor) -> Tensor:
        """q(z | x). Draws z of shape (N, L)."""
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.encode(x))
