"""Several guides for each data point, refined from dispersed starts, and weighed as one mixture."""

import math

import torch
from torch import Tensor

from ..programs.posterior import Posterior
from ..programs.scoring import rows_at_once
from ..programs.sites import Latents
from ..programs.terms import total
from ..progress import Progress
from ..runtime import derived_seed
from .own_family import Refined, refine_own_family
from .weights import take_draws

STARTS = 3  # the guide itself, and where the posterior has what the guide lacks
STEPS, RATE, STEP_DRAWS = 300, 0.1, 8
STEP_COST = 3 * STEP_DRAWS  # in runs of the model for one draw of one datum
TRIED = 1000  # draws of the prior among which to look for starts
SELECTION_DRAWS = 200  # to compare what the starts have come to
LOST = 10.0  # nats of ELBO below the best, where a mode has no share worth a draw
Z = 3.0  # standard errors by which another start must be better than the first


class Modes:
    """Guides for N data points, J for each, of which the first is the best.

    Arguments:
        posterior: The posterior under the refined guide, of J N data points: all N of the best
            start, then all N of the next, and so on.
        starts: J.
    """

    def __init__(self, posterior: Posterior, starts: int) -> None:
        self.posterior, self.starts = posterior, starts

    def log_weight(self, draws: int, seed: int, progress: Progress) -> tuple[Tensor, Tensor]:
        r"""Weigh draws of the best guide by itself, and those of all J against their mixture.

        .. math:: \log w = \log p(x, z) - \log \frac1J \sum_j q_j(z)

        Draws are as many from each. The weights' mean is p(x) (the balance heuristic; Veach &
        Guibas 1995), and a mode that one guide misses is weighed where another one draws it.

        Arguments:
            draws: Draws S from each.
            seed: Seed of the draws.
            progress: Told of each draw of each guide and data point.

        Returns:
            Log weights of shape (S, N) and (J S, N).
        """
        posterior, size = self.posterior, len(self.posterior) // self.starts
        step = max(1, rows_at_once(posterior.program, posterior.batch.x) // len(posterior))
        best, mixed = [], []
        with posterior.evaluation_mode(seed):
            for first in range(0, draws, step):
                count = min(step, draws - first)
                drawn = posterior.sample(count)
                terms = posterior.score(drawn)
                joint = (terms.reconstruction + total(terms.prior)).double()
                own = total(terms.guide).double()
                densities = [own, *(self._under(drawn, i, size) for i in range(1, self.starts))]
                mixture = torch.stack(densities).logsumexp(0) - math.log(self.starts)
                best.append((joint - own)[:, :size].cpu())
                weights = (joint - mixture).reshape(count, self.starts, size)
                mixed.append(weights.flatten(0, 1).cpu())
                progress.advance(count * len(posterior))
        return torch.cat(best), torch.cat(mixed)

    def _under(self, drawn: Latents, shift: int, size: int) -> Tensor:
        """log q of all draws, each under the guide of another start."""
        rolled = {site: z.roll(shift * size, dims=1) for site, z in drawn.items()}
        density = total(self.posterior.score(rolled, with_model=False).guide).double()
        return density.roll(-shift * size, dims=1)


def find_modes(posterior: Posterior, seed: int, progress: Progress, starts: int = STARTS) -> Modes:
    """Refine the guide of each data point from several starts, best first.

    The first start is the guide as it is. The others are draws of the prior, taken in proportion to
    max(p(z|x) - q(z|x), 0), what the posterior has beyond the guide, whose mass is their total
    variation. A start whose ELBO is 10 nats below the best is replaced by the best, and the guide
    itself takes the place of what it was refined to where that is worse.

    Arguments:
        posterior: The posterior of N data points, few enough to be refined at once.
        seed: Seed of everything random.
        progress: Told of each step of each data point, in runs of the model; see ``STEP_COST``.
        starts: How many, J.

    Raises:
        InputError: As :func:`ppl_vae.inference.own_family.refine_own_family` does.
    """
    size = len(posterior)
    several = posterior[torch.arange(size).repeat(starts)]
    places = None
    if starts > 1:
        chosen = beyond_the_guide(posterior, starts - 1, derived_seed(seed, "starts"))
        places = {
            site: torch.cat([torch.full_like(z[0], math.nan), *z.unbind(0)])
            for site, z in chosen.items()
        }
    steps = progress.part(size * starts * STEPS * STEP_COST)
    refining = derived_seed(seed, "refine")
    refined = refine_own_family(several, STEPS, RATE, STEP_DRAWS, refining, steps, places)
    _sort(refined, posterior, starts, derived_seed(seed, "selection"))
    return Modes(refined, starts)


def beyond_the_guide(posterior: Posterior, count: int, seed: int) -> Latents:
    """Draws of the prior where the guide lacks density, of shape (count, N, *event shape)."""
    parts: list[Latents] = []
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(TRIED):
            drawn = part.sample(TRIED, "prior")
            terms = part.score(drawn)
            likelihood = terms.reconstruction.double().nan_to_num(nan=-math.inf)
            ratio = likelihood.softmax(0) * TRIED  # p(z|x) / p(z)
            guide = (total(terms.guide) - total(terms.prior)).double().exp()
            lacking = (ratio - guide.nan_to_num(nan=0.0)).clamp(min=1e-20 * ratio + 1e-300)
            uniform = torch.rand_like(lacking).clamp(min=1e-300)
            # Without replacement: the largest log weights after Gumbel noise (Kool et al. 2019).
            best = (lacking.log() - (-uniform.log()).log()).topk(count, dim=0).indices
            parts.append({site: take_draws(z, best) for site, z in drawn.items()})
    return {site: torch.cat([p[site] for p in parts], dim=1) for site in parts[0]}


def _sort(refined: Posterior, posterior: Posterior, starts: int, seed: int) -> None:
    """Put the best start of each data point first, and replace what is worth nothing."""
    size, guide = len(posterior), refined.program
    assert isinstance(guide, Refined)
    found = _elbo(refined, seed).reshape(-1, starts, size)
    before = _elbo(posterior, derived_seed(seed, "before"))
    mean, error = found.mean(0), (found.var(0) / SELECTION_DRAWS).nan_to_num(nan=0.0)
    mean = mean.nan_to_num(nan=-math.inf)
    ahead = mean - mean[0] - Z * (error + error[0]).sqrt()
    ahead[0] = 0.0
    best = ahead.argmax(0)  # the first, unless another is better beyond chance
    top = mean.gather(0, best[None])[0]
    others = torch.arange(starts)[:, None].expand(starts, size).clone()
    others[0], others[best, torch.arange(size)] = best, 0
    lost = mean.gather(0, others) < top - LOST
    order = torch.where(lost, best, others)
    spoilt = (
        top - before.mean(0)
        < -Z * (error.gather(0, best[None])[0] + before.var(0) / SELECTION_DRAWS).sqrt()
    )
    place = (order * size + torch.arange(size)).flatten()
    kept = ~spoilt.repeat(starts)
    for offset in guide.offsets.values():
        moved = offset.data[place.to(offset.device)]
        mask = kept.to(offset.device).reshape(-1, *(1,) * (moved.dim() - 1))
        offset.data = torch.where(mask, moved, 0.0)


def _elbo(posterior: Posterior, seed: int) -> Tensor:
    """Log weights of shape (S, N), of all N at once, which may not be finite."""
    step = max(1, rows_at_once(posterior.program, posterior.batch.x) // len(posterior))
    parts = []
    with posterior.evaluation_mode(seed):
        for first in range(0, SELECTION_DRAWS, step):
            drawn = posterior.sample(min(step, SELECTION_DRAWS - first))
            parts.append(posterior.score(drawn).log_weight.double().cpu())
    return torch.cat(parts)
