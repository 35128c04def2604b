"""Guides refined for each data point by itself: normal ones, or those of the guide's own family."""

import math
from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor

from ..choices import Family
from ..errors import InputError, check_int
from ..programs.per_datum import JointGaussian, PerDatum
from ..programs.posterior import Posterior
from ..programs.scoring import rows_at_once
from ..programs.sites import Latents
from ..programs.unconstrained import Turns, Unconstrained, flatten, unflatten
from ..progress import Progress
from ..runtime import derived_seed
from .own_family import frozen, refine_own_family

STEPS = 100  # of natural gradients
OWN_STEPS, OWN_RATE = 300, 0.1  # Adam's, for a family with parameters of any kind
STEP_DRAWS = 4  # at least
CONTRACTION = 7.5  # by how many e-folds an error is to fall in all steps
FASTEST = 0.5  # the first rate of a step at most, of the way to the optimum of a normal posterior
LONGEST = 0.7  # of a step, in units of the guide's scale
LOCATING = 32  # draws that tell where the guide is
SELECTING = 200  # draws that tell which start was the best
Z = 3.0  # standard errors by which another start must be better than the first
CENTRAL = (0.1587, 0.5, 0.8413)  # a standard deviation on either side of a normal's median
POINT, OF_A_POINT = 1e-4, 0.03  # of the prior's scale: what is a point mass, and where it starts
FACTOR_ELEMENTS = 2**24  # of all triangular factors in flight


