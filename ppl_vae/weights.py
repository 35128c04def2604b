"""Log densities per site, draw and datum: the one file that reads them off Pyro traces."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from .errors import InputError
from .program import OBSERVED, Program, device_of, dtype_of, is_random, reading

# Elements of the largest tensor in flight, draws x data x widest layer: 64 MB in float32.
BLOCK_ELEMENTS = 2**24


@dataclass(frozen=True)
class Terms:
    """Log densities in nats, each of shape (S draws, N data), by the name of their site.

    Attributes:
        model: log p of every site of the model, the observed one included.
        guide: log q of every site of the guide.
    """

    model: dict[str, Tensor]
    guide: dict[str, Tensor]

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


def log_terms(
    program: Program,
    x: Tensor,
    draws: int = 1,
    seed: int = 0,
    on_block: Callable[[int], None] | None = None,
) -> Terms:
    """Draw from the guide and score the draws under model and guide.

    Work is split into blocks, so that memory beside the result does not grow with the number of
    draws and data: some 0.5 GB with MLPs, and more with convolutions, whose activations are wider
    than their weights show.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).
        draws: Number of draws S for each datum.
        seed: Seed of the draws.
        on_block: Called with the number of draws x data done, for progress bars.

    Returns:
        The log densities, on the CPU.

    Raises:
        InputError: If ``draws`` is less than 1.

    Example:
        >>> from ppl_vae.models import VAE
        >>> terms = log_terms(VAE((5,)), torch.ones(7, 5), draws=3)
        >>> terms.log_weight.shape
        torch.Size([3, 7])
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}")
    device = device_of(program)
    blocks = []
    layers = [parameter.shape[0] for parameter in program.parameters() if parameter.dim()]
    values = max([1, x[0].numel(), *layers])  # in the widest tensor, for each draw of a datum
    data_step = max(1, min(len(x), BLOCK_ELEMENTS // values))
    draw_step = max(1, min(draws, BLOCK_ELEMENTS // (values * data_step)))
    with reading(program, seed):
        for start in range(0, len(x), data_step):
            batch = x[start : start + data_step].to(device, dtype_of(program))
            rows = []
            for first in range(0, draws, draw_step):
                count = min(draw_step, draws - first)
                rows.append(_score(*trace_draws(program, batch, count), (count, len(batch))))
                if on_block is not None:
                    on_block(count * len(batch))
            blocks.append(_concatenate(rows, dim=0))
    return _concatenate(blocks, dim=1)


def trace_draws(program: Program, batch: Tensor, draws: int) -> tuple[Any, Any]:
    """Run guide and model once, inside a plate of ``draws`` at dim -2.

    Returns:
        The traces of guide and model; the batch shape of each site broadcasts to (draws, N).
    """
    with pyro.plate("_draws", draws, dim=-2):
        guide = poutine.trace(program.guide).get_trace(batch)
        model = poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(batch)
    return poutine.util.prune_subsample_sites(guide), poutine.util.prune_subsample_sites(model)


def latent_distributions(program: Program, x: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """The distributions of guide and prior at their latent sites, each in its own order.

    They are stripped of ``to_event`` and ``mask``; auxiliary sites of the guide are among them.
    """
    batch = x[:1].to(device_of(program), dtype_of(program))
    with reading(program, seed=0):
        traces = trace_draws(program, batch, 1)
    guide, prior = (
        {
            site: _innermost(node["fn"])
            for site, node in trace.nodes.items()
            if is_random(node) and site != OBSERVED
        }
        for trace in traces
    )
    return guide, prior


def is_point_mass(guide: dict[str, Any]) -> bool:
    """Whether a guide has no density: its ELBO is minus infinity, and no weight can be formed.

    A Delta alone has none. One that carries a density is the last step of a flow.
    """
    deltas = [q for q in guide.values() if isinstance(q, dist.Delta)]
    return any(not bool(delta.log_density.any()) for delta in deltas)


def _innermost(distribution: Any) -> Any:
    while isinstance(distribution, dist.Independent | MaskedDistribution | ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution


def _score(guide: Any, model: Any, shape: tuple[int, int]) -> Terms:
    tables = []
    for trace in (model, guide):
        # Masks are part of a density; what scales an objective is not.
        trace.compute_log_prob()
        tables.append(
            {
                site: scale_and_mask(node["unscaled_log_prob"], mask=node["mask"])
                .expand(shape)
                .cpu()
                for site, node in trace.nodes.items()
                if is_random(node)
            }
        )
    return Terms(*tables)


def _concatenate(parts: list[Terms], dim: int) -> Terms:
    def joined(table: str) -> dict[str, Tensor]:
        first = getattr(parts[0], table)
        return {site: torch.cat([getattr(p, table)[site] for p in parts], dim) for site in first}

    return Terms(joined("model"), joined("guide"))
