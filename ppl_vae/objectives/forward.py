"""The forward KL divergence of a guide, on data that the model makes."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro import poutine
from pyro.infer.util import torch_item
from torch import Tensor

from ..data.batch import Batch
from ..data.missing import MASK
from ..programs.posterior import Posterior
from ..programs.predictions import Prediction
from ..programs.protocol import is_random
from ..programs.sites import latent_nodes
from .pathwise import joint_log_prob


class ForwardKL:
    r"""Minus log q(z | x) of pairs that the model draws.

    .. math::
        - E_{p(z, x)} \log q(z \mid x) = E_{p(x)}\, \mathrm{KL}(p(z \mid x) \| q(z \mid x)) + c

    It is what the sleep phase (Hinton et al. 1995) and neural posterior estimation (Papamakarios &
    Murray 2016) minimize. At its minimum within a family the guide covers what is likely under
    the posterior: among diagonal normals it has the mean and the variances of the posterior, where
    the ELBO's has the conditional variances (Bishop 2006, section 10.1.2). The model gets no
    gradient. Guides may be discrete; they must know their density at values that they did not draw.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.zeros(7, 5, dtype=torch.float64)
        >>> loss = ForwardKL().loss_and_grads(ppca.model, ppca.guide, x)  # nats, of 7 pairs
        >>> ppca.encoder.weight.grad is not None, ppca.loading.grad is None
        (True, True)
    """

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Minus log q(z | x), in nats, summed over as many pairs as the batch has rows."""
        with torch.no_grad():
            return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """The loss; its gradient is added to that of every parameter of the guide."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        loss.backward()
        return torch_item(loss)

    def differentiable_loss(
        self, model: Callable, guide: Callable, x: Tensor, **covariates: Tensor
    ) -> Tensor:
        """The loss as a tensor that can be differentiated.

        Arguments:
            model: As Pyro's losses take it.
            guide: As Pyro's losses take it.
            x: Its values are not read, only how many there are, and of what shape.
            covariates: What the model is given, one row a pair.
        """
        latents, batch = draw_pairs(model, Batch(x=x, **covariates))
        conditioned = poutine.trace(poutine.condition(guide, data=latents))
        return -joint_log_prob(batch.call(conditioned.get_trace)).sum()


def draw_pairs(model: Callable, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
    """Draw (z, x) from a model, and covariates that it observes, given the others.

    Returns:
        A value of each latent site, and the batch with what was drawn in it.
    """
    with torch.no_grad():
        trace = batch.call(poutine.trace(poutine.uncondition(model)).get_trace)
        if MASK in trace and MASK in batch:  # the model draws it, given complete data
            template = Batch({**batch, MASK: torch.ones_like(batch[MASK])})
            trace = template.call(poutine.trace(poutine.uncondition(model)).get_trace)
    latents = {site: node["value"].detach() for site, node in latent_nodes(trace, batch).items()}
    drawn = {
        site: node["value"].detach().to(batch[site].dtype)
        for site, node in trace.nodes.items()
        if is_random(node) and site in batch
    }
    return latents, Batch({**batch, **drawn})


def forward_scores(posterior: Posterior, prediction: Prediction) -> Tensor:
    """log q(z | x) of each of N pairs that a model drew, in nats, of shape (N,), on the CPU.

    Arguments:
        posterior: That of the pairs' data.
        prediction: The pairs.
    """
    latents: Mapping[str, Tensor] = prediction.latents
    with posterior.evaluation_mode(seed=0):
        parts = []
        for part in posterior.blocks(1):
            given = {
                site: latents[site][part.rows][None].to(posterior.device)
                for site in posterior.sites.prior
            }
            table = part.score(given, with_model=False).guide
            parts.append(torch.stack(list(table.values())).sum((0, 1)).double().cpu())
    return torch.cat(parts)