def refine(
    posterior: Posterior,
    family: Family = "full",
    steps: int | None = None,
    starts: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    r"""Fit a guide to each data point by itself, the model as it is (Cremer et al. 2018).

    It maximizes the ELBO of each data point. Of a family ``"diagonal"`` or ``"full"`` the new guide
    is a normal distribution of all latents of a data point, in unconstrained coordinates: what the
    old guide is matters as a start only, so that it may be a flow, or a point mass. It is fitted
    by natural gradients (Khan & Rue 2023, section 3), which have no variance where it is exact. Of
    the family ``"own"`` it is the old guide with parameters of its own, fitted by Adam; see
    :class:`ppl_vae.inference.own_family.Refined`.

    Arguments:
        posterior: The posterior of N data points.
        family: ``"full"``, ``"diagonal"`` or ``"own"``.
        steps: Steps, whose rate falls to zero along a cosine; by default 100, or 300 of Adam. With
            fewer steps, each takes more draws.
        starts: From how many places. The first is the guide. Others are draws of the prior where
            the posterior has what the guide lacks, such as another mode; the best one is kept.
        seed: Seed of everything random.
        progress: Told of the share of the work that has been done.

    Returns:
        The same posterior with the refined guide, whose program has one row a data point.

    Raises:
        InputError: If an argument is out of its range, a latent site is discrete or an angle, or
            its support cannot be mapped to real numbers; or the ELBO is infinite or NaN for all
            data points. One for which it is so stays where it is until it is not.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(20, 5, dtype=torch.float64)
        >>> refined = refine(Posterior(ppca, x), "full")
        >>> (ppca.evidence(x) - refined.log_weight(100).mean(0)).abs().max().item() < 1e-3
        True
    """
    if family not in get_args(Family):
        raise InputError("family", f"must be one of {get_args(Family)}, got {family!r}")
    if steps is None:
        steps = OWN_STEPS if family == "own" else STEPS
    steps, starts = check_int("steps", steps), check_int("starts", starts)
    progress = progress or Progress()
    parts: list[Any] = []
    units = _units(posterior)
    draws = STEP_DRAWS if family == "own" else step_draws(units, steps)
    widening = _widening(posterior, units, draws) if family == "full" else 1
    for part in posterior.blocks(draws * starts * widening):
        work = progress.part(len(part) / len(posterior))
        of_part = derived_seed(seed, f"refine {len(parts)}")
        parts.append(_refined(part, family, steps, starts, of_part, work).program)
    return posterior.of(_joined(parts))


def _refined(
    posterior: Posterior, family: Family, steps: int, starts: int, seed: int, progress: Progress
) -> Posterior:
    """Of a few data points, refined at once; the best of all starts."""
    several = posterior[torch.arange(len(posterior)).repeat(starts)]
    places = _places(posterior, starts, derived_seed(seed, "starts")) if starts > 1 else None
    if family == "own":
        found = refine_own_family(several, steps, OWN_RATE, STEP_DRAWS, seed, progress, places)
    else:
        found = _fit(several, family, steps, seed, progress, places)
    if starts == 1:
        return found
    return found[_best(found, len(posterior), starts, derived_seed(seed, "selection"))]


def step_draws(units: int, steps: int) -> int:
    """How many draws a step needs so that the guide of some units is there after so many steps."""
    rate = min(FASTEST, 2 * CONTRACTION / steps)  # a cosine's mean is half of its first value
    return max(STEP_DRAWS, math.ceil(rate * (units + 1) / (2 - rate)))


def _fit(
    posterior: Posterior,
    family: Family,
    steps: int,
    seed: int,
    progress: Progress,
    places: Mapping[str, Tensor] | None,
) -> Posterior:
    r"""A normal guide for each data point, refined from the guide, or from some places.

    In coordinates in which the guide is standard normal, u = mu + L e, the natural gradient is that
    of the ELBO by mu and by a triangular factor at the identity, its diagonal halved. From S draws
    e of D units, with A the identity less the posterior's precision there, the error of a factor
    becomes :math:`A - \rho A C`, C their second moments, for which
    :math:`E[C^2] = (1 + (D + 1) / S) I`: beyond :math:`\rho = 2 S / (D + S + 1)` it would grow.
    """
    coordinates = _coordinates(posterior, family)
    counted = progress.part(1.0, total=steps)
    with posterior.evaluation_mode(seed), frozen(posterior.program), torch.enable_grad():
        guide = _start(posterior, coordinates, places, full=family == "full")
        loc, factor = guide.loc, guide.factor
        if family == "full" and guide.is_diagonal:
            factor = torch.diag_embed(factor)
        size = loc.shape[1]
        draws = step_draws(size, steps)
        first = min(FASTEST, 2 * draws / (size + draws + 1))
        for step in range(steps):
            rate = first * (1 + math.cos(math.pi * step / steps)) / 2
            gradients = _gradients(coordinates, guide.shapes, loc, factor, draws)
            loc, factor = _moved(loc, factor, rate, *gradients)
            counted.advance(1)
    guide.loc, guide.factor = loc, factor
    return posterior.of(guide)


def _gradients(
    coordinates: Unconstrained,
    shapes: Mapping[str, tuple[int, ...]],
    loc: Tensor,
    factor: Tensor,
    draws: int,
) -> tuple[Tensor, Tensor]:
    """The ELBO's gradients by location and factor, both in units of the guide's scale.

    They are those along the draws (Roeder et al. 2017, eq. 8): zero for each draw, not on average
    only, where the guide is exact. Of shape (N, D), and as the factor; NaN where one is infinite.
    """
    noise = loc.new_empty(*loc.shape, draws).normal_()
    is_diagonal = factor.dim() == loc.dim()
    scaled = factor[..., None] * noise if is_diagonal else factor @ noise
    u = (loc[..., None] + scaled).permute(2, 0, 1).requires_grad_()
    joint = coordinates.densities(unflatten(u, shapes))[1]
    slope = torch.autograd.grad(joint.sum(), u)[0].permute(1, 2, 0)
    off = (factor[..., None] * slope if is_diagonal else factor.mT @ slope) + noise
    off = torch.where(joint.isfinite().all(0)[:, None, None], off, math.nan)
    if is_diagonal:
        return off.mean(-1), (off * noise).mean(-1)
    by_factor = off @ noise.mT / draws
    return off.mean(-1), (by_factor + by_factor.mT) / 2


def _moved(
    loc: Tensor, factor: Tensor, rate: float, by_loc: Tensor, by_factor: Tensor
) -> tuple[Tensor, Tensor]:
    """Location and factor after a natural step; where a gradient is not finite, as they are."""
    is_diagonal = factor.dim() == loc.dim()
    if not is_diagonal:
        diagonal = by_factor.diagonal(dim1=-2, dim2=-1)
        by_factor = by_factor.tril() - torch.diag_embed(diagonal) / 2
    else:
        by_factor = by_factor / 2
    length = (by_loc.square().sum(1) + by_factor.flatten(1).square().sum(1)).sqrt()
    usable = length.isfinite()
    if not usable.any():
        raise InputError("the ELBO", "is not finite near the guide, for any data point")
    share = (LONGEST / length).clamp(max=rate)
    share = torch.where(usable, share, 0.0)[:, None]
    by_loc = share * by_loc.nan_to_num(0.0, 0.0, 0.0)
    by_factor = (share if is_diagonal else share[..., None]) * by_factor.nan_to_num(0.0, 0.0, 0.0)
    if is_diagonal:
        return loc + factor * by_loc, factor * by_factor.exp()
    scale = torch.diag_embed(by_factor.diagonal(dim1=-2, dim2=-1).exp())
    return loc + (factor @ by_loc[..., None])[..., 0], factor @ (by_factor.tril(-1) + scale)


def _coordinates(posterior: Posterior, family: Family) -> Unconstrained:
    coordinates = Unconstrained(posterior)
    for site, transform in coordinates.transforms.items():
        if isinstance(transform, Turns):
            raise InputError(
                f"the latent site {site!r}",
                f"is an angle, for which the family {family} has no density",
                "use the family own",
            )
    return coordinates


@torch.no_grad()
def _start(
    posterior: Posterior,
    coordinates: Unconstrained,
    places: Mapping[str, Tensor] | None,
    full: bool,
) -> JointGaussian:
    """A normal guide where the guide is, or at some places, with the guide's own scale."""
    guide = posterior.program
    if isinstance(guide, JointGaussian) and places is None and (guide.is_diagonal or full):
        return guide.rows(slice(None))
    drawn, prior = (
        coordinates.coordinates(posterior.sample(LOCATING, source)) for source in ("guide", "prior")
    )
    loc, scale = _location_and_scale(flatten(drawn))
    widest = _location_and_scale(flatten(prior))[1]
    scale = torch.where(scale < POINT * widest, OF_A_POINT * widest, scale)
    if places is not None:
        there = flatten(coordinates.coordinates({s: z[None] for s, z in places.items()}))[0]
        loc = torch.where(there.isfinite(), there, loc)
    shapes = {site: tuple(u.shape[2:]) for site, u in drawn.items()}
    program: Any = guide.program if isinstance(guide, PerDatum) else guide
    return JointGaussian(program, coordinates.transforms, shapes, loc, scale)


def _location_and_scale(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Median and half the width of the central 68 %, which heavy tails have too: (N, D) each."""
    ordered = draws.sort(0).values  # torch.quantile takes 16 million numbers at most
    low, middle, high = (ordered[round(level * (len(draws) - 1))] for level in CENTRAL)
    return middle, (high - low) / 2


def _places(posterior: Posterior, starts: int, seed: int) -> Latents:
    """Where to start: the guide itself, as NaN, and others; (starts x N, *event shape) each."""
    from .modes import beyond_the_guide

    others = beyond_the_guide(posterior, starts - 1, seed)
    return {
        site: torch.cat([torch.full_like(z[0], math.nan), *z.unbind(0)])
        for site, z in others.items()
    }


def _best(found: Posterior, size: int, starts: int, seed: int) -> Tensor:
    """Which row of all starts is the best of each data point: the first, or one that is better."""
    with found.evaluation_mode(seed):
        weights = [
            part.score(part.sample(SELECTING)).log_weight for part in found.blocks(SELECTING)
        ]
    log_weight = torch.cat(weights, dim=1).double().cpu()
    mean = log_weight.mean(0).nan_to_num(nan=-math.inf).reshape(starts, size)
    variance = (log_weight.var(0) / SELECTING).nan_to_num(nan=0.0).reshape(starts, size)
    ahead = mean - mean[0] - Z * (variance + variance[0]).sqrt()
    ahead[0] = 0.0
    return ahead.argmax(0) * size + torch.arange(size)


def _units(posterior: Posterior) -> int:
    """How many latents a data point has."""
    with posterior.evaluation_mode(0):
        return sum(z[0, 0].numel() for z in posterior[:1].sample(1, "prior").values())


def _widening(posterior: Posterior, units: int, draws: int) -> int:
    """How many times fewer data points fit into memory because of their triangular factors."""
    rows = max(1, rows_at_once(posterior.program, posterior.batch.x) // draws)
    return max(1, rows * units**2 // FACTOR_ELEMENTS)


def _joined(parts: list[Any]) -> Any:
    """One guide for the data of all."""
    whole = parts[0]
    if isinstance(whole, JointGaussian):
        whole.loc = torch.cat([part.loc for part in parts])
        whole.factor = torch.cat([part.factor for part in parts])
    else:
        for key in whole.offsets:
            together = torch.cat([part.offsets[key].detach() for part in parts])
            whole.offsets[key] = torch.nn.Parameter(together, requires_grad=False)
    return whole
