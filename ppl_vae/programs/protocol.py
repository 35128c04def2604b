"""What a program is, and the mode in which it is evaluated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from pyro.distributions import Independent
from pyro.distributions.torch_distribution import ExpandedDistribution, MaskedDistribution
from pyro.poutine.util import site_is_subsample
from torch import nn

from ..errors import InputError
from ..runtime import isolated

DATA_PLATE = "data"


@runtime_checkable
class Program(Protocol):
    """An ``nn.Module`` whose ``model`` and ``guide`` are Pyro functions of the same arguments.

    - They take ``x``, and any covariates beside it, such as ``y``, ``mask`` or ``exposure``: one
      row a data point. What has no default must be in the data, under the same name.
    - Both have one plate named ``data`` at dim -1 over the batch, and every sample site in it.
    - The model observes ``x`` at a site named ``x``; it may observe covariates too, each at a site
      of its name. Its other sites are latent, and the guide has the same ones.
    - Networks act on the last dimensions, so that a plate of draws may surround either function.
    - Every parameter belongs to the module, and :func:`pyro.module` registers it.

    Nothing else is asked of it, and nothing in this package asks which class it got.
    """

    @property
    def model(self) -> Callable[..., Any]:
        """p(x, z): a function of ``x`` of shape (N, *data_shape), which it observes."""

    @property
    def guide(self) -> Callable[..., Any]:
        """q(z | x): a function of the same arguments."""

    # What nn.Module brings.
    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...
    def state_dict(self, *, keep_vars: bool = False) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...
    def modules(self) -> Iterator[nn.Module]: ...
    def to(self, *args: Any, **kwargs: Any) -> Any: ...


def require_program(program: Any) -> None:
    """Refuse what is not a program at all.

    Raises:
        InputError: Naming its class.
    """
    name = type(program).__name__
    if not isinstance(program, nn.Module) or not isinstance(program, Program):
        raise InputError(name, "is not a program", "make it an nn.Module with model and guide")
    if next(program.parameters(), None) is None:
        raise InputError(name, "has no parameters", "assign its networks in __init__")


def device_of(program: Program) -> torch.device:
    """The device that a program's parameters are on."""
    return next(program.parameters()).device


def dtype_of(program: Program) -> torch.dtype:
    """The floating-point type of a program's parameters, which its data must have too."""
    return next(p.dtype for p in program.parameters() if p.is_floating_point())


def is_random(node: Any) -> bool:
    """Whether a site of a trace is random: neither a subsample nor ``pyro.deterministic``."""
    return (
        node["type"] == "sample"
        and not site_is_subsample(node)
        and not node["infer"].get("_deterministic")
    )


def is_latent(node: Any) -> bool:
    """Whether a site of a trace is random and not observed."""
    return is_random(node) and not node["is_observed"]


def innermost(distribution: Any) -> Any:
    """A distribution without ``to_event``, ``mask`` and ``expand``."""
    while isinstance(distribution, Independent | MaskedDistribution | ExpandedDistribution):
        distribution = distribution.base_dist
    return distribution


@contextmanager
def evaluation_mode(program: Program, seed: int) -> Iterator[None]:
    """Run model and guide without a trace: :func:`isolated`, no gradients, evaluation mode.

    Dropout and batch normalization are in evaluation mode inside, and back in theirs after it.
    """
    with isolated(seed, device_of(program)), torch.no_grad():
        # Inside, for another thread may have the program until then.
        modes = {module: module.training for module in program.modules()}
        for module in modes:
            module.training = False
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
