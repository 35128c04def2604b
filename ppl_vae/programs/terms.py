"""Log densities per site, draw and datum, read off Pyro traces."""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from ..errors import InputError
from .protocol import OBSERVED, Program, innermost, is_random


@dataclass(frozen=True)
class Terms:
    """Log densities in nats, each of shape (S draws, N data), by the name of their site.

    Attributes:
        model: log p of every site of the model, the observed one included.
        guide: log q of every site of the guide.
        analytic_kl: KL from guide to prior at every latent site, given the draws of its parents;
            empty unless asked for, and without the sites that have no formula.
    """

    model: dict[str, Tensor]
    guide: dict[str, Tensor]
    analytic_kl: dict[str, Tensor] = field(default_factory=dict)

    def cpu(self) -> "Terms":
        """The same, in the computer's own memory."""
        tables = (self.model, self.guide, self.analytic_kl)
        return Terms(*({site: values.cpu() for site, values in t.items()} for t in tables))

    @property
    def reconstruction(self) -> Tensor:
        """log p(x | z), of shape (S, N)."""
        return self.model[OBSERVED]

    @property
    def kl(self) -> Tensor:
        """log q(z | x) - log p(z), of shape (S, N); its mean estimates KL(q(z|x) || p(z))."""
        prior = [log_prob for site, log_prob in self.model.items() if site != OBSERVED]
        return torch.stack(list(self.guide.values())).sum(0) - torch.stack(prior).sum(0)

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x), of shape (S, N); its mean estimates the ELBO."""
        return self.reconstruction - self.kl


def refuse_infinite(terms: Terms, first: int = 0) -> None:
    """Refuse weights that are infinite or NaN.

    Arguments:
        terms: Log densities of S draws for each of N data.
        first: What messages call the first of the data.

    Raises:
        InputError: Naming the datum and the site.
    """
    for tables in (terms.guide, terms.model):
        for site, table in tables.items():
            if not (finite := table.isfinite().all(0)).all():
                raise InputError(
                    f"the log weight of datum {first + int((~finite).nonzero()[0])} is not finite, "
                    f"because of site {site!r}: check that datum, or train longer at a lower rate"
                )


def score_traces(guide: Any, model: Any, shape: tuple[int, int], analytic: bool = False) -> Terms:
    """The log densities that traces of guide and model hold, on their device.

    Arguments:
        guide: The guide's trace, as :func:`ppl_vae.programs.sites.trace_draws` gives it.
        model: The model's, at the same draws.
        shape: Draws and data, (S, N).
        analytic: Whether the KL of each latent site is computed in closed form too.
    """
    kl = _analytic_kl(guide, model, shape) if analytic else {}
    return Terms(_densities(model, shape), _densities(guide, shape), kl)


def score_latents(
    program: Program,
    batch: Tensor,
    latents: dict[str, Tensor],
    with_guide: bool,
    with_model: bool = True,
) -> Terms:
    r"""Score given latents, differentiable by them.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        batch: Data of shape (N, \*data_shape), on the program's device and of its type.
        latents: A value for every latent site, each of shape (S, N, \*event shape).
        with_guide: Whether the guide scores them.
        with_model: Whether the model does.

    Returns:
        The log densities, on the program's device; none of what is left out.
    """
    shape = (len(next(iter(latents.values()))), len(batch))
    densities = []
    with pyro.plate("_draws", shape[0], dim=-2):
        for run, wanted in ((program.model, with_model), (program.guide, with_guide)):
            scored = poutine.trace(poutine.condition(run, data=latents)) if wanted else None
            densities.append(_densities(scored.get_trace(batch), shape) if scored else {})
    return Terms(*densities)


def _densities(trace: Any, shape: tuple[int, int]) -> dict[str, Tensor]:
    """The log density of every random site, of shape (S, N)."""
    trace.compute_log_prob()
    return {
        # Masks are part of a density; what scales an objective is not.
        site: scale_and_mask(node["unscaled_log_prob"], mask=node["mask"]).expand(shape)
        for site, node in trace.nodes.items()
        if is_random(node)
    }


def _analytic_kl(guide: Any, model: Any, shape: tuple[int, int]) -> dict[str, Tensor]:
    order = [
        [s for s, n in trace.nodes.items() if is_random(n) and s != OBSERVED]
        for trace in (guide, model)
    ]
    if order[0] != order[1]:
        return {}  # a site of the guide may depend on what the prior has below it
    found = {}
    for site in order[0]:
        q, p = guide.nodes[site], model.nodes[site]
        if not _same_mask(q["mask"], p["mask"]):
            continue
        with suppress(NotImplementedError):
            kl = kl_divergence(q["fn"], _as_family(p["fn"], q["fn"]))
            found[site] = scale_and_mask(kl, mask=q["mask"]).expand(shape)
    return found


def _same_mask(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other


def _as_family(p: Any, q: Any) -> Any:
    """Independent normals as one multivariate normal, where they are compared with one."""
    base = innermost(p)
    if not isinstance(q, dist.MultivariateNormal) or not isinstance(base, dist.Normal):
        return p
    return dist.MultivariateNormal(base.loc, scale_tril=base.scale.diag_embed())


def concatenate(parts: list[Terms], dim: int) -> Terms:
    """Terms of some draws (``dim`` 0) or data (``dim`` 1) at a time, as those of all."""

    def joined(table: str) -> dict[str, Tensor]:
        first = getattr(parts[0], table)
        return {site: torch.cat([getattr(p, table)[site] for p in parts], dim) for site in first}

    return Terms(joined("model"), joined("guide"), joined("analytic_kl"))
