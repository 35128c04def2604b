"""All that is known of some data: draws from the guide, and annealing where it is asked for."""

from typing import get_args

import torch
from torch import Tensor

from ..choices import Estimator
from ..data.batch import Batch
from ..errors import InputError, check_int
from ..evidence.annealing import Annealing, anneal_both_ways, anneal_posterior, transitions
from ..evidence.scores import Scores, add_bits, score_posterior
from ..programs.batches import check_batch
from ..programs.conformance import check_structure
from ..programs.posterior import Data, Posterior
from ..programs.predictions import prior_predictive
from ..programs.protocol import Program
from ..programs.scoring import log_mean
from ..programs.terms import Terms
from ..progress import OnProgress, Progress
from ..runtime import derived_seed
from ..storage.arviz_io import pareto_k
from .refine import STEP_DRAWS, STEPS, refine

REFINING = 3 * STEP_DRAWS * STEPS  # runs of the model for one draw

DATA_POINTS: dict[Estimator, int] = {"refined": 1000, "ais": 100, "bdmc": 50}
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

    To what :func:`ppl_vae.score` finds, ``"refined"`` adds ``refined_bound``, the
    importance-weighted bound of as many draws from guides of full covariance, refined for each data
    point (see :meth:`ppl_vae.Posterior.refine`), and ``k_hat`` of its weights; ``kl_to_posterior``
    and ``bits_per_dim`` then come from that bound. ``"ais"`` adds ``ais_bound``, a lower bound that
    the guide has no part in, and ``acceptance``, which tells whether chains moved; the two then
    come from the lower bound that is the tighter one on average. ``"bdmc"`` does so for as many
    data points drawn from the model as there are, given their covariates, and adds
    ``upper_bound``, their ``gap``, and ``kl_to_posterior_upper``.

    Arguments:
        estimator: ``"iw"``, ``"refined"``, ``"ais"`` or ``"bdmc"``.
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
    if estimator in ("iw", "refined"):
        scores = score_posterior(posterior, draws, seed, progress)
        if estimator == "refined":
            _add_refined(scores.per_datum, posterior, draws, seed, progress)
        return batch, conclude(scores, program, batch)
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
    if reverse is not None:
        found["upper_bound"], found["upper_error"] = -reverse.bound, reverse.error
        found["gap"] = found["upper_bound"] - found["ais_bound"]
        found["kl_to_posterior_upper"] = found["upper_bound"] - found["elbo"]
    return batch, conclude(scores, program, batch)


def conclude(scores: Scores, program: Program, batch: Batch) -> Scores:
    """Scores with what follows from the tightest bound on log p(x) among them.

    It is chosen once for all data: the larger of two noisy bounds, point by point, would not be
    one. Scores that were found in parts, and joined, are concluded again.
    """
    found = scores.per_datum
    if "refined_bound" in found:
        tightest = "refined_bound"
    elif "ais_bound" in found:
        tightest = max("ais_bound", "iw_bound", key=lambda name: found[name].mean().item())
    else:
        return scores
    found["kl_to_posterior"] = found[tightest] - found["elbo"]
    add_bits(found, tightest, Posterior(program, batch))
    return scores


def _add_refined(
    found: dict[str, Tensor], posterior: Posterior, draws: int, seed: int, progress: Progress
) -> None:
    """The bound of draws from refined guides, with what follows from it."""
    refined = refine(
        posterior,
        seed=derived_seed(seed, "refined"),
        progress=progress.part(len(posterior) * REFINING),
    )

    def weigh(terms: Terms) -> dict[str, Tensor]:
        log_weight = terms.log_weight.double()
        bound, error = log_mean(log_weight)
        k_hat = torch.as_tensor(pareto_k(log_weight.T.numpy())[0])
        return {"refined_bound": bound, "refined_error": error, "k_hat": k_hat}

    found |= refined.reduce(weigh, draws, derived_seed(seed, "draws of refined guides"), progress)


def work(estimator: Estimator, size: int, draws: int, annealing: Annealing) -> int:
    """What an estimate takes in all, in runs of the model for one draw of one datum."""
    if estimator == "iw":
        return size * draws
    if estimator == "refined":
        return size * (2 * draws + REFINING)
    moves = transitions(size, annealing, both_ways=estimator == "bdmc")
    return size * draws + moves * _transition_cost(annealing)


def _transition_cost(annealing: Annealing) -> int:
    # A gradient costs twice what the density does, and the density itself is needed too.
    return 3 * (annealing.leapfrog_steps + 1) + 1
