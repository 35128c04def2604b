"""The variational autoencoder of Kingma & Welling (2014)."""

from collections.abc import Sequence
from typing import Any

import pyro
from torch import Tensor, nn

from .guides import GUIDES
from .likelihoods import Columns, data_distribution, encoder_inputs, make_likelihood
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

    Prior and guide may be of other families. Where values are missing, log p(x) is that of the
    observed ones, and the encoder reads zeros in place of the others: the importance-weighted bound
    is then that of MIWAE (Mattei & Frellsen 2019, eq. 4).

    Arguments:
        data_shape: Shape of one datum, such as ``(1, 28, 28)``.
        latent_dim: Number of latent variables :math:`L`.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        channels: Channels of the convolutions in front of them, for images; empty for none.
        activation: ``"silu"``, ``"tanh"`` or ``"relu"``, between layers.
        likelihood: A name from ``LIKELIHOODS``, or a module from decoder output to distribution; by
            default ``"columns"`` where they are given, and else ``"bernoulli"``.
        likelihood_scale: Scale of a Gaussian likelihood, or one like it; ``None`` learns it.
        guide: The family of q(z|x): a name from ``GUIDES``, or a module like those there.
        prior: A name from ``PRIORS``, or a module like those there.
        encoder_hidden: Widths of the encoder's hidden layers, where not those of ``hidden``.
        components: Number of components of a mixture guide, and of a mixture or vamp prior (10).
        columns: What is known of each column of a table: dictionaries of ``name``, ``kind``,
            ``loc``, ``scale`` and ``categories``. Networks then see standardized data.
        levels: The highest level of an image, for likelihoods of levels (255).

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
        likelihood: str | nn.Module | None = None,
        likelihood_scale: float | None = None,
        guide: str | nn.Module = "diagonal",
        prior: str | nn.Module = "standard",
        encoder_hidden: Sequence[int] | None = None,
        components: int | None = None,
        columns: Columns | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        wide = hidden if encoder_hidden is None else encoder_hidden
        check_architecture(data_shape, latent_dim, hidden, channels, activation, wide, components)
        self.data_shape = tuple(data_shape)
        p = make_likelihood(likelihood, data_shape, likelihood_scale, columns, levels)
        read, given = (getattr(p, f"{way}_shape", data_shape) for way in ("input", "output"))
        sizes = {"latent_dim": latent_dim, "data_shape": read, "components": components}
        self.family = make_part("guide", guide, GUIDES, **sizes)
        self.encoder = Encoder(read, self.family.features, wide, channels, activation)
        self.decoder = Decoder(latent_dim, given, hidden, channels, activation)
        self.likelihood = p
        self.prior = make_part("prior", prior, PRIORS, **sizes)
        refuse_components(components, self.family, self.prior)

    def encode(self, x: Tensor, mask: Tensor | None = None) -> Any:
        """q(z | x), of batch shape (N,) and event shape (L,)."""
        return self.encode_inputs(encoder_inputs(self.likelihood, x, mask))

    def encode_inputs(self, inputs: Tensor) -> Any:
        """q(z | x), from what the encoder reads of x."""
        return self.family(self.encoder(inputs))

    def model(
        self,
        x: Tensor | None = None,
        size: int = 1,
        *,
        mask: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> Tensor:
        r"""p(x, z). Observes ``x`` of shape (N, \*data_shape), or draws ``size`` data points.

        Arguments:
            x: The data.
            size: Number of data points to draw without them.
            mask: True where a value was observed, of the shape of x; ``None`` where all were.
            exposure: What multiplies the means of counts, of shape (N,) or that of x.
        """
        register(self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", self.prior(self.encode_inputs))
            p = data_distribution(self.likelihood, self.decoder(z), mask, exposure)
            return pyro.sample("x", p.to_event(len(self.data_shape)), obs=x)

    def guide(
        self, x: Tensor, *, mask: Tensor | None = None, exposure: Tensor | None = None
    ) -> Tensor:
        """q(z | x). Draws z of shape (N, L)."""
        register(self)
        with pyro.plate("data", len(x)):
            return pyro.sample("z", self.encode(x, mask))
