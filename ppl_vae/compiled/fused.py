"""Step the optimizers that Pyro keeps, one for each parameter, all at once."""

from collections.abc import Sequence
from typing import Any

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from pyro.optim.optim import is_scheduler
from torch import Tensor
from torch.optim import lr_scheduler
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

# They move each parameter by its own gradient and state, and in place.
INDEPENDENT = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


class FusedOptimizer:
    """A ``PyroOptim`` as one optimizer of all parameters.

    Pyro makes a torch optimizer for each parameter, and steps one after the other, which costs
    more than the arithmetic. Here one fused optimizer steps them all. It shares the state of each,
    and follows its options, so that schedulers, ``get_state`` and ``set_state`` go on as before.
    Optimizers of other kinds than Adam, AdamW and SGD are stepped by Pyro.

    Arguments:
        optim: What ``pyro.infer.SVI`` takes.

    Example:
        >>> import pyro
        >>> weight = pyro.param("weight", torch.ones(3)).unconstrained()
        >>> weight.grad = torch.ones(3)
        >>> optim = pyro.optim.Adam({"lr": 0.1})
        >>> FusedOptimizer(optim).step([weight])
        >>> weight.data, list(optim.get_state())
        (tensor([0.9000, 0.9000, 0.9000]), ['weight'])
    """

    def __init__(self, optim: PyroOptim) -> None:
        self.optim = optim
        self._joint: torch.optim.Optimizer | None = None
        self._options: list[Any] = []

    def step(self, parameters: Sequence[Tensor]) -> None:
        """Move the parameters along their gradients."""
        joint = self.joined(parameters)
        if joint is None:
            self.optim(list(parameters))  # which makes the optimizers, too
            return
        for parameter in parameters:
            if (clip := self.optim.grad_clip.get(parameter)) is not None:
                clip(parameter)
        joint.step()

    def joined(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer | None:
        """One optimizer of them all, another one when options change; ``None`` if Pyro steps."""
        if isinstance(self.optim, TorchOptimizer):
            return self.optim.optimizer
        own = [_own(self.optim.optim_objs.get(parameter)) for parameter in parameters]
        if not self._can_join(own):
            return None
        options = [_options(optimizer) for optimizer in own]
        states = [optimizer.state[p] for p, optimizer in zip(parameters, own, strict=True)]
        if self._joint is None or options != self._options or not self._shares(parameters, states):
            self._joint = self._join(parameters, own, options)
        return self._joint

    def recordable(self, parameters: Sequence[Tensor]) -> torch.optim.Optimizer | None:
        """The optimizer whose step may be part of a CUDA graph, if there is one.

        A torch optimizer of the user's must keep count, and its rate, in tensors.
        """
        joint = self.joined(parameters)
        if isinstance(self.optim, TorchOptimizer) and joint is not None:
            groups = joint.param_groups
            if not all(g.get("capturable") and isinstance(g["lr"], Tensor) for g in groups):
                return None
        return joint

    def _can_join(self, own: list[Any]) -> bool:
        kind = type(own[0]) if own else None
        plain = type(self.optim).__call__ in (PyroOptim.__call__, PyroLRScheduler.__call__)
        plain = plain and not (_global_optimizer_pre_hooks or _global_optimizer_post_hooks)
        return plain and kind in INDEPENDENT and all(_is_plain(o, kind) for o in own)

    def _shares(self, parameters: Sequence[Tensor], states: list[Any]) -> bool:
        assert self._joint is not None
        held = self._joint.state
        return len(held) == len(parameters) and all(
            held.get(p) is state for p, state in zip(parameters, states, strict=True)
        )

    def _join(
        self, parameters: Sequence[Tensor], own: list[Any], options: list[Any]
    ) -> torch.optim.Optimizer:
        groups: list[dict[str, Any]] = []
        for parameter, option in zip(parameters, options, strict=True):
            for group in groups:
                if group["options"] == option:
                    group["params"].append(parameter)
                    break
            else:
                groups.append({"params": [parameter], "options": option})
        fast: dict[str, Any] = {"fused": True}
        if "capturable" in options[0]:
            fast["capturable"] = parameters[0].is_cuda
        joint: torch.optim.Optimizer = type(own[0])(
            [{**group["options"], **fast, "params": group["params"]} for group in groups]
        )
        for parameter, optimizer in zip(parameters, own, strict=True):
            state = joint.state[parameter] = optimizer.state[parameter]
            if "step" in state:  # fused kernels count on the parameter's device
                state["step"] = state["step"].to(parameter.device)
        self._options = options
        return joint


def _own(found: Any) -> Any:
    """The optimizer of a parameter, which may be inside a scheduler."""
    return found.optimizer if is_scheduler(found) else found


def _options(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    (group,) = optimizer.param_groups
    return {name: value for name, value in group.items() if name not in ("params", "fused")}


def _is_plain(optimizer: Any, kind: Any) -> bool:
    if type(optimizer) is not kind or len(optimizer.param_groups) != 1:
        return False
    (group,) = optimizer.param_groups
    (parameter,) = group["params"]
    # A step of the user's own; what a scheduler makes of it only counts.
    own = vars(optimizer).get("step")
    code = getattr(own, "__code__", None)
    if own is not None and (code is None or code.co_filename != lr_scheduler.__file__):
        return False
    hooks = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    hooks = hooks or _global_optimizer_pre_hooks or _global_optimizer_post_hooks
    # Only torch's schedulers, which count steps, may put another function in its place.
    step = optimizer.__dict__.get("step")
    if step is not None:
        code = getattr(step, "__code__", None)
        if code is None or code.co_filename != lr_scheduler.__file__:
            return False
    unusual = group.get("foreach") or group.get("differentiable")
    sparse = parameter.grad is not None and parameter.grad.layout != torch.strided
    # One that has not moved yet has no momentum, which a fused kernel wants of all or none.
    momentum = optimizer.state[parameter].get("momentum_buffer")
    at_rest = group.get("momentum") and momentum is None
    return parameter.is_floating_point() and not (hooks or unusual or sparse or at_rest)


class TorchOptimizer(PyroOptim):
    """A torch optimizer, in the place of one of Pyro's.

    Arguments:
        optimizer: It has all parameters already.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(type(optimizer), {})
        self.optimizer = optimizer

    def __call__(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.optimizer.step()
