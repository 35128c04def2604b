"""Weighted draws: a guide's, and a few of the prior's that show what it misses."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..programs.per_datum import JointGaussian
from ..programs.posterior import Posterior
from ..programs.scoring import log_mean
from ..programs.sites import Latents
from ..programs.terms import score_traces, total
from ..progress import Progress
from ..storage.arviz_io import LIGHT, pareto_k_threshold, smooth_weights

DEFENSIVE = 0.2  # draws of each other distribution, for each one of the guide's
WIDER = 2.0  # times the scale of a refined guide


@dataclass(frozen=True)
class Weighted:
    """Weighted draws that stand for the posterior of N data points.

    Attributes:
        latents: Of shape (S, N, *event shape) by site, on the CPU.
        log_weight: As they were found, of shape (S, N), in nats; their mean estimates p(x).
        smoothed: Normalized log weights with a smoothed tail, of shape (S, N).
        k_hat, ess: Pareto k-hat and effective sample size, of shape (N,) (Vehtari et al. 2024).
        counts: How many draws are the guide's, the guide's at twice its scale, and the prior's;
            none, if they have no density that is known at other values.
    """

    latents: Latents
    log_weight: Tensor
    smoothed: Tensor
    k_hat: Tensor
    ess: Tensor
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, latents: Latents, log_weight: Tensor, counts: tuple[int, ...] = ()) -> "Weighted":
        """Draws with their weights, smoothed."""
        smoothed, k_hat, ess = smooth_weights(log_weight.double().T.numpy())
        of_draws = torch.as_tensor(np.ascontiguousarray(smoothed.T))
        statistics = torch.as_tensor(k_hat), torch.as_tensor(ess)
        return cls(latents, log_weight, of_draws, *statistics, counts)

    def rows(self, index: Tensor) -> "Weighted":
        """Those of some data points."""
        latents = {site: z[:, index] for site, z in self.latents.items()}
        of_draws = (self.log_weight[:, index], self.smoothed[:, index])
        return Weighted(latents, *of_draws, self.k_hat[index], self.ess[index], self.counts)

    def passes(self, least: float) -> Tensor:
        """Where averages over the draws can be relied on, of shape (N,).

        k-hat must be below its threshold, unless nine draws of ten are effective, and the effective
        sample size at least ``least``.
        """
        draws = len(self.log_weight)
        light = (self.k_hat <= pareto_k_threshold(draws)) | (self.ess >= LIGHT * draws)
        return light & (self.ess >= least)

    def evidence(self) -> tuple[Tensor, Tensor]:
        """log p(x) and its standard error, in nats, of shape (N,) each."""
        return log_mean(self.log_weight)

    def resampled(self, count: int, generator: torch.Generator) -> tuple[Latents, Tensor]:
        """Equally weighted draws, of shape (count, N, ...) by site (systematic resampling).

        With them, of shape (count, N), which are copies of another one.
        """
        share = self.smoothed.exp().T.cumsum(1)
        start = torch.rand(len(share), 1, generator=generator, dtype=share.dtype)
        places = (torch.arange(count, dtype=share.dtype) + start) / count * share[:, -1:]
        index = torch.searchsorted(share, places).clamp(max=len(self.smoothed) - 1).T
        copies = torch.zeros_like(index, dtype=torch.bool)
        copies[1:] = index[1:] == index[:-1]
        order = torch.randperm(count, generator=generator)
        drawn = {site: take_draws(z, index[order]) for site, z in self.latents.items()}
        return drawn, copies[order]

    def moments(self) -> tuple[Latents, Latents]:
        """Means and standard deviations by site, of shape (N, ...)."""
        share = self.smoothed.exp()
        mean, sd = {}, {}
        for site, z in self.latents.items():
            weight = share.reshape(*share.shape, *(1,) * (z.dim() - 2))
            mean[site] = (weight * z).sum(0)
            sd[site] = (weight * (z - mean[site]).square()).sum(0).sqrt()
        return mean, sd


def take_draws(values: Tensor, index: Tensor) -> Tensor:
    """Draws of shape (S, N, ...) by their number, of shape (count, N)."""
    shape = (*index.shape, *(1,) * (values.dim() - 2))
    return values.gather(0, index.reshape(shape).expand(*index.shape, *values.shape[2:]))


def weigh(
    posterior: Posterior,
    draws: int,
    seed: int,
    progress: Progress | None = None,
    defensive: float = DEFENSIVE,
) -> Weighted:
    r"""Weigh draws of the guide, and a few others, against the mixture that all are from.

    .. math:: w = p(x, z) \Big/ \sum_j \alpha_j q_j(z)

    With the guide go a fifth as many draws of the prior, and of a refined guide as many at twice
    its scale. Weights have mean p(x) (the balance heuristic; Veach & Guibas 1995) and are bounded
    by the likelihood over the prior's share (Owen & Zhou 2000). A mode that the guide misses and a
    draw of the prior hits has weights so high that k-hat and effective sample size tell. A guide
    that does not know its density at given values is weighed by itself.

    Arguments:
        posterior: The posterior of N data points.
        draws: Draws of the guide for each.
        seed: Seed of the draws.
        progress: Told of each draw of each data point.
        defensive: Draws of the prior, and at twice the scale, for each one of the guide.

    Raises:
        InputError: If the guide is a point mass, or a weight is infinite or not a number.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(9, 5, dtype=torch.float64)
        >>> ppca.set_exact_guide()
        >>> weighted = weigh(Posterior(ppca, x), 200, seed=0)
        >>> weighted.log_weight.shape, bool(weighted.passes(100).all())
        (torch.Size([240, 9]), True)
    """
    posterior.sites.require_density()
    progress = progress or Progress()
    parts = []
    others = math.ceil(defensive * draws)
    counts: tuple[int, ...] = ()
    if posterior.has_tractable_density:
        is_refined = isinstance(posterior.program, JointGaussian)
        counts = (draws, others if is_refined else 0, others)
    with posterior.evaluation_mode(seed):
        for part in posterior.blocks(draws + 2 * others):
            latents, log_weight = _mixed(part, counts) if counts else _own(part, draws)
            parts.append(({s: z.cpu() for s, z in latents.items()}, log_weight.double().cpu()))
            progress.advance(draws * len(part))
    log_weight = torch.cat([weights for _, weights in parts], dim=1)
    if not (usable := (log_weight < math.inf).all(0)).all():
        raise InputError(
            f"datum {int(posterior.rows[(~usable).nonzero()[0]])}",
            "has a log weight that is not a number, or infinite",
            "check that data point, or train longer at a lower rate",
        )
    latents = {site: torch.cat([drawn[site] for drawn, _ in parts], dim=1) for site in parts[0][0]}
    return Weighted.of(latents, log_weight, counts)


def _mixed(posterior: Posterior, counts: tuple[int, ...]) -> tuple[Latents, Tensor]:
    mixture = Mixture(posterior, counts)
    latents = mixture.sample()
    joint, density = mixture.log_densities(latents)
    return latents, joint - density


class Mixture:
    """What weighted draws are from: a guide, a refined one at twice its scale too, and the prior.

    Arguments:
        posterior: The posterior of N data points, to be in its evaluation mode.
        counts: Those of :class:`Weighted`.
    """

    def __init__(self, posterior: Posterior, counts: tuple[int, ...]) -> None:
        self.posterior, self.counts = posterior, [count for count in counts if count]
        guide = posterior.program
        self.guides = [posterior]
        if isinstance(guide, JointGaussian):
            self.guides.append(posterior.of(guide.widened(WIDER)))

    def sample(self) -> Latents:
        """As many draws of each as the counts say, of shape (S, N, *event shape) by site."""
        *of_guides, of_prior = self.counts
        pairs = zip(self.guides, of_guides, strict=True)
        drawn = [guide.sample(count) for guide, count in pairs]
        drawn.append(self.posterior.sample(of_prior, "prior"))
        return {site: torch.cat([each[site] for each in drawn]) for site in drawn[0]}

    def log_densities(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Of latents and data, and of the mixture, at latents of shape (S, N, *event shape)."""
        own = self.posterior.score(latents)
        log_prior = total(own.prior).double()
        densities = [total(own.guide).double()]
        others = [guide.score(latents, with_model=False) for guide in self.guides[1:]]
        densities += [total(terms.guide).double() for terms in others]
        parts = zip(self.counts, [*densities, log_prior], strict=True)
        shares = [density + math.log(count / sum(self.counts)) for count, density in parts]
        return own.reconstruction.double() + log_prior, torch.stack(shares).logsumexp(0)


def _own(posterior: Posterior, draws: int) -> tuple[Latents, Tensor]:
    traces = posterior.trace(draws)
    latents = {site: traces[1].nodes[site]["value"] for site in posterior.sites.prior}
    return latents, score_traces(*traces, posterior.placed, draws).log_weight
