"""Log densities per site, draw and datum, read off Pyro traces; and means of weights."""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..choices import Engine
from ..compiled.engine import DENSITY, Compiled, worth_compiling
from ..errors import check_int, user_code_errors
from ..storage.memory import refuse_beyond_memory
from .conformance import check_program, require_data, require_program
from .protocol import Program, device_of, dtype_of, evaluation_mode
from .sites import require_density, trace_draws
from .terms import (
    Terms,
    concatenate,
    refuse_infinite,
    score_traces,
)

Key = TypeVar("Key")

# Elements of the largest tensor in flight, draws x data x widest layer: 32 MB in float32.
BLOCK_ELEMENTS = 2**23
DRAW_BYTES = 32  # of one draw of one datum: log p(x|z), log p(z), log q(z|x) and their sum


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
    with user_code_errors(program, x.shape[1:]), evaluation_mode(program, seed):
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
    with evaluation_mode(program, seed):
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


def _blocks(
    program: Program,
    x: Tensor,
    draws: int,
    on_block: Callable[[int], None] | None,
    analytic: bool,
) -> Iterator[tuple[int, Terms]]:
    """All draws of some data at a time, with the index of the first datum."""
    draws = check_int("draws", draws)
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
    compiles = worth_compiling(blocks, rows * x[0].numel(), DENSITY)
    engine: Engine = "compiled" if compiles else "eager"
    return Compiled(scored, engine, [program], type(program).__name__)
