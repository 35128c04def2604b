"""The whole chain for some data: draws from the guide, and annealing where that is asked for."""

from collections.abc import Callable
from typing import get_args

from torch import Tensor

from ..choices import Estimator
from ..errors import InputError, check_int
from ..programs.protocol import Program
from .annealing import Annealing, anneal, bidirectional, transitions
from .scores import Scores, add_bits, score

DATA_POINTS: dict[Estimator, int] = {"ais": 100, "bdmc": 50}
"""How many data the costly ones take if nothing is said; the others take all."""


def estimate(
    estimator: Estimator,
    program: Program,
    x: Tensor,
    draws: int = 100,
    annealing: Annealing | None = None,
    seed: int = 0,
    on_work: Callable[[int], None] | None = None,
) -> tuple[Tensor, Scores]:
    """Score data by draws from the guide, and bound their log p(x) by annealing.

    To what :func:`ppl_vae.score` finds, ``"ais"`` adds ``ais_bound``, a lower bound that the guide
    has no part in, and ``acceptance``, which tells whether chains moved; ``kl_to_posterior`` and
    ``bits_per_dim`` then come from the lower bound that is the tighter one on average. ``"bdmc"``
    does so for as many data drawn from the model as ``x`` has, and adds ``upper_bound``, their
    ``gap``, and ``kl_to_posterior_upper``.

    Arguments:
        estimator: ``"iw"``, ``"ais"`` or ``"bdmc"``.
        program: The program; see :class:`ppl_vae.Program`.
        x: Data of shape (N, *data_shape).
        draws: Draws S from the guide for each datum.
        annealing: How to anneal.
        seed: Seed of everything random.
        on_work: Called with the work done, in the unit of :func:`work`.

    Returns:
        The data that were scored, and their scores.

    Raises:
        InputError: As :func:`ppl_vae.score` and :func:`ppl_vae.anneal` do; and for a guide that is
            a point mass, unless the estimator is ``"iw"``.

    Example:
        >>> import torch
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(10, 5, dtype=torch.float64)
        >>> x, scores = estimate("bdmc", ppca, x, annealing=Annealing(temperatures=20))
        >>> "gap" in scores.estimates()
        True
    """
    if estimator not in get_args(Estimator):
        raise InputError(f"estimator must be one of {get_args(Estimator)}, got {estimator!r}")
    annealing = annealing or Annealing()
    on_work = on_work or (lambda done: None)
    if estimator == "iw":
        return x, score(program, x, draws, seed, on_work)
    draws = check_int("draws", draws)
    cost = _transition_cost(annealing)

    def on_block(done: int) -> None:
        on_work(done * cost)

    if estimator == "ais":
        forward, reverse = anneal(program, x, annealing, seed, on_block), None
    else:
        shape = tuple(x.shape[1:])
        x, forward, reverse = bidirectional(program, shape, len(x), annealing, seed, on_block)
    scores = score(program, x, draws, seed, on_work)
    chain = scores.chain
    chain["ais_bound"], chain["ais_error"] = forward.bound, forward.error
    chain["acceptance"] = forward.acceptance
    # One choice for all data: the larger of two noisy bounds, datum by datum, would be none.
    tighter = max("ais_bound", "iw_bound", key=lambda name: chain[name].mean().item())
    chain["kl_to_posterior"] = chain[tighter] - chain["elbo"]
    add_bits(chain, tighter, program, x)
    if reverse is not None:
        chain["upper_bound"], chain["upper_error"] = -reverse.bound, reverse.error
        chain["gap"] = chain["upper_bound"] - chain["ais_bound"]
        chain["kl_to_posterior_upper"] = chain["upper_bound"] - chain["elbo"]
    return x, scores


def work(estimator: Estimator, size: int, draws: int, annealing: Annealing) -> int:
    """What an estimate takes in all, in runs of the model for one draw of one datum."""
    if estimator == "iw":
        return size * draws
    moves = transitions(size, annealing, both_ways=estimator == "bdmc")
    return size * draws + moves * _transition_cost(annealing)


def _transition_cost(annealing: Annealing) -> int:
    # A gradient costs twice what the density does, and the density itself is needed too.
    return 3 * (annealing.leapfrog_steps + 1) + 1
