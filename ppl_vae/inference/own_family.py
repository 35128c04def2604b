"""The guide's own family, with parameters of its own for each data point."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Independent, TransformedDistribution, transform_to
from torch.distributions.transforms import LowerCholeskyTransform

from ..errors import InputError
from ..objectives.pathwise import PathwiseELBO
from ..programs.per_datum import PerDatum
from ..programs.posterior import Posterior
from ..programs.protocol import Program
from ..progress import Progress

Offsets = dict[str, nn.Parameter]


class Refined(PerDatum):
    """A program whose guide has parameters of its own for each data point of one batch.

    Each parameter that the amortized guide gives a distribution is moved by an offset, in
    unconstrained coordinates and in units of the guide's own scale; offsets start from zero. With
    one latent site the guide can so become any member of its family. With several, the offset of a
    conditional distribution does not depend on the draws that it is conditioned on. Transforms of a
    flow stay as they are.

    Arguments:
        program: The program; its own parameters stay as they are.
        starts: Where offsets put the guide first, by latent site, of shape (N, *event shape): its
            location if it has one of that shape; else its parameters are off by standard normal
            noise, in unconstrained coordinates. A row of NaN leaves the guide as it is.

    Attributes:
        offsets: By site and parameter, each with one row a data point; made by the first call.
    """

    def __init__(self, program: Program, starts: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(program)
        self.starts = dict(starts or {})
        self.offsets: Offsets = {}

    def guide(self, x: Tensor, **covariates: Tensor) -> Any:
        """The program's, refined. It takes the one batch that its offsets are of."""
        with _Refine(self.offsets, self.starts):
            return cast(Program, self.program).guide(x, **covariates)

    def rows(self, index: slice | Tensor) -> "Refined":
        """The same for some of the data points."""
        inner = self.program.rows(index) if isinstance(self.program, PerDatum) else self.program
        part = Refined(cast(Program, inner))
        part.offsets = {
            key: nn.Parameter(offset.detach()[index], requires_grad=False)
            for key, offset in self.offsets.items()
        }
        return part


class _Refine(Messenger):
    """Move the parameters of each distribution by offsets, and make those that are missing."""

    def __init__(self, offsets: Offsets, starts: dict[str, Tensor]) -> None:
        super().__init__()
        self.offsets, self.starts = offsets, starts

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) or msg["infer"].get("_deterministic"):
            return
        if not isinstance(msg["fn"], dist.Delta):  # the last step of a flow follows its base
            msg["fn"] = self._moved(msg["name"], msg["fn"], self.starts.get(msg["name"]))

    def _moved(self, name: str, fn: Any, start: Tensor | None) -> Any:
        if isinstance(fn, Independent):
            base = self._moved(name, fn.base_dist, start)
            return dist.Independent(base, fn.reinterpreted_batch_ndims)
        if isinstance(fn, MaskedDistribution):
            return self._moved(name, fn.base_dist, start).mask(fn._mask)
        if isinstance(fn, ExpandedDistribution):
            return self._moved(name, fn.base_dist.expand(fn.batch_shape), start)
        if isinstance(fn, TransformedDistribution):
            for transform in reversed(fn.transforms):
                start = None if start is None else transform.inv(start)
            base = self._moved(name, fn.base_dist, start)
            return dist.TransformedDistribution(base, fn.transforms)
        given = [p for p in fn.arg_constraints if p in vars(fn)] or list(fn.arg_constraints)
        if start is not None and f"{name}.{given[0]}" not in self.offsets:
            self.offsets |= _first_offsets(name, fn, given, start)
        moved = {p: self._moved_parameter(f"{name}.{p}", fn, p) for p in given}
        return _pyro_class(fn)(**moved, validate_args=False)

    def _moved_parameter(self, key: str, fn: Any, parameter: str) -> Tensor:
        value = getattr(fn, parameter)
        transform = _to_real(key, fn, parameter)
        free = transform.inv(value)
        if key not in self.offsets:
            # Of the shape that the plate gives the distribution: one row a data point.
            self.offsets[key] = nn.Parameter(torch.zeros_like(free, requires_grad=False))
        offset = self.offsets[key]
        # Relative to the guide's own scale, so that nothing depends on the units of z.
        if isinstance(transform, LowerCholeskyTransform):
            return value @ transform(offset)
        if free is value:
            return value + offset * _scale(fn, value)
        return transform(free + offset)


