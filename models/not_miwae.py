"""Data that are missing because of what they are: the model of Ipsen, Mattei & Frellsen (2021)."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import Columns, encoder_inputs
from .registration import register
from .vae import VAE


class NotMIWAE(VAE):
    r"""A :class:`VAE` with a model of which values are missing (Ipsen et al. 2021, not-MIWAE).

    .. math::
        z &\sim p(z), \quad x \mid z \sim p(x \mid \mathrm{decoder}(z)) \\
        m_d \mid x &\sim \mathrm{Bernoulli}(\sigma(a_d + b_d \bar x_d))

    Whether a value is observed (:math:`m_d = 1`) depends on what it is, standardized where
    ``columns`` are given ("self-masking"). What is missing is a latent of its own, which model and
    guide draw from p(x | z); of the site ``x_missing`` the values that are missing are used.

    Arguments:
        data_shape: Shape of one datum.
        latent_dim: Number of latent variables L.
        hidden: Widths of the hidden layers, as of :class:`VAE`.
        likelihood: As of :class:`VAE`; its draws must have a gradient, as those of real data have.
        columns: What is known of each column of a table, as of :class:`VAE`.
        parts: Whatever else :class:`VAE` takes, by name.

    Raises:
        ValueError: As :class:`VAE` does; or if draws have no gradient.

    Example:
        >>> program, x = NotMIWAE((3,), 2, (8,)), torch.randn(5, 3)
        >>> program.model(x, mask=x < 1).shape
        torch.Size([5, 3])
    """

    def __init__(
        self,
        data_shape: Sequence[int],
        latent_dim: int = 50,
        hidden: Sequence[int] = (500, 500),
        likelihood: str | nn.Module = "gaussian",
        columns: Columns | None = None,
        **parts: Any,
    ) -> None:
        parts |= {"likelihood": likelihood, "columns": columns}
        super().__init__(data_shape, latent_dim, hidden, **parts)
        given = getattr(self.likelihood, "output_shape", self.data_shape)
        if not self.likelihood(torch.zeros(given)).has_rsample:
            raise ValueError(
                f"likelihood {likelihood!r} has draws without a gradient: use one of real data, "
                "such as gaussian"
            )
        self.bias = nn.Parameter(torch.zeros(self.data_shape))
        self.slope = nn.Parameter(torch.zeros(self.data_shape))

    def model(  # type: ignore[override]
        self, x: Tensor | None = None, *, mask: Tensor
    ) -> Tensor:
        r"""p(x, m, z). Observes ``x`` of shape (N, \*data_shape) where ``mask`` is true, and the
        mask; without ``x`` both are drawn, and a mask that is true throughout says how many."""
        register(self)
        events = len(self.data_shape)
        with pyro.plate("data", len(mask)):
            z = pyro.sample("z", self.prior(self.encode_inputs))
            p = self.likelihood(self.decoder(z))
            missing = pyro.sample("x_missing", p.to_event(events))
            found = pyro.sample("x", p.mask(mask).to_event(events), obs=x)
            complete = torch.where(mask, found, missing)
            logits = self.bias + self.slope * encoder_inputs(self.likelihood, complete)
            observed = None if x is None else mask.to(found)
            pyro.sample("mask", dist.Bernoulli(logits=logits).to_event(events), obs=observed)
            return found

    def guide(self, x: Tensor, *, mask: Tensor) -> Tensor:  # type: ignore[override]
        """q(z | x observed) p(x | z). Draws z of shape (N, L), and what is missing."""
        register(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.encode(x, mask))
            p = self.likelihood(self.decoder(z))
            pyro.sample("x_missing", p.to_event(len(self.data_shape)))
            return z
