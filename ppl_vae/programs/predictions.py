"""Data that a program generates: from the prior, from the guide, from given latents."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..data.batch import OBSERVED, Batch
from ..errors import InputError, check_int, check_shape, check_type, user_code_errors
from ..runtime import derived_seed
from ..storage.memory import refuse_beyond_memory
from .batches import check_batch
from .conformance import check_structure, refuse_other_shape
from .protocol import Program, device_of, dtype_of, evaluation_mode, is_random
from .scoring import rows_at_once
from .sites import Sites, as_template


@dataclass(frozen=True, repr=False)
class Prediction:
    r"""Latents and the data they give, N of each, on the CPU.

    Attributes:
        latents: A draw of every latent site, each of shape (N, \*event shape).
        latent_means: The mean of the distribution that each came from, where it has one.
        batch: Draws from p(x | z), with the covariates that they were drawn given; observed
            covariates are drawn too.
        mean: The mean of p(x | z), of shape (N, \*data_shape); the draw itself where it has none.
    """

    latents: dict[str, Tensor]
    latent_means: dict[str, Tensor]
    batch: Batch
    mean: Tensor

    @property
    def x(self) -> Tensor:
        r"""The draw from p(x | z), of shape (N, \*data_shape)."""
        return self.batch.x

    def __repr__(self) -> str:
        return f"Prediction({self.batch!r}, latents {', '.join(self.latents)})"


def prior_predictive(
    program: Program,
    data_shape: Sequence[int],
    size: int,
    seed: int = 0,
    covariates: Mapping[str, Tensor] | None = None,
) -> Prediction:
    r"""Draw z ~ p(z), then x ~ p(x | z), given covariates if the program takes any.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data_shape: Shape of one data point.
        size: Number of draws N.
        seed: Seed of the draws.
        covariates: What the program takes beside ``x``, one row a draw.

    Raises:
        InputError: If there is no memory for so many, or the covariates are not what it takes.

    Example:
        >>> from ppl_vae.models import VAE
        >>> prior_predictive(VAE((1, 8, 8)), (1, 8, 8), size=3).mean.shape
        torch.Size([3, 1, 8, 8])
    """
    return decode(program, {}, data_shape, size, seed, covariates)


def simulate(program: Program, batch: Batch, size: int, seed: int = 0) -> Prediction:
    """:func:`prior_predictive`, given the covariates of rows of real data.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        batch: The real data. All rows serve in turn, in random order, as often as it takes.
        size: Number of draws N.
        seed: Seed of the draws, and of the rows.
    """
    covariates: dict[str, Tensor] = {}
    if batch.covariates:
        covariates = rows_in_turn(as_template(program, batch), size, seed).covariates
    return prior_predictive(program, batch.x.shape[1:], size, seed, covariates)


def rows_in_turn(batch: Batch, size: int, seed: int) -> Batch:
    """So many rows of real data: all in turn, in random order, as often as it takes."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "rows"))
    rounds = -(-check_int("size", size) // batch.size)
    orders = [torch.randperm(batch.size, generator=generator) for _ in range(rounds)]
    return batch.rows(torch.cat(orders)[:size])


def decode(
    program: Program,
    latents: dict[str, Tensor],
    data_shape: Sequence[int],
    size: int,
    seed: int = 0,
    covariates: Mapping[str, Tensor] | None = None,
) -> Prediction:
    r"""Draw x ~ p(x | z) for given latents; sites that are not given come from the model.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        latents: A value for any of the latent sites, each of shape (N, \*event shape).
        data_shape: Shape of one data point.
        size: Number of data points N.
        seed: Seed of the draws.
        covariates: What the program takes beside ``x``, one row a data point.

    Raises:
        InputError: If there is no memory for so many, or latents or covariates are not what the
            program takes.
    """
    size, data_shape = check_int("size", size), check_shape(data_shape)
    # Draws and means, in parts and put together.
    taken = 4 * size * math.prod(data_shape) * torch.get_default_dtype().itemsize
    refuse_beyond_memory(taken, f"{size} draws of the data", "take fewer")
    placeholder = torch.zeros(1, *data_shape).expand(size, *data_shape)
    batch = check_batch(program, {OBSERVED: placeholder, **(covariates or {})})
    _check_latents(program, latents, batch)
    device, dtype = device_of(program), dtype_of(program)
    given = {
        site: value.to(device, dtype if value.is_floating_point() else None)
        for site, value in latents.items()
    }
    parts = []
    step = rows_at_once(program, batch.x)
    with user_code_errors(program, data_shape), evaluation_mode(program, seed):
        for first in range(0, size, step):
            rows = slice(first, first + step)
            part = {site: value[rows] for site, value in given.items()}
            model = poutine.condition(poutine.uncondition(program.model), data=part)
            placed = batch.rows(rows).to(device, dtype)
            parts.append(_read(placed.call(poutine.trace(model).get_trace), placed))
            refuse_other_shape(program, OBSERVED, data_shape, parts[-1].batch.x.shape[1:])
    return _joined(parts)


def posterior_predictive(
    program: Program, data: Tensor | Mapping[str, Tensor], seed: int = 0
) -> Prediction:
    r"""Draw z ~ q(z | x), then a new x ~ p(x | z): its mean is the reconstruction.

    Arguments:
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, \*data_shape), or a batch of ``x`` and covariates.
        seed: Seed of the draws.
    """
    batch = check_structure(program, data)
    parts = []
    with user_code_errors(program, batch.x.shape[1:]), evaluation_mode(program, seed):
        for part in batch.split(rows_at_once(program, batch.x)):
            placed = part.to(device_of(program), dtype_of(program))
            guide = placed.call(poutine.trace(program.guide).get_trace)
            model = poutine.replay(poutine.uncondition(program.model), trace=guide)
            prediction = _read(placed.call(poutine.trace(model).get_trace), placed)
            means = {site: _mean(guide.nodes[site]) for site in prediction.latents}
            parts.append(replace(prediction, latent_means=means))
    return _joined(parts)


def _check_latents(program: Program, latents: Any, batch: Batch) -> None:
    """Refuse latents that are not values of the program's sites."""
    check_type("latents", latents, dict)
    known = Sites.of(program, batch).prior if latents else {}
    for site, value in latents.items():
        check_type(f"the latent {site!r}", value, Tensor)
        if site not in known:
            raise InputError(
                f"latent {site!r}", "is not a site of the model", f"choose from {', '.join(known)}"
            )
        if not value.dim() or len(value) != batch.size:
            raise InputError(
                f"latent {site!r}",
                f"has shape {tuple(value.shape)}, but {batch.size} values are expected",
            )


def _read(model: Any, batch: Batch) -> Prediction:
    nodes: dict[str, Any] = {site: node for site, node in model.nodes.items() if is_random(node)}
    observed = {site: nodes.pop(site)["value"] for site in batch if site in nodes}
    likelihood = model.nodes[OBSERVED]
    drawn = {n: observed.get(n, tensor).cpu().to(tensor.dtype) for n, tensor in batch.items()}
    return Prediction(
        latents={site: node["value"].cpu() for site, node in nodes.items()},
        latent_means={site: _mean(node) for site, node in nodes.items()},
        batch=Batch(drawn),
        mean=_mean(likelihood),
    )


def _joined(parts: list[Prediction]) -> Prediction:
    if len(parts) == 1:
        return parts[0]

    def together(table: str) -> dict[str, Tensor]:
        first = getattr(parts[0], table)
        return {name: torch.cat([getattr(part, table)[name] for part in parts]) for name in first}

    return Prediction(
        latents=together("latents"),
        latent_means=together("latent_means"),
        batch=Batch(together("batch")),
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
