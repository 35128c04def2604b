"""One Gibbs step: some latent units drawn anew from the posterior, given all others."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..programs.posterior import Posterior
from ..programs.protocol import innermost
from ..programs.sites import Latents
from ..programs.terms import total

CHILDLESS = 1e-3  # nats: rounding, where no other latent depends on the site


@dataclass(frozen=True)
class Redrawn:
    """Draws of the guide, and what became of them.

    Attributes:
        before: The guide's draws, of shape (S, N, *event shape) by site.
        after: The same after the step.
        use: What the model says of the units given all others, in nats, of shape (N,): KL from
            their conditional posterior to their prior, at most log(1 + candidates).
        has_children: Whether other latents depend on the site in the model, which tell of it too.
    """

    before: Latents
    after: Latents
    use: Tensor
    has_children: bool


def redraw(posterior: Posterior, draws: int, site: str, chosen: Tensor, candidates: int) -> Redrawn:
    r"""Draw units anew from p(z_i | x, other z), starting from draws of the guide.

    The present value and K draws from the prior given the site's parents are candidates, and one is
    chosen with a probability in proportion to

    .. math:: w_k \propto p(x \mid z) \prod_{t \ne s} p(z_t \mid \text{parents}).

    This leaves the posterior as it is for any K (iterated sampling importance resampling; Andrieu,
    Lee & Vihola 2018): if the guide is the posterior, draws have the same law before and after.
    :math:`E \log((K + 1) w)` is then at most the KL from the conditional posterior to the prior
    (Oord et al. 2018).

    Arguments:
        posterior: The posterior of N data points, in its evaluation mode, few enough that all
            candidates are in memory at once.
        draws: Draws S from the guide for each data point.
        site: The latent site.
        chosen: Which of its units to draw anew, of shape (units,).
        candidates: Draws K from the prior for each.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(9, 5, dtype=torch.float64)
        >>> posterior = Posterior(ppca, x)
        >>> with posterior.evaluation_mode(0):
        ...     found = redraw(posterior, 20, "z", torch.tensor([True, False]), 8)
        >>> (found.after["z"] != found.before["z"]).any(0).any(0).tolist()
        [True, False]
    """
    _, model = posterior.trace(draws)
    before = {name: model.nodes[name]["value"] for name in posterior.sites.prior}
    value, prior = before[site], model.nodes[site]["fn"]
    prior = prior.expand(value.shape[: value.dim() - len(prior.event_shape)])
    fresh = prior.sample((candidates,))
    mask = chosen.to(value.device).reshape(value.shape[2:])
    values = torch.cat([value[None], torch.where(mask, fresh, value)])
    several = {name: z.expand(len(values), *z.shape) for name, z in before.items()} | {site: values}
    terms = posterior.score({name: z.flatten(0, 1) for name, z in several.items()}, False)
    others = [density for name, density in terms.prior.items() if name != site]
    shape = values.shape[:3]
    children = torch.stack(others).sum(0).reshape(shape) if others else torch.zeros(shape)
    log_share = total(terms.likelihood).reshape(shape).double() + children.to(value.device).double()
    log_share = log_share.nan_to_num(nan=-math.inf).log_softmax(0)
    share = log_share.exp()
    use = (share * (log_share + math.log(len(values))).clamp(min=-1e9)).sum(0).mean(0)
    picked = torch.distributions.Categorical(share.permute(1, 2, 0)).sample()
    index = picked.reshape(1, *picked.shape, *(1,) * (value.dim() - 2)).expand(1, *value.shape)
    after = before | {site: values.gather(0, index)[0]}
    spread = (children - children[:1]).abs().nan_to_num(nan=math.inf).max()
    return Redrawn(before, after, use.cpu(), bool(spread > CHILDLESS))


def is_factorized(posterior: Posterior, site: str) -> bool:
    """Whether the prior's units at a site are independent given its parents."""
    return not innermost(posterior.sites.prior[site]).event_shape
