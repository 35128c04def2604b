"""Gradients by the score function: of guides whose draws have no path to their parameters."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from pyro.util import warn_if_nan
from torch import Tensor

from ..errors import check_int
from .pathwise import joint_log_prob


class ScoreFunctionELBO(ELBO):
    r"""The ELBO, or the importance-weighted bound, by scores with the other draws as baseline.

    With K draws :math:`z_k \sim q_\phi` that stand still, such as discrete ones, and
    :math:`\log w_k = \log p(x, z_k) - \log q_\phi(z_k \mid x)`, the gradient of the ELBO is

    .. math::
        \nabla_\phi = E \frac1K \sum_k \Big(\log w_k - \frac1{K-1} \sum_{j \ne k} \log w_j\Big)
        \nabla_\phi \log q_\phi(z_k \mid x)

    (Kool et al. 2019). The mean over the other draws does not depend on this one: it takes away
    variance, and brings no bias. For the bound :math:`\hat L` of K draws, with normalized weights
    :math:`\tilde w_k`, VIMCO has (Mnih & Rezende 2016)

    .. math::
        \nabla_\phi = E \sum_k (\hat L - \hat L_{-k}) \nabla_\phi \log q_\phi(z_k \mid x)
        + \tilde w_k \nabla_\phi \log w_k,

    where :math:`\hat L_{-k}` is the bound with the geometric mean of the other weights in the place
    of :math:`w_k`. The model's gradient is the usual one. Every site must be in the one plate over
    the data.

    Arguments:
        num_particles: Draws K for each datum, in parallel.
        importance_weighted: Whether the bound of K draws is meant, not the mean of K ELBOs.

    Raises:
        InputError: If ``num_particles`` is less than 2, which leaves no others.
        ValueError: At the first step, if a site is not in the plate.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(7, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> loss = ScoreFunctionELBO(3).loss_and_grads(ppca.model, ppca.guide, x)
        >>> ppca.encoder.weight.grad.abs().max().item() < 1e-10  # all weights are equal
        True
    """

    def __init__(self, num_particles: int, importance_weighted: bool = False) -> None:
        num_particles = check_int("num_particles", num_particles, 2)
        super().__init__(num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.importance_weighted = importance_weighted

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The negative bound, in nats, summed over the batch."""
        with torch.no_grad():
            log_p, log_q = self._terms(model, guide, args, kwargs)
        return -torch_item(self._bound(log_p - log_q).sum())

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The negative bound; its gradient is added to that of every parameter."""
        log_p, log_q = self._terms(model, guide, args, kwargs)
        log_weight = (log_p - log_q).detach()
        bound = self._bound(log_weight)
        signal = bound - self._without(log_weight)
        if self.importance_weighted:
            surrogate = signal * log_q + log_weight.softmax(0) * (log_p - log_q)
        else:  # E[grad log q] is zero, and left out
            surrogate = signal * log_q + log_p / self.num_particles
        (-surrogate.sum()).backward()
        loss = -bound.sum()
        warn_if_nan(loss, "loss")
        return torch_item(loss)

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> Any:
        """The traces of model and guide at the same draws, which stand still."""
        with DetachedDraws():
            drawn = poutine.trace(guide).get_trace(*args, **kwargs)
            scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*args, **kwargs)
        return scored, drawn

    def _terms(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> Any:
        """log p(x, z) and log q(z | x) of the draws, each of shape (K, N)."""
        model, guide = map(self._vectorized_num_particles, (model, guide))
        scored, drawn = self._get_trace(model, guide, args, kwargs)
        return joint_log_prob(scored), joint_log_prob(drawn)

    def _bound(self, log_weight: Tensor) -> Tensor:
        """The bound of each datum, of shape (N,)."""
        if self.importance_weighted:
            return log_weight.logsumexp(0) - math.log(self.num_particles)
        return log_weight.mean(0)

    def _without(self, log_weight: Tensor) -> Tensor:
        """The bound of each datum, each draw in turn replaced by a mean of the others, (K, N)."""
        others = (log_weight.sum(0) - log_weight) / (self.num_particles - 1)
        draw = torch.eye(self.num_particles, dtype=torch.bool, device=log_weight.device)
        # One table of weights for each draw that is left out: (K draws left out, K weights, N).
        replaced = torch.where(draw[..., None], others[:, None], log_weight)
        return torch.stack([self._bound(table) for table in replaced])


class DetachedDraws(Messenger):
    """Take the guide's draws as they are, so that Pyro falls back on the score function.

    It must be the outermost handler: plates around a site copy its distribution.
    """

    def _pyro_sample(self, msg: Any) -> None:
        # What the model is given has a value already.
        if msg["value"] is None and not site_is_subsample(msg):
            msg["fn"] = _Detached(msg["fn"])


class _Detached(TorchDistribution):
    """A distribution without ``rsample``, whatever it is built of.

    Pyro's ``has_rsample_`` serves its own distributions only, and many of PyTorch's (half-normal,
    Gumbel, Weibull) are transformed ones of PyTorch's own.
    """

    has_rsample = False

    def __init__(self, base_dist: Any) -> None:
        self.base_dist = base_dist
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_Detached":
        return _Detached(self.base_dist.expand(batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        # A clone is in no transform's cache, which would know where it came from.
        return self.base_dist.sample(torch.Size(sample_shape)).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base_dist.log_prob(value)
