"""What the model of a program uses, and what its guide: one is frozen, the other trained."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..data.batch import Batch
from ..errors import InputError
from .protocol import Program, device_of, dtype_of, evaluation_mode
from .sites import draw_latents
from .terms import score_latents

PROBED = 64  # data points that show what a program uses


class _Reads(TorchDispatchMode):
    """Note whose memory is read. A view reads nothing; what is done with it later does."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not _is_view(func):
            tensors = (leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
            self.seen |= {_memory(tensor) for tensor in tensors}
        return func(*args, **(kwargs or {}))


def _is_view(function: Any) -> bool:
    returned = [value.alias_info for value in function._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class Parts:
    """What model and guide of a program use, found by running them.

    Attributes:
        model: Names of the parameters and buffers whose values log p(x, z) or its draws depend on.
        guide: Those that log q(z | x) or its draws depend on.
        layers: The modules that run in the guide, and not in the model.
        trained: Names of the parameters that are not frozen, and not the model's.

    Example:
        >>> from ppl_vae.models import LinearGaussian
        >>> parts = Parts.of(LinearGaussian((3,)), Batch(x=torch.zeros(2, 3)))
        >>> sorted(parts.trained)
        ['encoder.bias', 'encoder.weight', 'raw_guide_tril']
    """

    model: frozenset[str]
    guide: frozenset[str]
    layers: frozenset[nn.Module]
    trained: frozenset[str]

    @classmethod
    def of(cls, program: Program, batch: Batch) -> "Parts":
        """What a program that conforms uses, on the first of some data."""
        probe = batch.rows(slice(PROBED)).to(device_of(program), dtype_of(program))
        with evaluation_mode(program, seed=0):
            drawn = probe.call(poutine.trace(program.guide).get_trace)

            def score() -> None:
                probe.call(poutine.trace(program.guide).get_trace).compute_log_prob()

            def generate() -> None:
                replayed = poutine.replay(program.model, trace=drawn)
                probe.call(poutine.trace(replayed).get_trace).compute_log_prob()
                probe.call(poutine.uncondition(program.model))

            (guide, guide_layers), (model, model_layers) = (
                _used(program, run) for run in (score, generate)
            )
        trained = {n for n, p in program.named_parameters() if p.requires_grad} - model
        return cls(model, guide, frozenset(guide_layers - model_layers), frozenset(trained))

    def require_apart(self, program: Program) -> None:
        """Refuse a program whose guide cannot change without its model.

        Raises:
            InputError: Naming a parameter that both use; or if the guide has none of its own.
        """
        name = type(program).__name__
        free = {n for n, p in program.named_parameters() if p.requires_grad}
        if shared := self.model & self.guide & free:
            raise InputError(
                name,
                f"has a parameter {min(shared)!r} that model and guide share, so that the guide "
                "cannot be trained while the model stays",
                "give each its own, or freeze those that they share with requires_grad=False",
            )
        if not self.trained & self.guide:
            raise InputError(name, "has no parameter of the guide's own", "fit all of it again")

    @contextmanager
    def frozen(self, program: Program) -> Iterator[None]:
        """Inside, nothing of the model changes: neither parameters nor statistics of layers.

        Layers that only the guide runs keep their mode; all others are in evaluation mode.
        """
        kept = {
            parameter: (parameter.requires_grad, parameter.grad)
            for name, parameter in program.named_parameters()
            if name not in self.trained
        }
        modes = {module: module.training for module in program.modules()}
        try:
            for parameter in kept:
                parameter.requires_grad_(False)
            for module in modes:
                module.training = modes[module] and module in self.layers
            yield
        finally:
            for parameter, (required, gradient) in kept.items():
                parameter.requires_grad_(required)
                parameter.grad = gradient  # a PyroModule asks for one again
            for module, mode in modes.items():
                module.training = mode

    def require_still(self, program: Program, batch: Batch) -> None:
        """Refuse a model that changes what it uses each time that it runs.

        Raises:
            InputError: Naming the buffer.
        """
        before = {name: t.clone() for name, t in self._of_model(program).items()}
        probe = batch.rows(slice(PROBED)).to(device_of(program), dtype_of(program))
        with self.frozen(program), evaluation_mode(program, seed=0):
            probe.call(poutine.uncondition(program.model))
        for name, tensor in self._of_model(program).items():
            if not torch.equal(tensor, before[name]):
                tensor.data.copy_(before[name])
                raise InputError(
                    type(program).__name__,
                    f"has a buffer {name!r} that its model changes as it runs, so that the model "
                    "cannot be frozen",
                    "change it in training mode only",
                )

    def _of_model(self, program: Program) -> dict[str, Tensor]:
        return {name: t for name, t in _tensors(program).items() if name in self.model}


def _tensors(program: Program) -> dict[str, Tensor]:
    """Parameters and buffers, by all names that they have."""
    module = cast(nn.Module, program)
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _used(program: Program, run: Callable[[], None]) -> tuple[frozenset[str], set[nn.Module]]:
    """The names of what a run reads, and the modules that it calls."""
    called: set[nn.Module] = set()
    hook = register_module_forward_pre_hook(lambda module, inputs: called.add(module))
    try:
        with _Reads() as reads:
            run()
    finally:
        hook.remove()
    names = {name for name, t in _tensors(program).items() if _memory(t) in reads.seen}
    return frozenset(names), called & {*program.modules()}


def inherit(program: Program, parent: Program, batch: Batch) -> None:
    """Give a program the model of another, and of its guide what has the same name and shape.

    What the guide of ``program`` has beside that stays as it is.

    Arguments:
        program: The program, which is changed.
        parent: The other one.
        batch: Some data.

    Raises:
        InputError: If the models differ: in a name, a shape, or, once copied, in log p(x, z).

    Example:
        >>> from ppl_vae.models import VAE
        >>> vae, wider = VAE((5,), 2, hidden=(8,)), VAE((5,), 2, hidden=(9,))
        >>> inherit(wider, vae, Batch(x=torch.zeros(2, 5)))
        Traceback (most recent call last):
        ppl_vae.errors.InputError: VAE has another model than its parent: decoder... is of shape ...
    """
    name = type(program).__name__
    own, given = _tensors(program), _tensors(parent)
    sizes = [{n: tuple(t.shape) for n, t in tensors.items()} for tensors in (own, given)]
    for used in sorted(Parts.of(program, batch).model | Parts.of(parent, batch).model):
        here, there = (size.get(used, "none") for size in sizes)
        if here != there:
            raise InputError(
                name,
                f"has another model than its parent: {used} is of shape {here} here, and {there} "
                "there",
                "change the guide alone",
            )
    with torch.no_grad():
        for shared in own.keys() & given.keys():
            if sizes[0][shared] == sizes[1][shared]:
                own[shared].copy_(given[shared])
    probe = batch.rows(slice(PROBED)).to(device_of(parent), dtype_of(parent))
    with evaluation_mode(parent, seed=0):
        latents = draw_latents(parent, probe, 1, "prior")
    joint = []
    for scored in (program, parent):
        with evaluation_mode(scored, seed=0):
            terms = score_latents(scored, probe, latents, with_guide=False)
        joint.append({**terms.likelihood, **terms.prior})
    same = joint[0].keys() == joint[1].keys() and all(
        torch.equal(values, joint[1][site]) for site, values in joint[0].items()
    )
    if not same:
        raise InputError(name, "has another log p(x, z) than its parent", "change the guide alone")
