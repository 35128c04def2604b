"""Log densities per site, draw and data point, read off Pyro traces."""

from collections.abc import Mapping
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

from ..data.batch import Batch
from ..errors import InputError
from .protocol import Program, innermost, is_random
from .sites import latent_nodes


@dataclass(frozen=True)
class Terms:
    """Log densities in nats, each of shape (S draws, N data), by the name of their site.

    Attributes:
        likelihood: log p of every observed site of the model, ``x`` among them.
        prior: log p of every latent site of the model.
        guide: log q of every site of the guide.
        analytic_kl: KL from guide to prior at every latent site, given the draws of its parents;
            empty unless asked for, and without the sites that have no formula.
    """

    likelihood: dict[str, Tensor]
    prior: dict[str, Tensor]
    guide: dict[str, Tensor]
    analytic_kl: dict[str, Tensor] = field(default_factory=dict)

    def tables(self) -> tuple[dict[str, Tensor], ...]:
        """All of them, in this order."""
        return self.likelihood, self.prior, self.guide, self.analytic_kl

    def cpu(self) -> "Terms":
        """The same, in the computer's own memory."""
        return Terms(*({site: v.cpu() for site, v in table.items()} for table in self.tables()))

    @property
    def reconstruction(self) -> Tensor:
        """log p(x | z), of shape (S, N)."""
        return total(self.likelihood)

    @property
    def kl(self) -> Tensor:
        """log q(z | x) - log p(z), of shape (S, N); its mean estimates KL(q(z|x) || p(z))."""
        return total(self.guide) - total(self.prior)

    @property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x), of shape (S, N); its mean estimates the ELBO."""
        return self.reconstruction - self.kl


def total(table: Mapping[str, Tensor]) -> Tensor:
    """The sum over sites."""
    return torch.stack(list(table.values())).sum(0)


def refuse_infinite(terms: Terms, rows: Tensor) -> None:
    """Refuse weights that are infinite or NaN.

    Arguments:
        terms: Log densities of S draws for each of N data points.
        rows: What messages call each of them, in order.

    Raises:
        InputError: Naming the data point and the site.
    """
    for table in (terms.guide, terms.prior, terms.likelihood):
        for site, values in table.items():
            if not (finite := values.isfinite().all(0)).all():
                raise InputError(
                    f"datum {int(rows[(~finite).nonzero()[0]])}",
                    f"has a log weight that is not finite, because of site {site!r}",
                    "check that data point, or train longer at a lower rate",
                )


def score_traces(guide: Any, model: Any, batch: Batch, draws: int, analytic: bool = False) -> Terms:
    """The log densities that traces of guide and model hold, on their device.

    Arguments:
        guide: The guide's trace, as :func:`ppl_vae.programs.sites.trace_draws` gives it.
        model: The model's, at the same draws.
        batch: The data points that they are of.
        draws: The number of draws S.
        analytic: Whether the KL of each latent site is computed in closed form too.
    """
    shape = (draws, batch.size)
    kl = _analytic_kl(guide, model, batch, shape) if analytic else {}
    likelihood, prior = _apart(_densities(model, shape), batch)
    return Terms(likelihood, prior, _densities(guide, shape), kl)


def score_latents(
    program: Program,
    batch: Batch,
    latents: Mapping[str, Tensor],
    with_guide: bool,
    with_model: bool = True,
) -> Terms:
    r"""Score given latents, differentiable by them.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        batch: N data points, on the program's device and of its type.
        latents: A value for every latent site, each of shape (S, N, \*event shape).
        with_guide: Whether the guide scores them.
        with_model: Whether the model does.

    Returns:
        The log densities, on the program's device; none of what is left out.
    """
    shape = (len(next(iter(latents.values()))), batch.size)
    densities = []
    with pyro.plate("_draws", shape[0], dim=-2):
        for run, wanted in ((program.model, with_model), (program.guide, with_guide)):
            scored = poutine.trace(poutine.condition(run, data=dict(latents)))
            densities.append(_densities(batch.call(scored.get_trace), shape) if wanted else {})
    return Terms(*_apart(densities[0], batch), densities[1])


def _apart(model: dict[str, Tensor], batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The log densities of observed sites, and of latent ones."""
    observed = {site: values for site, values in model.items() if site in batch}
    return observed, {site: values for site, values in model.items() if site not in batch}


def _densities(trace: Any, shape: tuple[int, int]) -> dict[str, Tensor]:
    """The log density of every random site, of shape (S, N)."""
    trace.compute_log_prob()
    return {
        # Masks are part of a density; what scales an objective is not.
        site: scale_and_mask(node["unscaled_log_prob"], mask=node["mask"]).expand(shape)
        for site, node in trace.nodes.items()
        if is_random(node)
    }


def _analytic_kl(guide: Any, model: Any, batch: Batch, shape: tuple[int, int]) -> dict[str, Tensor]:
    order = [list(latent_nodes(trace, batch)) for trace in (guide, model)]
    if order[0] != order[1]:
        return {}  # a site of the guide may depend on what the prior has below it
    found = {}
    for site in order[0]:
        q, p = guide.nodes[site], model.nodes[site]
        if not _same_mask(q["mask"], p["mask"]):
            continue
        with suppress(NotImplementedError):
            kl = kl_divergence(q["fn"], _as_family(_alike(p["fn"], q["fn"]), q["fn"]))
            found[site] = scale_and_mask(kl, mask=q["mask"]).expand(shape)
    return found


def _same_mask(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return one is other


def _alike(p: Any, q: Any) -> Any:
    """A prior of the batch shape that the guide has: draws are behind it already.

    Some closed forms of PyTorch's (Bernoulli, beta and uniform) do not broadcast.
    """
    return p if p.batch_shape == q.batch_shape else p.expand(q.batch_shape)


def _as_family(p: Any, q: Any) -> Any:
    """Independent normals as one multivariate normal, where they are compared with one."""
    base = innermost(p)
    if not isinstance(q, dist.MultivariateNormal) or not isinstance(base, dist.Normal):
        return p
    return dist.MultivariateNormal(base.loc, scale_tril=base.scale.diag_embed())


def concatenate(parts: list[Terms], dim: int) -> Terms:
    """Terms of some draws (``dim`` 0) or data points (``dim`` 1) at a time, as those of all."""
    tables = zip(*(part.tables() for part in parts), strict=True)
    return Terms(
        *({site: torch.cat([t[site] for t in table], dim) for site in table[0]} for table in tables)
    )
