"""Probabilistic PCA, whose evidence and posterior are known exactly."""

import math
from collections.abc import Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .networks import SCALE_FLOOR, check_architecture, inverse_positive, positive
from .registration import register


class LinearGaussian(nn.Module):
    r"""Probabilistic PCA (Tipping & Bishop 1999) with a linear Gaussian guide.

    .. math::
        z &\sim N(0, I_L) \\
        x \mid z &\sim N(W z + \mu, \sigma^2 I_D) \\
        q(z \mid x) &= N(A x + b, T T^\top)

    The guide's family contains the exact posterior, so at the optimum ELBO = log p(x).
    Parameters are float64, since this program serves for comparisons with closed forms.

    Arguments:
        data_shape: Shape of one datum, flattened to :math:`D` values.
        latent_dim: Number of latent variables :math:`L`.

    Raises:
        ValueError: If a size is not an integer of at least 1.

    Example:
        >>> x = torch.randn(100, 5, dtype=torch.float64)
        >>> ppca = LinearGaussian((5,), latent_dim=2)
        >>> ppca.set_maximum_likelihood(x)
        >>> ppca.set_exact_guide()
        >>> svi_loss = pyro.infer.Trace_ELBO().loss(ppca.model, ppca.guide, x)
        >>> bool(torch.isclose(ppca.evidence(x).sum(), torch.tensor(-svi_loss, dtype=x.dtype)))
        True
    """

    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(self, data_shape: Sequence[int], latent_dim: int = 2) -> None:
        super().__init__()
        check_architecture(data_shape, latent_dim, hidden=(), channels=())
        self.data_shape = tuple(data_shape)
        dim = math.prod(data_shape)
        self.loading = nn.Parameter(torch.randn(dim, latent_dim) / dim**0.5)
        self.loc = nn.Parameter(torch.zeros(dim))
        self.raw_scale = nn.Parameter(inverse_positive(torch.ones(())))
        self.encoder = nn.Linear(dim, latent_dim)
        self.raw_guide_tril = nn.Parameter(torch.diag(inverse_positive(torch.ones(latent_dim))))
        self.register_buffer("prior_loc", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("prior_scale", torch.ones(latent_dim), persistent=False)
        self.double()

    @property
    def scale(self) -> Tensor:
        r"""Standard deviation :math:`\sigma` of the noise, a scalar."""
        return positive(self.raw_scale)

    @property
    def guide_tril(self) -> Tensor:
        """Cholesky factor T of the guide's covariance, of shape (L, L)."""
        return self.raw_guide_tril.tril(-1) + torch.diag(positive(self.raw_guide_tril.diagonal()))

    def model(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        """p(x, z). Observes ``x`` of shape (N, \\*data_shape), or draws ``size`` data points."""
        register(self)
        with pyro.plate("data", size if x is None else len(x)):
            z = pyro.sample("z", dist.Normal(self.prior_loc, self.prior_scale).to_event(1))
            mean = (z @ self.loading.T + self.loc).unflatten(-1, self.data_shape)
            return pyro.sample(
                "x", dist.Normal(mean, self.scale).to_event(len(self.data_shape)), obs=x
            )

    def guide(self, x: Tensor) -> Tensor:
        """q(z | x). Draws z of shape (N, L)."""
        register(self)
        with pyro.plate("data", len(x)):
            q = dist.MultivariateNormal(self.encoder(x.flatten(1)), scale_tril=self.guide_tril)
            return pyro.sample("z", q)

    def evidence(self, x: Tensor) -> Tensor:
        r"""Exact :math:`\log p(x) = \log N(x; \mu, W W^\top + \sigma^2 I)`.

        Arguments:
            x: Data of shape (N, \*data_shape).

        Returns:
            The evidence of each datum in nats, of shape (N,).
        """
        noise = self.scale.square().expand(len(self.loc))
        return dist.LowRankMultivariateNormal(self.loc, self.loading, noise).log_prob(x.flatten(1))

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        r"""Exact :math:`p(z \mid x) = N(M^{-1} W^\top (x - \mu), \sigma^2 M^{-1})`,
        :math:`M = W^\top W + \sigma^2 I` (Tipping & Bishop 1999, section 3.2).

        Arguments:
            x: Data of shape (N, \*data_shape).

        Returns:
            A distribution over z of batch shape (N,) and event shape (L,).
        """
        weight, covariance = self._posterior_map()
        return dist.MultivariateNormal((x.flatten(1) - self.loc) @ weight.T, covariance)

    @torch.no_grad()
    def set_exact_guide(self) -> None:
        """Set the guide's parameters to the exact posterior of the model."""
        weight, covariance = self._posterior_map()
        tril = torch.linalg.cholesky(covariance)
        self.encoder.weight.copy_(weight)
        self.encoder.bias.copy_(-weight @ self.loc)
        self.raw_guide_tril.copy_(tril.tril(-1) + torch.diag(inverse_positive(tril.diagonal())))

    @torch.no_grad()
    def set_maximum_likelihood(self, x: Tensor) -> None:
        r"""Set the model's parameters to their maximum-likelihood values, with rotation R = I.

        :math:`W = U_L (\Lambda_L - \sigma^2 I)^{1/2}`, with :math:`\sigma^2` the mean of the
        discarded eigenvalues (Tipping & Bishop 1999, eqs. 7 and 8).

        Arguments:
            x: Data of shape (N, \*data_shape).

        Raises:
            ValueError: If no eigenvalue is left for the noise, or those left are zero.
        """
        dim, latent_dim = self.loading.shape
        if latent_dim >= dim:
            raise ValueError(
                f"latent_dim must be less than the {dim} dimensions of the data, got {latent_dim}: "
                "without a direction for the noise alone the likelihood has no maximum"
            )
        x = x.flatten(1).to(self.loc)
        eigenvalues, eigenvectors = torch.linalg.eigh(x.T.cov(correction=0).reshape(dim, dim))
        noise = eigenvalues[: dim - latent_dim].mean()
        if noise <= SCALE_FLOOR**2:
            raise ValueError(
                f"latent_dim must be smaller: {latent_dim} components explain the data exactly, so "
                "the likelihood is unbounded as the noise goes to zero"
            )
        kept = (eigenvalues[dim - latent_dim :] - noise).clamp(min=0).sqrt().flip(0)
        self.loading.copy_(eigenvectors[:, dim - latent_dim :].flip(1) * kept)
        self.loc.copy_(x.mean(0))
        self.raw_scale.copy_(inverse_positive(noise.sqrt()))

    def _posterior_map(self) -> tuple[Tensor, Tensor]:
        """The posterior's regression matrix (L, D) and its covariance (L, L)."""
        precision = self.loading.T @ self.loading + self.scale.square() * torch.diag(
            torch.ones_like(self.prior_scale)
        )
        factor = torch.linalg.cholesky(precision)
        weight = torch.cholesky_solve(self.loading.T, factor)
        return weight, self.scale.square() * torch.cholesky_inverse(factor)
