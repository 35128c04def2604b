"""Gradients along draws alone: sticking the landing, and the doubly reparameterized bound."""

import math
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta
from pyro.infer import ELBO
from pyro.infer.util import torch_item
from pyro.util import warn_if_nan
from torch import Tensor

from ..errors import check_int
from ..programs.protocol import innermost, is_random


class PathwiseELBO(ELBO):
    r"""The ELBO, or the importance-weighted bound, without the score in its gradient.

    A draw :math:`z(\phi) \sim q_\phi` has :math:`E[\partial_\phi \log q_\phi(z)] = 0` at fixed z,
    so that this part of the ELBO's gradient is noise: leaving it out "sticks the landing", for at
    :math:`q_\phi = p(z \mid x)` nothing else is left (Roeder et al. 2017, eq. 8),

    .. math::
        \nabla_\phi = E\Big[\partial_z \log w\, \partial_\phi z\Big], \quad
        \log w = \log p(x, z) - \log q_\phi(z \mid x).

    In the bound of K draws it is no noise, but another reparameterization takes its place; with
    :math:`\tilde w_k = w_k / \sum_j w_j`, this doubly reparameterized gradient, whose
    signal-to-noise ratio does not fall with K, is (Tucker et al. 2018, eq. 8)

    .. math::
        \nabla_\phi = E \sum_k \tilde w_k^2\, \partial_z \log w_k\, \partial_\phi z_k.

    The model's gradient is the usual one. Guides must be reparameterized at every site, without
    auxiliary sites; one of several sites must have no randomness but theirs (dropout), for it runs
    again at its own draws. Every site must be in the one plate over the data.

    Arguments:
        num_particles: Draws K for each datum, in parallel.
        importance_weighted: Whether the bound of K draws is meant, not the mean of K ELBOs.

    Raises:
        InputError: If ``num_particles`` is less than 1.
        ValueError: At the first step, if a site is not as said above.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(7, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> loss = PathwiseELBO().loss_and_grads(ppca.model, ppca.guide, x)
        >>> ppca.encoder.weight.grad.abs().max().item() < 1e-12  # it stuck the landing
        True
    """

    def __init__(self, num_particles: int = 1, importance_weighted: bool = False) -> None:
        num_particles = check_int("num_particles", num_particles)
        super().__init__(num_particles, max_plate_nesting=1, vectorize_particles=True)
        self.importance_weighted = importance_weighted

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The negative bound, in nats, summed over the batch."""
        with torch.no_grad():
            return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The negative bound; its gradient is added to that of every parameter."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        warn_if_nan(loss, "loss")
        return torch_item(loss)

    def differentiable_loss(
        self, model: Callable, guide: Callable, *args: Any, **kwargs: Any
    ) -> Tensor:
        """The negative bound as a tensor that can be differentiated."""
        model, guide = map(self._vectorized_num_particles, (model, guide))
        scored, paths = self._get_trace(model, guide, args, kwargs)
        log_weight = joint_log_prob(scored) - self._stopped(guide, paths, args, kwargs)
        if not self.importance_weighted or self.num_particles == 1:
            return -log_weight.sum() / self.num_particles
        log_weight = log_weight.reshape(self.num_particles, -1)
        share = log_weight.detach().softmax(0)
        for node in paths.nodes.values():
            if is_random(node) and node["value"].requires_grad:
                # The bound's gradient brings one factor of the share; this is the other one.
                node["value"].register_hook(lambda grad: grad * _align(share, grad))
        bound = log_weight.logsumexp(0) - math.log(self.num_particles)
        return -bound.sum()

    def _get_trace(self, model: Callable, guide: Callable, args: Any, kwargs: Any) -> Any:
        """The traces of model and guide at the same draws."""
        paths = poutine.trace(guide).get_trace(*args, **kwargs)
        paths = poutine.util.prune_subsample_sites(paths)
        nodes: dict[str, Any] = {**paths.nodes}
        for site, node in nodes.items():
            if is_random(node):
                _check_path(site, node)
                # A copy beside the guide's own, so that what it draws of a draw is not meant.
                paths.nodes[site] = {**node, "value": node["value"].view_as(node["value"])}
        return poutine.trace(poutine.replay(model, trace=paths)).get_trace(*args, **kwargs), paths

    def _stopped(self, guide: Callable, paths: Any, args: tuple, kwargs: dict) -> Tensor:
        """log q at the draws, differentiable by the draws only.

        Of log q the same thing is taken away at draws that stand still: what remains of its
        gradient is the part through the draws.
        """
        still = paths.copy()
        for site, node in paths.nodes.items():
            if is_random(node):
                still.nodes[site] = {**node, "value": node["value"].detach()}
        moving, standing = (
            joint_log_prob(_rescored(guide, trace, args, kwargs)) for trace in (paths, still)
        )
        return moving - standing + standing.detach()


def joint_log_prob(trace: Any) -> Tensor:
    """Sum over sites of the log densities, of shape (K, N).

    Raises:
        ValueError: If a site is not in the one plate over the data.
    """
    trace.compute_log_prob()
    tables = {s: node["log_prob"] for s, node in trace.nodes.items() if is_random(node)}
    shape = next(iter(tables.values())).shape
    for site, table in tables.items():
        if table.shape != shape:
            raise ValueError(f"site {site!r} is not in the one plate over the data")
    return torch.stack(list(tables.values())).sum(0)


def _check_path(site: str, node: Any) -> None:
    """Refuse a site whose density at a given value is not the guide's density there."""
    if node["infer"].get("is_auxiliary") or isinstance(innermost(node["fn"]), Delta):
        raise ValueError(
            f"the guide's site {site!r} belongs to a flow of an auxiliary site: what its score is "
            "at a given z is not known; use Trace_ELBO, or a TransformedDistribution"
        )
    if not node["fn"].has_rsample:
        raise ValueError(f"the guide's site {site!r} cannot be reparameterized: use Trace_ELBO")


def _align(share: Tensor, grad: Tensor) -> Tensor:
    """Shares of shape (K, N), with the event dimensions of ``grad`` behind them."""
    return share.reshape(share.shape + (1,) * (grad.dim() - share.dim()))


def _rescored(guide: Callable, trace: Any, args: tuple, kwargs: dict) -> Any:
    """The guide's trace at the values that ``trace`` has, which may not be those drawn."""
    latent = [site for site, node in trace.nodes.items() if is_random(node)]
    if len(latent) == 1:
        return trace.copy()  # the distribution of a single site does not depend on the value
    with poutine.block():  # handlers around the objective have seen these sites
        again = poutine.trace(poutine.replay(guide, trace=trace)).get_trace(*args, **kwargs)
    for site in latent:
        again.nodes[site]["scale"] = trace.nodes[site]["scale"]  # set by handlers in the first run
    return again