def _to_real(key: str, fn: Any, parameter: str) -> Any:
    """The transform of real numbers to what a parameter may be."""
    try:
        return transform_to(fn.arg_constraints[parameter])
    except NotImplementedError:
        raise InputError(
            f"the guide's parameter {key!r}",
            "has a constraint that cannot be mapped to real numbers, so the guide cannot be "
            "refined",
        ) from None


def _first_offsets(name: str, fn: Any, parameters: list[str], start: Tensor) -> Offsets:
    """Offsets that put a distribution where it is to start; see :class:`Refined`."""
    free = {p: _to_real(f"{name}.{p}", fn, p).inv(getattr(fn, p)) for p in parameters}
    offsets = {p: torch.zeros_like(value) for p, value in free.items()}
    moved = start.reshape(len(start), -1).isfinite().all(1)
    if "loc" in free and free["loc"].shape == start.shape:
        offset = (start - free["loc"]) / _scale(fn, free["loc"])
        offsets["loc"] = torch.where(_rows(moved, offset), offset, 0.0)
    else:
        for parameter, value in offsets.items():
            offsets[parameter] = torch.where(_rows(moved, value), torch.randn_like(value), 0.0)
    return {f"{name}.{p}": nn.Parameter(offset.detach()) for p, offset in offsets.items()}


def _rows(chosen: Tensor, values: Tensor) -> Tensor:
    return chosen.reshape(-1, *(1,) * (values.dim() - 1))


class _Unscaled(Messenger):
    """Densities without a scale: ``poutine.scale`` belongs to an objective, not to the ELBO.

    As the outermost handler it comes last, just before the objective's trace records a site.
    """

    def _pyro_post_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            msg["scale"] = 1.0


def _scale(fn: Any, value: Tensor) -> Tensor | float:
    """The standard deviation of a distribution, if it is of the parameter's shape; else 1."""
    try:
        scale = fn.stddev.detach()
    except (NotImplementedError, AttributeError):
        return 1.0
    usable = scale.shape == value.shape and bool((scale.isfinite() & (scale > 0)).all())
    return scale if usable else 1.0


def _pyro_class(fn: Any) -> Any:
    return getattr(dist, type(fn).__name__, type(fn))


@contextmanager
def frozen(program: Program) -> Iterator[None]:
    """No gradients of the program's parameters inside: they would double the cost."""
    trained = [p for p in program.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def refine_own_family(
    posterior: Posterior,
    steps: int,
    rate: float,
    draws: int,
    seed: int,
    progress: Progress | None = None,
    starts: Mapping[str, Tensor] | None = None,
) -> Posterior:
    """Maximize the ELBO of each data point by itself, over the guide's own family.

    Adam with cosine annealing of its learning rate to zero, on the gradient that sticks the
    landing (Roeder et al. 2017), which has no variance where the guide is exact. All data points
    are refined at once, so that their number is bounded by memory.

    Arguments:
        posterior: The posterior of N data points.
        steps: Steps of Adam.
        rate: Its first learning rate, in units of the guide's scale.
        draws: Draws for each data point and step.
        seed: Seed of the draws.
        progress: Told of the share of the work that has been done.
        starts: Where to start, of each data point, as :class:`Refined` takes it; by default from
            the guide as it is.

    Returns:
        The same posterior with the refined guide.

    Raises:
        InputError: If a parameter of the guide cannot be mapped to real numbers, or the ELBO
            becomes infinite or NaN.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> ppca, x = LinearGaussian((5,)), torch.randn(20, 5, dtype=torch.float64)
        >>> refined = refine_own_family(Posterior(ppca, x), steps=300, rate=0.1, draws=8, seed=0)
        >>> gap = ppca.evidence(x) - refined.log_weight(200).mean(0)
        >>> gap.abs().max().item() < 1e-3  # the best of its family is the posterior
        True
    """
    refined, batch = Refined(posterior.program, starts), posterior.placed
    counted = (progress or Progress()).part(1.0, total=steps)
    objective = PathwiseELBO(draws)
    with posterior.evaluation_mode(seed), frozen(posterior.program), torch.enable_grad():
        batch.call(refined.guide)  # makes the offsets
        adam = torch.optim.Adam(list(refined.offsets.values()), rate, betas=(0.9, 0.99))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
        for _ in range(steps):
            adam.zero_grad()
            with _Unscaled():
                loss = batch.call(
                    partial(objective.differentiable_loss, refined.model, refined.guide)
                )
            if not loss.isfinite():
                raise InputError("the ELBO", "is not finite near the guide, for some of the data")
            loss.backward()
            adam.step()
            schedule.step()
            counted.advance(1)
    for offset in refined.offsets.values():
        offset.requires_grad_(False)
    return posterior.of(refined)
