"""Data that a program generates: from the prior, from the guide, from given latents."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..errors import InputError, check_int, check_shape, check_type, user_code_errors
from ..storage.memory import refuse_beyond_memory
from .conformance import check_structure, require_program
from .protocol import OBSERVED, Program, device_of, dtype_of, evaluation_mode, is_random
from .sites import latent_distributions
from .weights import rows_at_once


@dataclass(frozen=True)
class Prediction:
    r"""Latents and the data they give, N of each, on the CPU.

    Attributes:
        latents: A draw of every latent site, each of shape (N, \*event shape).
        latent_means: The mean of the distribution that each came from, where it has one.
        x: A draw from p(x | z), of shape (N, \*data_shape).
        mean: The mean of p(x | z), of the same shape; the draw itself where it has none.
    """

    latents: dict[str, Tensor]
    latent_means: dict[str, Tensor]
    x: Tensor
    mean: Tensor


def prior_predictive(
    program: Program, data_shape: Sequence[int], size: int, seed: int = 0
) -> Prediction:
    r"""Draw z ~ p(z), then x ~ p(x | z).

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data_shape: Shape of one datum.
        size: Number of draws N.
        seed: Seed of the draws.

    Raises:
        InputError: If there is no memory for so many.

    Example:
        >>> from ppl_vae.models import VAE
        >>> prior_predictive(VAE((1, 8, 8)), (1, 8, 8), size=3).mean.shape
        torch.Size([3, 1, 8, 8])
    """
    return decode(program, {}, data_shape, size, seed)


def decode(
    program: Program,
    latents: dict[str, Tensor],
    data_shape: Sequence[int],
    size: int,
    seed: int = 0,
) -> Prediction:
    r"""Draw x ~ p(x | z) for given latents; sites that are not given come from the model.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        latents: A value for any of the latent sites, each of shape (N, \*event shape).
        data_shape: Shape of one datum.
        size: Number of data N.
        seed: Seed of the draws.

    Raises:
        InputError: If there is no memory for so many.
    """
    require_program(program)
    size, data_shape = check_int("size", size), check_shape(data_shape)
    device, dtype = device_of(program), dtype_of(program)
    # Draws and means, in parts and put together.
    taken = 4 * size * math.prod(data_shape) * dtype.itemsize
    refuse_beyond_memory(taken, f"{size} draws of the data", "take fewer")
    placeholder = torch.zeros(1, *data_shape, device=device, dtype=dtype)
    _check_latents(program, latents, placeholder, size)
    given = {
        site: value.to(device, dtype if value.is_floating_point() else None)
        for site, value in latents.items()
    }
    parts = []
    step = rows_at_once(program, placeholder)
    with user_code_errors(program, data_shape), evaluation_mode(program, seed):
        for first in range(0, size, step):
            part = {site: value[first : first + step] for site, value in given.items()}
            model = poutine.condition(poutine.uncondition(program.model), data=part)
            count = min(step, size - first)
            batch = placeholder.expand(count, *placeholder.shape[1:])
            parts.append(_read(poutine.trace(model).get_trace(batch)))
    return _joined(parts)


def posterior_predictive(program: Program, x: Tensor, seed: int = 0) -> Prediction:
    r"""Draw z ~ q(z | x), then a new x ~ p(x | z): its mean is the reconstruction.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, \*data_shape).
        seed: Seed of the draws.
    """
    check_structure(program, x)
    parts = []
    with user_code_errors(program, x.shape[1:]), evaluation_mode(program, seed):
        for part in x.split(rows_at_once(program, x)):
            batch = part.to(device_of(program), dtype_of(program))
            guide = poutine.trace(program.guide).get_trace(batch)
            model = poutine.replay(poutine.uncondition(program.model), trace=guide)
            prediction = _read(poutine.trace(model).get_trace(batch))
            means = {site: _mean(guide.nodes[site]) for site in prediction.latents}
            parts.append(replace(prediction, latent_means=means))
    return _joined(parts)


def _check_latents(program: Program, latents: Any, placeholder: Tensor, size: int) -> None:
    """Refuse latents that are no values of the program's sites."""
    check_type("latents", latents, dict)
    if latents:
        known = latent_distributions(program, placeholder)[1]
    for site, value in latents.items():
        check_type(f"the latent {site!r}", value, Tensor)
        if site not in known:
            raise InputError(f"there is no latent site {site!r}: choose from {', '.join(known)}")
        if not value.dim() or len(value) != size:
            raise InputError(
                f"latent {site!r} has shape {tuple(value.shape)}: expected {size} values"
            )


def _read(model: Any) -> Prediction:
    nodes: dict[str, Any] = {site: node for site, node in model.nodes.items() if is_random(node)}
    likelihood = nodes.pop(OBSERVED)
    return Prediction(
        latents={site: node["value"].cpu() for site, node in nodes.items()},
        latent_means={site: _mean(node) for site, node in nodes.items()},
        x=likelihood["value"].cpu(),
        mean=_mean(likelihood),
    )


def _joined(parts: list[Prediction]) -> Prediction:
    if len(parts) == 1:
        return parts[0]

    def sites(table: str) -> dict[str, Tensor]:
        first = getattr(parts[0], table)
        return {site: torch.cat([getattr(part, table)[site] for part in parts]) for site in first}

    return Prediction(
        latents=sites("latents"),
        latent_means=sites("latent_means"),
        x=torch.cat([part.x for part in parts]),
        mean=torch.cat([part.mean for part in parts]),
    )


def _mean(node: Any) -> Tensor:
    try:
        mean = node["fn"].mean.expand(node["value"].shape)
    except NotImplementedError:
        return node["value"].cpu()
    # Of those that have no mean, some raise, and some return NaN.
    mean = mean.detach()  # it may be a parameter itself
    return mean.cpu() if mean.isfinite().all() else node["value"].cpu()
