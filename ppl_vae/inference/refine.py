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
from ..programs.unconstrained import State, Turns, Unconstrained
from ..progress import Progress
from ..runtime import derived_seed
from .own_family import frozen, refine_own_family

STEP_DRAWS = 4
RATE, OWN_RATE = 0.05, 0.1  # Adam's first learning rate, in units of the guide's scale
LOCATING = 200  # draws that tell where the guide is
SELECTING = 200  # draws that tell which start was the best
Z = 3.0  # standard errors by which another start must be better than the first
CENTRAL = (0.1587, 0.5, 0.8413)  # a standard deviation on either side of a normal's median
NARROWEST = 1e-3  # of the prior's scale: a guide may be a point mass
FACTOR_ELEMENTS = 2**24  # of all triangular factors in flight


def refine(
    posterior: Posterior,
    family: Family = "full",
    steps: int = 300,
    starts: int = 1,
    seed: int = 0,
    progress: Progress | None = None,
) -> Posterior:
    r"""Fit a guide to each data point by itself, the model as it is (Cremer et al. 2018).

    It maximizes the ELBO of each data point, from the guide as it is, by Adam on gradients along
    the draws (Roeder et al. 2017), which have no variance where the guide is exact. Of a family
    ``"diagonal"`` or ``"full"`` the new guide is a normal distribution of all latents of a data
    point, in unconstrained coordinates: what the old guide is matters as a start only, so that it
    may be a flow, or a point mass. Of the family ``"own"`` it is the old guide with parameters of
    its own; see :class:`ppl_vae.inference.own_family.Refined`.

    Arguments:
        posterior: The posterior of N data points.
        family: ``"full"``, ``"diagonal"`` or ``"own"``.
        steps: Steps of Adam; its learning rate falls to zero along a cosine.
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
    steps, starts = check_int("steps", steps), check_int("starts", starts)
    progress = progress or Progress()
    parts: list[Any] = []
    draws = STEP_DRAWS * starts
    for part in posterior.blocks(draws * _widening(posterior, family)):
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


def _fit(
    posterior: Posterior,
    family: Family,
    steps: int,
    seed: int,
    progress: Progress,
    places: Mapping[str, Tensor] | None,
) -> Posterior:
    """A normal guide for each data point, refined from the guide, or from some places."""
    coordinates = _coordinates(posterior, family)
    counted = progress.part(1.0, total=steps)
    with posterior.evaluation_mode(seed), frozen(posterior.program), torch.enable_grad():
        guide = _start(posterior, coordinates, places, full=family == "full")
        offset, spread = (torch.zeros_like(guide.loc, requires_grad=True) for _ in range(2))
        free = [offset, spread]
        if family == "full":
            size = guide.loc.shape[1]
            free.append(guide.loc.new_zeros(len(guide.loc), size, size, requires_grad=True))
        adam = torch.optim.Adam(free, RATE, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            adam.zero_grad()
            loss = _path_loss(coordinates, guide.shapes, *_moved(guide, *free))
            loss.backward()
            still = torch.stack([_keep_finite(parameter) for parameter in free]).all(0)
            if still.all():
                raise InputError("the ELBO", "is not finite near the guide, for any data point")
            adam.step()
            schedule.step()
            counted.advance(1)
    with torch.no_grad():
        guide.loc, guide.factor = (tensor.detach() for tensor in _moved(guide, *free))
    return posterior.of(guide)


def _keep_finite(parameter: Tensor) -> Tensor:
    """Leave rows where they are whose gradient is not finite, and say which, of shape (N,)."""
    gradient = parameter.grad
    assert gradient is not None
    bad = ~gradient.flatten(1).isfinite().all(1)
    gradient[bad] = 0.0
    return bad


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


def _moved(
    guide: JointGaussian, offset: Tensor, spread: Tensor, lower: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Location and factor after a step, in units of the scale that the guide started with."""
    scale, start = spread.exp(), guide.factor
    if guide.is_diagonal:
        loc, factor = guide.loc + start * offset, start * scale
        if lower is None:
            return loc, factor
        return loc, start[..., None] * lower.tril(-1) + torch.diag_embed(factor)
    assert lower is not None
    loc = guide.loc + (start @ offset[..., None])[..., 0]
    return loc, start @ (lower.tril(-1) + torch.diag_embed(scale))


def _path_loss(
    coordinates: Unconstrained, shapes: Mapping[str, tuple[int, ...]], loc: Tensor, factor: Tensor
) -> Tensor:
    r"""Minus the ELBO's part that moves with the draws, summed over data, at the mean over draws.

    Its gradient is that along the draws u = mu + L e (Roeder et al. 2017, eq. 8), for which
    :math:`\partial_u \log q(u) = -L^{-T} e` is a constant.
    """
    noise = loc.new_empty(STEP_DRAWS, *loc.shape).normal_()
    if factor.dim() == loc.dim():
        u, slope = loc + factor * noise, noise / factor.detach()
    else:
        u = loc + (factor @ noise[..., None])[..., 0]
        upper = factor.detach().mT
        # Of all draws of a data point at once, as columns.
        slope = torch.linalg.solve_triangular(upper, noise.permute(1, 2, 0), upper=True)
        slope = slope.permute(2, 0, 1)
    joint = coordinates.densities(_split(u, shapes))[1]
    return -(joint.sum() + (slope * u).sum()) / STEP_DRAWS


def _split(u: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """Coordinates of shape (S, N, D) by site."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    parts = zip(shapes.items(), u.split(sizes, -1), strict=True)
    return {site: part.reshape(*u.shape[:-1], *shape) for (site, shape), part in parts}


def _flat(state: State) -> Tensor:
    return torch.cat([u.flatten(2) if u.dim() > 2 else u[..., None] for u in state.values()], -1)


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
    loc, scale = _location_and_scale(_flat(drawn))
    scale = torch.maximum(scale, NARROWEST * _location_and_scale(_flat(prior))[1])
    if places is not None:
        there = _flat(coordinates.coordinates({s: z[None] for s, z in places.items()}))[0]
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


def _widening(posterior: Posterior, family: Family) -> int:
    """How many times fewer data points fit into memory because of their triangular factors."""
    if family != "full":
        return 1
    with posterior.evaluation_mode(0):
        size = sum(z[0, 0].numel() for z in posterior[:1].sample(1, "prior").values())
    rows = max(1, rows_at_once(posterior.program, posterior.batch.x) // STEP_DRAWS)
    return max(1, rows * size**2 // FACTOR_ELEMENTS)


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
