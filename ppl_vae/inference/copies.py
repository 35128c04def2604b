"""Draws that are copies of each other, moved apart."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from ..programs.posterior import Posterior
from ..programs.scoring import rows_at_once
from ..programs.sites import Latents
from ..programs.unconstrained import State, Turns, Unconstrained, flatten, sum_events, unflatten
from .weights import Mixture, Weighted

STEPS = 3 * (0.5, 0.35, 0.25)  # their sizes, of the posterior's scale
SHRINKAGE = 0.1  # of correlations, which few effective draws exaggerate
FACTOR_ELEMENTS = 2**24  # of all triangular factors in flight


def move_copies(
    posterior: Posterior, weighted: Weighted, drawn: Mapping[str, Tensor], copies: Tensor, seed: int
) -> Latents:
    r"""Move resampled draws that are copies of another, so that the law of all stays the same.

    Of S draws that are resampled from T, drawn from m with weights that add up to W, those that are
    no copies have the density of :math:`\min(m, a)`, with :math:`a(z) = S\,p(x, z) / W`, and
    the copies that of :math:`\max(a - m, 0)`. The latter is what Metropolis steps leave as it is
    that move the copies alone (as Gilks & Berzuini 2001 do with all draws). A step of size b from
    u, in unconstrained coordinates, is to

    .. math:: u' = \mu + \sqrt{1 - b^2} (u - \mu) + b L \epsilon, \quad \epsilon \sim N(0, I)

    with mean and covariance L L' of the weighted draws, which is reversible with respect to that
    normal distribution (Neal 1999, eq. 17).

    Arguments:
        posterior: The posterior of N data points, with the guide that was weighed.
        weighted: Its weighted draws.
        drawn: Draws that were resampled from these, of shape (S, N, *event shape) by site.
        copies: Which are copies, of shape (S, N).
        seed: Seed of the steps.

    Returns:
        The draws, moved where they were copies. As they were, if a latent site is discrete, an
        angle, or of a support that cannot be mapped to real numbers, or the density of the weighted
        draws is not known at other values.

    Example:
        >>> from ppl_vae.inference.weights import weigh
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(9, 5, dtype=torch.float64)
        >>> posterior = Posterior(ppca, x)
        >>> weighted = weigh(posterior, 500, seed=0)
        >>> drawn, copies = weighted.resampled(200, torch.Generator().manual_seed(0))
        >>> moved = move_copies(posterior, weighted, drawn, copies, seed=0)
        >>> bool((moved["z"] == drawn["z"])[copies].double().mean() < 0.1)
        True
    """
    try:
        transforms = Unconstrained(posterior).transforms
    except InputError:
        return dict(drawn)
    is_angle = any(isinstance(transform, Turns) for transform in transforms.values())
    if is_angle or not weighted.counts or not copies.any():
        return dict(drawn)
    loc, factor = _moments(posterior, weighted)
    # log W: the difference of weights from normalized ones, most of which are not smoothed.
    log_total = (weighted.log_weight - weighted.smoothed).nanmedian(0).values
    scale = (math.log(len(copies)) - log_total).to(loc.device)
    moved = {site: z.clone() for site, z in drawn.items()}
    fewer = loc.shape[1] ** 2 / FACTOR_ELEMENTS
    size = max(1, int(min(rows_at_once(posterior.program, posterior.batch.x), 1 / fewer)))
    with posterior.evaluation_mode(seed):
        for draw, row in (some.unbind(1) for some in copies.nonzero().split(size)):
            here = _Excess(posterior[row], scale[row], weighted.counts)
            start = {site: z[draw, row][None] for site, z in drawn.items()}
            latents, changed = here.moved(start, loc[row], factor[row])
            draw, row = draw[changed.cpu()], row[changed.cpu()]
            for site, z in latents.items():
                moved[site][draw, row] = z[0, changed].to(moved[site])
    return moved


def _moments(posterior: Posterior, weighted: Weighted) -> tuple[Tensor, Tensor]:
    """Mean and triangular factor of the covariance of weighted draws: (N, D) and (N, D, D).

    NaN where there are none: no step from there is taken.
    """
    u = flatten(Unconstrained(posterior).coordinates(weighted.latents))
    share = weighted.smoothed.exp().to(u)[..., None]
    loc = (share * u).sum(0)
    off = (u - loc) * share.sqrt()
    covariance = torch.einsum("sni,snj->nij", off, off)
    variance = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    factor, failed = torch.linalg.cholesky_ex(covariance.lerp(variance, SHRINKAGE))
    return loc, torch.where(failed[:, None, None] == 0, factor, math.nan)


class _Excess:
    """What copies are draws of, max(a - m, 0), one draw of each data point."""

    def __init__(self, posterior: Posterior, scale: Tensor, counts: tuple[int, ...]) -> None:
        self.scale, self.mixture = scale, Mixture(posterior, counts)
        self.coordinates = Unconstrained(posterior)

    def log_density(self, state: State) -> Tensor:
        """In unconstrained coordinates, of shape (N,)."""
        latents = self.coordinates.latents(state)
        joint, mixture = self.mixture.log_densities(latents)
        volume = sum(
            sum_events(self.coordinates.transforms[site].log_abs_det_jacobian(u, latents[site]))
            for site, u in state.items()
        )
        ratio = joint + self.scale - mixture
        return (mixture + torch.expm1(ratio.clamp(min=0)).log() + volume)[0]

    def moved(self, latents: Latents, loc: Tensor, factor: Tensor) -> tuple[Latents, Tensor]:
        """The draws after all steps, and which have moved, of shape (N,)."""
        start = self.coordinates.coordinates(latents)
        shapes = {site: tuple(u.shape[2:]) for site, u in start.items()}

        def relative(e: Tensor) -> tuple[Tensor, Tensor]:
            """Where that is, and the log density less that of the normal distribution."""
            there = loc + (factor @ e[..., None])[..., 0]
            density = self.log_density(unflatten(there[None], shapes))
            return there, density + e.square().sum(1) / 2

        u = flatten(start)[0]
        e = torch.linalg.solve_triangular(factor, (u - loc)[..., None], upper=False)[..., 0]
        density = relative(e)[1]
        changed = torch.zeros_like(density, dtype=torch.bool)
        for step in STEPS:
            other = math.sqrt(1 - step**2) * e + step * torch.randn_like(e)
            there, proposed = relative(other)
            accepted = proposed - density > torch.rand_like(density).log()
            u = torch.where(accepted[:, None], there, u)
            e = torch.where(accepted[:, None], other, e)
            density = torch.where(accepted, proposed, density)
            changed |= accepted
        return self.coordinates.latents(unflatten(u[None], shapes)), changed
