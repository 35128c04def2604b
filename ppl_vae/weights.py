"""Log densities per site, draw and datum, read off Pyro traces; and means of weights."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from .engine import DENSITY, Compiled, Engine, pays
from .errors import InputError, running, whole
from .memory import refuse_beyond_memory
from .program import (
    OBSERVED,
    Program,
    check_program,
    device_of,
    dtype_of,
    innermost,
    is_random,
    reading,
    require_data,
    require_program,
)
from .sites import require_density, trace_draws

Key = TypeVar("Key")

# Elements of the largest tensor in flight, draws x data x widest layer: 32 MB in float32.
BLOCK_ELEMENTS = 2**23
DRAW_BYTES = 32  # of one draw of one datum: log p(x|z), log p(z), log q(z|x) and their sum


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


def log_weights(
    program: Program,
    x: Tensor,
    draws: int = 100,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
) -> Tensor:
    r"""Draw from the guide and weigh the draws, datum by datum.

    .. math:: \log w_{sn} = \log p(x_n, z_{sn}) - \log q(z_{sn} \mid x_n), \quad z_{sn} \sim q

    Memory beside the result is that of :func:`log_terms`.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, \*data_shape).
        draws: Number of draws S for each datum.
        seed: Seed of the draws.
        on_block: Called with the number of draws x data done, for progress bars.

    Returns:
        The log weights in nats, of shape (S, N), on the CPU. Their mean over draws estimates the
        ELBO, their log-mean-exp log p(x).

    Raises:
        InputError: If ``draws`` is less than 1, the program does not conform, the data lie outside
            its likelihood's support, the guide is a point mass, or a weight is not finite.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(7, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> weights = log_weights(ppca, x, draws=3)
        >>> torch.allclose(weights, ppca.evidence(x).expand(3, 7))  # whatever the draw
        True
    """
    check_program(program, x)
    require_density(program, x)
    return reduce_terms(program, x, lambda terms: {"": terms.log_weight.T}, draws, seed, on_block)[
        ""
    ].T


def log_terms(
    program: Program,
    x: Tensor,
    draws: int = 1,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
    analytic: bool = False,
) -> Terms:
    """Draw from the guide and score the draws under model and guide, site by site.

    Work is split into blocks, so that memory beside the result does not grow with the number of
    draws and data: some 0.3 GB with MLPs, and more with convolutions, whose activations are wider
    than their weights show. All draws of one datum are held at once.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).
        draws: Number of draws S for each datum.
        seed: Seed of the draws.
        on_block: Called with the number of draws x data done, for progress bars.
        analytic: Whether the KL of each latent site is computed in closed form too.

    Returns:
        The log densities, on the CPU.

    Raises:
        InputError: If ``draws`` is less than 1, or the program does not run on the data.

    Example:
        >>> from ppl_vae.models import VAE
        >>> terms = log_terms(VAE((5,)), torch.ones(7, 5), draws=3)
        >>> terms.log_weight.shape
        torch.Size([3, 7])
    """
    require_program(program)
    require_data(x)
    with running(program, x.shape[1:]), reading(program, seed):
        blocks = [terms for _, terms in _blocks(program, x, draws, on_block, analytic)]
    return concatenate(blocks, dim=1)


def reduce_terms(
    program: Program,
    x: Tensor,
    reduce: Callable[[Terms], dict[Key, Tensor]],
    draws: int,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
    analytic: bool = False,
) -> dict[Key, Tensor]:
    """Reduce the terms of each datum as soon as they are known, so that they need not be held.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).
        reduce: From the terms of S draws for n of the data to tensors whose first dimension is n.
        draws: Number of draws S for each datum.
        seed: Seed of the draws.
        on_block: Called with the number of draws x data done, for progress bars.
        analytic: Whether the terms hold the KL of each latent site in closed form.

    Returns:
        What ``reduce`` returned, put together for all N data.

    Raises:
        InputError: If ``draws`` is less than 1, or a log density is not finite.
    """
    found: dict[Key, Tensor] = {}
    with reading(program, seed):
        for first, terms in _blocks(program, x, draws, on_block, analytic):
            refuse_infinite(terms, first)
            for name, values in reduce(terms).items():
                # Written into one tensor: thousands of small ones that stay would lie between the
                # large ones that come and go, and the heap would grow with the number of data.
                if name not in found:
                    taken = len(x) * values[0].numel() * values.itemsize
                    refuse_beyond_memory(taken, f"{len(x)} data x {draws} draws", "take fewer")
                    found[name] = values.new_empty(len(x), *values.shape[1:])
                found[name][first : first + len(values)] = values
    return found


def log_mean(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """The logarithm of the mean weight of each datum, and its standard error.

    Arguments:
        log_weight: Of shape (S, N).

    Returns:
        Two tensors of shape (N,), in double precision. The error is the delta method's, the
        spread of the weights relative to their mean; NaN for a single draw.
    """
    log_weight = log_weight.double()
    count = len(log_weight)
    mean = log_weight.logsumexp(0) - math.log(count)
    if count == 1:
        return mean, torch.full_like(mean, math.nan)
    return mean, ((log_weight - mean).exp().var(0) / count).sqrt()


def rows_at_once(program: Program, x: Tensor) -> int:
    """How many draws x data may be in flight, by the width of the widest layer."""
    layers = [parameter.shape[0] for parameter in program.parameters() if parameter.dim()]
    return max(1, BLOCK_ELEMENTS // max([1, x[0].numel(), *layers]))


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
        guide: The guide's trace, as :func:`ppl_vae.sites.trace_draws` gives it.
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


def _blocks(
    program: Program,
    x: Tensor,
    draws: int,
    on_block: Callable[[int], None] | None,
    analytic: bool,
) -> Iterator[tuple[int, Terms]]:
    """All draws of some data at a time, with the index of the first datum."""
    draws = whole("draws", draws)
    refuse_beyond_memory(draws * DRAW_BYTES, f"draws={draws} for each datum", "take fewer")
    rows = rows_at_once(program, x)
    data_step = max(1, rows // draws)
    scored = _scoring(program, x, draws, min(rows, draws * data_step), analytic)
    for start in range(0, len(x), data_step):
        batch = x[start : start + data_step].to(device_of(program), dtype_of(program))
        parts = []
        for first in range(0, draws, rows):
            count = min(rows, draws - first)
            parts.append(Terms(*scored(batch, count)).cpu())
            if on_block is not None:
                on_block(count * len(batch))
        yield start, concatenate(parts, dim=0)


def _scoring(program: Program, x: Tensor, draws: int, rows: int, analytic: bool) -> Compiled:
    """What scores a block, compiled if there are many of them."""

    def scored(batch: Tensor, count: int) -> Any:
        terms = score_traces(*trace_draws(program, batch, count), (count, len(batch)), analytic)
        return terms.model, terms.guide, terms.analytic_kl

    blocks = len(x) * draws // rows
    engine: Engine = "compiled" if pays(blocks, rows * x[0].numel(), DENSITY) else "eager"
    return Compiled(scored, engine, [program], type(program).__name__)


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
