"""Latent units: every number of every latent site, side by side."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..programs.posterior import Posterior

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


def moments(posterior: Posterior, draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of q(z | x) for each data point and unit, from draws.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws S from the guide for each data point.
        seed: Seed of the draws.

    Returns:
        Two tensors of shape (N, U). The mean is off by the square root of variance / S.
    """
    means, variances = [], []
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(draws):
            values = as_units(part.sample(draws)).cpu()
            means.append(values.mean(0))
            variances.append(values.var(0))
    return torch.cat(means), torch.cat(variances)


def prior_variance(posterior: Posterior, seed: int) -> Tensor:
    """The variance of each unit under the prior, by draws, of shape (U,)."""
    return as_units(posterior[:1].draw(PRIOR_DRAWS, seed, "prior"))[:, 0].var(0)


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
