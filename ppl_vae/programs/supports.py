"""Where the values of a latent site lie, freed of what is wrapped around it."""

from copy import copy
from typing import Any

import pyro.distributions as dist
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint, MixtureSameFamilyConstraint

from ..errors import InputError
from .protocol import innermost

ANGLES = (dist.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)


def fixed_support(site: str, prior: Any, event_dim: int) -> Constraint:
    """The support of a prior whose values are anywhere in it, whatever is drawn.

    PyTorch wraps the support of a mixture, and that of several units, in constraints that
    ``biject_to`` does not know, or that have a shape. The support of a mixture is that of its
    components; edges that all draws and data share lose the dimensions of draws and data.

    Arguments:
        site: The name of the latent site.
        prior: Its distribution, at some draws and data.
        event_dim: How many dimensions a value has.

    Raises:
        InputError: If its edges depend on a draw or a data point, or components have their own.

    Example:
        >>> import torch
        >>> kernels = dist.Uniform(0.0, torch.ones(7, 3))  # 7 data, 3 components
        >>> mixture = dist.MixtureSameFamily(dist.Categorical(torch.ones(7, 3)), kernels)
        >>> fixed_support("z", mixture, event_dim=0).upper_bound
        tensor(1.)
    """
    support, components = prior.support, []
    while True:
        if isinstance(support, MixtureSameFamilyConstraint):
            support = support.base_constraint
            components.append(-1 - support.event_dim)
        elif isinstance(support, constraints.independent):
            support = support.base_constraint
        else:
            break
    found = copy(support)
    for name, edge in vars(support).items():
        if isinstance(edge, Tensor):
            for dim in reversed(components):  # the innermost mixture has the last dimension
                edge = _shared(site, edge, dim, "depends on the component of a mixture")
            while edge.dim() > event_dim:
                edge = _shared(site, edge, 0, "depends on a draw or a data point")
            setattr(found, name, edge)
    return found


def is_angle(prior: Any) -> bool:
    """Whether values are angles: points of a circle, though PyTorch says that they are real.

    Example:
        >>> is_angle(dist.VonMises(0.0, 1.0)), is_angle(dist.Normal(0.0, 1.0))
        (True, False)
    """
    prior = innermost(prior)
    while isinstance(prior, dist.MixtureSameFamily):
        prior = innermost(prior.component_distribution)
    return isinstance(prior, ANGLES)


def _shared(site: str, edge: Tensor, dim: int, problem: str) -> Tensor:
    """An edge of a support without a dimension along which it is the same."""
    if edge.dim() < max(-dim, 1):
        return edge
    first = edge.select(dim, 0)
    if not bool((edge == first.unsqueeze(dim)).all()):
        raise InputError(
            f"the latent site {site!r}",
            f"has a support that {problem}",
            "give it a fixed support, and scale its value",
        )
    return first
