"""The classical autoencoder as a degenerate Pyro program."""

from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import Columns, data_distribution, encoder_inputs, make_likelihood
from .networks import Decoder, Encoder, check_architecture
from .registration import register


class Autoencoder(nn.Module):
    r"""A deterministic autoencoder: its objective is the likelihood alone.

    .. math::
        x \mid z \sim p(x \mid \mathrm{decoder}(z)), \quad z = \mathrm{encoder}(x)

    The guide is a point mass at the code, and the model's site ``z`` is masked, so that it adds
    nothing to the objective. Run forward, the model draws codes from :math:`N(0, I_L)`, whose
    decodings show that an autoencoder is not a generative model. A point mass has no density: the
    ELBO is minus infinity, and ``Trace_ELBO`` returns the reconstruction term.

    Arguments:
        data_shape: Shape of one datum.
        latent_dim: Length :math:`L` of the code.
        hidden: Widths of the encoder's hidden layers; the decoder has them in reverse.
        channels: Channels of the convolutions in front of them, for images; empty for none.
        activation: ``"silu"``, ``"tanh"`` or ``"relu"``, between layers.
        likelihood: A name from ``LIKELIHOODS``, or a module from decoder output to distribution; by
            default ``"columns"`` where they are given, and else ``"bernoulli"``.
        likelihood_scale: Scale of a Gaussian likelihood, or one like it; ``None`` learns it.
        columns: What is known of each column of a table; see :class:`.VAE`.
        levels: The highest level of an image, for likelihoods of levels (255).

    Raises:
        ValueError: If a size is not an integer of at least 1, or the likelihood or activation is
            unknown.

    Example:
        >>> autoencoder = Autoencoder((1, 8, 8), latent_dim=2, likelihood="gaussian")
        >>> autoencoder.guide(torch.rand(5, 1, 8, 8)).shape  # the codes
        torch.Size([5, 2])
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
        likelihood: str | nn.Module | None = None,
        likelihood_scale: float | None = None,
        columns: Columns | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        check_architecture(data_shape, latent_dim, hidden, channels, activation)
        self.data_shape = tuple(data_shape)
        p = make_likelihood(likelihood, data_shape, likelihood_scale, columns, levels)
        read, given = (getattr(p, f"{way}_shape", data_shape) for way in ("input", "output"))
        self.encoder = Encoder(read, latent_dim, hidden, channels, activation)
        self.decoder = Decoder(latent_dim, given, hidden, channels, activation)
        self.likelihood = p
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)

    def model(
        self,
        x: Tensor | None = None,
        size: int = 1,
        *,
        mask: Tensor | None = None,
        exposure: Tensor | None = None,
    ) -> Tensor:
        """p(x | z), given what :meth:`.VAE.model` is given."""
        register(self)
        with pyro.plate("data", size if x is None else len(x)):
            codes = dist.Normal(self.prior_loc, self.prior_scale).to_event(1)
            z = pyro.sample("z", codes.mask(False))
            p = data_distribution(self.likelihood, self.decoder(z), mask, exposure)
            return pyro.sample("x", p.to_event(len(self.data_shape)), obs=x)

    def guide(
        self, x: Tensor, *, mask: Tensor | None = None, exposure: Tensor | None = None
    ) -> Tensor:
        """The code z of shape (N, L), as a point mass."""
        register(self)
        with pyro.plate("data", len(x)):
            code = self.encoder(encoder_inputs(self.likelihood, x, mask))
            return pyro.sample("z", dist.Delta(code, event_dim=1))
