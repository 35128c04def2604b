"""All that is known of some data: draws from the guide, and annealing where it is asked for."""

from typing import get_args

from ..choices import Estimator
from ..data.batch import Batch
from ..errors import InputError, check_int
from ..programs.batches import check_batch
from ..programs.conformance import check_structure
from ..programs.posterior import Data, Posterior
from ..programs.predictions import prior_predictive
from ..programs.protocol import Program
from ..progress import OnProgress, Progress
from ..runtime import derived_seed
from .annealing import Annealing, anneal_both_ways, anneal_posterior, transitions
from .scores import Scores, add_bits, score_posterior

DATA_POINTS: dict[Estimator, int] = {"ais": 100, "bdmc": 50}
"""How many data points the costly ones take if nothing is said; the others take all."""


def estimate(
    estimator: Estimator,
    program: Program,
    data: Data,
    draws: int = 100,
    annealing: Annealing | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[Batch, Scores]:
    """Score data by draws from the guide, and bound their log p(x) by annealing.

    To what :func:`ppl_vae.score` finds, ``"ais"`` adds ``ais_bound``, a lower bound that the guide
    has no part in, and ``acceptance``, which tells whether chains moved; ``kl_to_posterior`` and
    ``bits_per_dim`` then come from the lower bound that is the tighter one on average. ``"bdmc"``
    does so for as many data points drawn from the model as there are, given their covariates, and
    adds ``upper_bound``, their ``gap``, and ``kl_to_posterior_upper``.

    Arguments:
        estimator: ``"iw"``, ``"ais"`` or ``"bdmc"``.
        program: The program; see :class:`ppl_vae.Program`.
        data: ``x`` of shape (N, *data_shape), or a batch of ``x`` and covariates.
        draws: Draws S from the guide for each data point.
        annealing: How to anneal.
        seed: Seed of everything random.
        on_progress: Told of the share of the work that has been done; see ``ppl_vae.progress``.

    Returns:
        The data that were scored, and their scores.

    Raises:
        InputError: As :func:`ppl_vae.score` and :func:`ppl_vae.anneal` do; and for a guide that is
            a point mass, unless the estimator is ``"iw"``.

    Example:
        >>> import torch
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(10, 5, dtype=torch.float64)
        >>> batch, scores = estimate("bdmc", ppca, x, annealing=Annealing(temperatures=20))
        >>> "gap" in scores.estimates()
        True
    """
    if estimator not in get_args(Estimator):
        raise InputError("estimator", f"must be one of {get_args(Estimator)}, got {estimator!r}")
    annealing, draws = annealing or Annealing(), check_int("draws", draws)
    batch, latents = check_batch(program, data), {}
    if estimator == "bdmc":
        check_structure(program, batch.rows(slice(1)))
        shape, of_data = batch.x.shape[1:], derived_seed(seed, "simulated data")
        drawn = prior_predictive(program, shape, batch.size, of_data, batch.covariates)
        batch, latents = drawn.batch, drawn.latents
    posterior = Posterior(program, batch)
    progress = Progress(on_progress, work(estimator, batch.size, draws, annealing))
    if estimator == "iw":
        return batch, score_posterior(posterior, draws, seed, progress)
    moves = transitions(batch.size, annealing, both_ways=estimator == "bdmc")
    moved = progress.part(moves * _transition_cost(annealing), total=max(1, moves))
    reverse = None
    if estimator == "ais":
        forward = anneal_posterior(posterior, annealing, seed, moved)
    else:
        forward, reverse = anneal_both_ways(posterior, latents, annealing, seed, moved)
    scores = score_posterior(posterior, draws, seed, progress)
    found = scores.per_datum
    found["ais_bound"], found["ais_error"] = forward.bound, forward.error
    found["acceptance"] = forward.acceptance
    # One choice for all data: the larger of two noisy bounds, point by point, would not be one.
    tighter = max("ais_bound", "iw_bound", key=lambda name: found[name].mean().item())
    found["kl_to_posterior"] = found[tighter] - found["elbo"]
    add_bits(found, tighter, posterior)
    if reverse is not None:
        found["upper_bound"], found["upper_error"] = -reverse.bound, reverse.error
        found["gap"] = found["upper_bound"] - found["ais_bound"]
        found["kl_to_posterior_upper"] = found["upper_bound"] - found["elbo"]
    return batch, scores


def work(estimator: Estimator, size: int, draws: int, annealing: Annealing) -> int:
    """What an estimate takes in all, in runs of the model for one draw of one datum."""
    if estimator == "iw":
        return size * draws
    moves = transitions(size, annealing, both_ways=estimator == "bdmc")
    return size * draws + moves * _transition_cost(annealing)


def _transition_cost(annealing: Annealing) -> int:
    # A gradient costs twice what the density does, and the density itself is needed too.
    return 3 * (annealing.leapfrog_steps + 1) + 1
