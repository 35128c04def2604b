"""Latent units: every number of every latent site, side by side."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ..errors import InputError
from ..programs.protocol import Program, device_of, dtype_of, evaluation_mode
from ..programs.sites import draw_latents, require_density_anywhere
from ..programs.terms import score_latents
from ..programs.weights import rows_at_once

# Variance over data of the guide's mean (Burda et al. 2015, section 5.2), in that of the prior.
ACTIVE = 0.01
PRIOR_DRAWS = 2000


def as_units(latents: Mapping[str, Tensor]) -> Tensor:
    """Sites side by side.

    Arguments:
        latents: Values by site, each of shape (S, N, *event shape).

    Returns:
        Values of shape (S, N, U), in double precision.

    Example:
        >>> as_units({"k": torch.zeros(3, 5), "z": torch.zeros(3, 5, 2)}).shape
        torch.Size([3, 5, 3])
    """
    return torch.cat([v.reshape(*v.shape[:2], -1).double() for v in latents.values()], dim=-1)


def unit_names(latents: Mapping[str, Tensor]) -> list[str]:
    """What the units of :func:`as_units` are called: ``z[0]``, ``z[1]``, ...

    Example:
        >>> unit_names({"k": torch.zeros(3, 5), "z": torch.zeros(3, 5, 2)})
        ['k', 'z[0]', 'z[1]']
    """
    names = []
    for site, value in latents.items():
        single = value.dim() == 2
        names += [site] if single else [f"{site}[{i}]" for i in range(value[0, 0].numel())]
    return names


def latent_sites(program: Program, x: Tensor) -> list[str]:
    """The names of the model's latent sites, in its own order."""
    with evaluation_mode(program, seed=0):
        return list(draw_latents(program, on_device(program, x[:1]), 1, "prior"))


def on_device(program: Program, x: Tensor) -> Tensor:
    """Data where the program is, of its type."""
    return x.to(device_of(program), dtype_of(program))


def guide_draws(program: Program, batch: Tensor, draws: int, sites: list[str]) -> dict[str, Tensor]:
    """Draws of the given latent sites from the guide, without auxiliary sites."""
    drawn = draw_latents(program, batch, draws, "guide")
    return {site: drawn[site] for site in sites}


def has_tractable_density(program: Program, x: Tensor) -> bool:
    """Whether the guide can say its density at values that it has not drawn."""
    try:
        require_density_anywhere(program, x)
    except InputError:
        return False
    return True


def in_blocks(
    program: Program, x: Tensor, draws: int, tick: Callable[[int], None] | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Some data at a time, so that all draws of each fit into memory; on the program's device."""
    size = max(1, rows_at_once(program, x) // draws)
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        yield rows, on_device(program, x[rows])
        if tick is not None:
            tick((rows.stop - rows.start) * draws)


def moments(program: Program, x: Tensor, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(z | x) for each datum and unit, from draws.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).
        draws: Draws S from the guide for each datum.
        seed: Seed of the draws.

    Returns:
        Two tensors of shape (N, U). The mean is off by the square root of variance / S.
    """
    sites = latent_sites(program, x)
    means, variances = [], []
    with evaluation_mode(program, seed):
        for _, batch in in_blocks(program, x, draws):
            values = as_units(guide_draws(program, batch, draws, sites)).cpu()
            means.append(values.mean(0))
            variances.append(values.var(0))
    return torch.cat(means), torch.cat(variances)


def prior_variance(program: Program, x: Tensor, seed: int) -> Tensor:
    """The variance of each unit under the prior, by draws, of shape (U,)."""
    with evaluation_mode(program, seed):
        drawn = draw_latents(program, on_device(program, x[:1]), PRIOR_DRAWS, "prior")
    return as_units(drawn).cpu()[:, 0].var(0)


def activity(mean: Tensor, variance: Tensor, draws: int, prior: Tensor) -> Tensor:
    """Var_x(E_q[z]) / Var(z) of each unit, of shape (U,), less what draws of the mean add.

    Arguments:
        mean: Means over draws, of shape (N, U).
        variance: Variances over draws, of the same shape.
        draws: Their number.
        prior: Variances of the prior, of shape (U,).
    """
    above_noise = (mean.var(0) - variance.mean(0) / draws).clamp(min=0)
    return above_noise / prior.clamp(min=torch.finfo(prior.dtype).tiny)


def guide_density(program: Program, batch: Tensor, latents: Mapping[str, Tensor]) -> Tensor:
    """log q of given latents of shape (S, N, ...), of shape (S, N)."""
    terms = score_latents(program, batch, dict(latents), with_guide=True, with_model=False)
    return torch.stack(list(terms.guide.values())).sum(0)
