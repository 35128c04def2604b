"""Data that are missing because of what they are: the model of Ipsen, Mattei & Frellsen (2021)."""

from collections.abc import Sequence
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .likelihoods import encoder_inputs
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
        **parts: As of :class:`VAE`. Draws of the likelihood must have a gradient, as those of real
            data have.

    Raises:
        ValueError: As :class:`VAE` does; or if draws have no gradient.

    Example:
        >>> program = NotMIWAE((3,), 2, (8,), likelihood="gaussian")
        >>> x = torch.randn(5, 3)
        >>> program.guide(x, mask=x < 1)["x_missing"].shape
        torch.Size([5, 3])
    """

    def __init__(self, data_shape: Sequence[int], *arguments: Any, **parts: Any) -> None:
        super().__init__(data_shape, *arguments, **parts)
        given = getattr(self.likelihood, "output_shape", self.data_shape)
        if not self.likelihood(torch.zeros(given)).has_rsample:
            name = parts.get("likelihood", "bernoulli")
            raise ValueError(
                f"likelihood {name!r} has draws without a gradient: use one of real data, such as "
                "gaussian"
            )
        self.bias = nn.Parameter(torch.zeros(self.data_shape))
        self.slope = nn.Parameter(torch.zeros(self.data_shape))

    def model(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        r"""p(x, m, z). Observes ``x`` of shape (N, \*data_shape), where ``mask`` is true."""
        register(self)
        events = len(self.data_shape)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior(self.encode_inputs))
            p = self.likelihood(self.decoder(z))
            missing = pyro.sample("x_missing", p.to_event(events))
            complete = encoder_inputs(self.likelihood, torch.where(mask, x, missing))
            seen = dist.Bernoulli(logits=self.bias + self.slope * complete)
            pyro.sample("mask", seen.to_event(events), obs=mask.to(x))
            return pyro.sample("x", p.mask(mask).to_event(events), obs=x)

    def guide(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """q(z | x observed) p(x | z). Draws z of shape (N, L), and what is missing."""
        register(self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.encode(x, mask))
            p = self.likelihood(self.decoder(z))
            missing = pyro.sample("x_missing", p.to_event(len(self.data_shape)))
        return {"z": z, "x_missing": missing}
