"""One Gibbs step: some latent units drawn anew from the posterior, given all others."""

import math

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ..programs.posterior import Posterior
from ..programs.protocol import innermost
from ..programs.sites import Latents
from ..programs.terms import total

CHILDLESS = 1e-3  # nats: rounding, where no other latent depends on the site


def redraw(
    posterior: Posterior, latents: Latents, site: str, chosen: Tensor, candidates: int
) -> tuple[Latents, Tensor, bool]:
    r"""Draw units anew from p(z_i | x, other z).

    The present value and K draws from the prior given the site's parents are candidates, and one is
    chosen with a probability in proportion to

    .. math:: w_k \propto p(x \mid z) \prod_{t \ne s} p(z_t \mid \text{parents}).

    This leaves the posterior as it is for any K (iterated sampling importance resampling; Andrieu,
    Lee & Vihola 2018): draws of the posterior have the same law before and after. Of them
    :math:`E \log((K + 1) w)` is at most the KL from the conditional posterior to the prior (Oord et
    al. 2018).

    Arguments:
        posterior: The posterior of N data points, in its evaluation mode, few enough that all
            candidates are in memory at once.
        latents: What is drawn so far, of shape (S, N, *event shape) by site.
        site: The latent site.
        chosen: Which of its units to draw anew, of shape (units,): all, where the prior's units
            depend on each other (:func:`is_factorized`).
        candidates: Draws K from the prior for each.

    Returns:
        The latents after the step; the KL above, in nats, of shape (N,), at most log(1 + K); and
        whether other latents depend on the site in the model, and tell of it too.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(9, 5, dtype=torch.float64)
        >>> posterior = Posterior(ppca, x)
        >>> with posterior.evaluation_mode(0):
        ...     before = posterior.sample(20)
        ...     after, _, _ = redraw(posterior, before, "z", torch.tensor([True, False]), 8)
        >>> (after["z"] != before["z"]).any(0).any(0).tolist()
        [True, False]
    """
    value = latents[site]
    mask = chosen.to(value.device).reshape(value.shape[2:])
    fresh = _prior(posterior, latents, site).sample((candidates,))
    values = torch.cat([value[None], torch.where(mask, fresh, value)])
    several = {s: z.expand(len(values), *z.shape) for s, z in latents.items()} | {site: values}
    flat = {s: z.flatten(0, 1) for s, z in several.items()}
    terms, shape = posterior.score(flat, with_guide=False), values.shape[:3]
    likelihood = total(terms.likelihood).double().reshape(shape)
    others = [density.double() for s, density in terms.prior.items() if s != site]
    children = torch.stack(others).sum(0).reshape(shape) if others else 0 * likelihood
    log_share = (likelihood + children).nan_to_num(nan=-math.inf).log_softmax(0)
    share = log_share.exp()
    use = (share * (log_share + math.log(len(values))).clamp(min=-1e9)).sum(0).mean(0)
    picked = torch.distributions.Categorical(share.permute(1, 2, 0)).sample()
    index = picked.reshape(1, *picked.shape, *(1,) * (value.dim() - 2)).expand(1, *value.shape)
    spread = (children - children[:1]).abs().nan_to_num(nan=math.inf).max()
    return latents | {site: values.gather(0, index)[0]}, use.cpu(), bool(spread > CHILDLESS)


def _prior(posterior: Posterior, latents: Latents, site: str) -> torch.distributions.Distribution:
    """The model's distribution at a site, given its parents, of batch shape (S, N)."""
    with pyro.plate("_draws", len(latents[site]), dim=-2):
        model = poutine.trace(poutine.condition(posterior.program.model, data=latents))
        prior = posterior.placed.call(model.get_trace).nodes[site]["fn"]
    return prior.expand((*latents[site].shape[:2],))


def is_factorized(posterior: Posterior, site: str) -> bool:
    """Whether the prior's units at a site are independent given its parents."""
    return not innermost(posterior.sites.prior[site]).event_shape
