"""The state of a fit: what a snapshot copies, and what a state must be to be restored."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..programs.protocol import Program, device_of

MAX_DIVERGENCES = 3  # in a row, the last of which ends a fit
LR_FACTOR = 0.1  # what a divergence multiplies the learning rate by


@dataclass
class Counters:
    """The plain numbers of a fit.

    Attributes:
        steps: Steps so far, those that were rolled back included.
        lr_scale: What the scheduled learning rate is multiplied by.
        num_divergences: Divergences in a row.
        last_rollback: The step at which the fit was last rolled back.
        best_score: The best validation score, in nats per datum.
        batches: Batches of this epoch so far.
        seen: Data points of this epoch whose loss was finite.
        loss: Their loss, in nats, summed.
        seconds: Time spent on this epoch.
    """

    steps: int = 0
    lr_scale: float = 1.0
    num_divergences: int = 0
    last_rollback: int = 0
    best_score: float = -math.inf
    batches: int = 0
    seen: int = 0
    loss: float = 0.0
    seconds: float = 0.0

    @classmethod
    def restored(cls, plain: Mapping[str, Any], steps_per_epoch: int) -> "Counters":
        """The counters of a state that a file gave.

        Raises:
            KeyError, TypeError, ValueError: If they are not those of such a fit.
        """
        counters = cls(**{field.name: plain[field.name] for field in fields(cls)})
        for name, value in vars(counters).items():
            if type(value) is not type(getattr(cls, name)) or value != value:
                raise TypeError(f"{name} is {value!r}")
        if not 0 <= counters.batches <= min(steps_per_epoch - 1, counters.steps):
            raise ValueError(f"{counters.batches} batches of an epoch were done")
        if not 0 <= counters.num_divergences < MAX_DIVERGENCES:
            raise ValueError(f"it had diverged {counters.num_divergences} times in a row")
        if not 0 < counters.lr_scale <= 1:
            raise ValueError(f"its learning rate was scaled by {counters.lr_scale}")
        return counters

    def check_loss(self, loss: float, seen: int) -> str:
        """Add the loss of some data points, in nats; or say why it cannot be added."""
        if not math.isfinite(loss):
            return f"the loss became {loss}"
        self.loss, self.seen = self.loss + loss, self.seen + seen
        return ""

    def diverge(self) -> int:
        """Count a divergence, after which the learning rate is lower; how many in a row."""
        self.num_divergences += 1
        self.last_rollback = self.steps
        if self.num_divergences < MAX_DIVERGENCES:
            self.lr_scale *= LR_FACTOR
        return self.num_divergences

    def begin_epoch(self) -> None:
        """Start to count the batches of another epoch."""
        self.batches, self.seen, self.loss, self.seconds = 0, 0, 0.0, 0.0

    @property
    def mean_loss(self) -> float:
        """The loss of this epoch in nats per datum; NaN if it was never finite."""
        return self.loss / self.seen if self.seen else math.nan


@dataclass(frozen=True)
class State:
    """A copy of all that a fit continues from.

    Attributes:
        tensors: By names such as ``program/encoder.weight``, ``best/...``, ``moments/0/exp_avg``,
            ``buffers/...`` and ``random/cpu``.
        plain: Counters, and what the engine has compiled, as JSON has it.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix/``, by the rest of their names."""
        return part(self.tensors, prefix)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with ``prefix/``, by the rest of their names.

    Example:
        >>> part({"best/a": torch.ones(1), "program/a": torch.zeros(1)}, "best")
        {'a': tensor([1.])}
    """
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`part`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


class TrainedTensors:
    """The tensors that steps change: weights, buffers, and the optimizer's moments.

    They are changed in place only, since CUDA graphs read them where they lie: that is why
    ``Optimizer.load_state_dict``, which puts others in their place, is not used.

    Arguments:
        program: The program.
        optimizer: The optimizer of its parameters.
    """

    def __init__(self, program: Program, optimizer: torch.optim.Optimizer) -> None:
        self.program, self.optimizer, self.device = program, optimizer, device_of(program)
        self.parameters: list[Tensor] = [
            p for group in optimizer.param_groups for p in group["params"]
        ]
        # A mask may hold infinities: only buffers that were finite must stay so.
        self._finite_buffers = {
            name
            for name, value in self._buffers().items()
            if value.is_floating_point() and bool(value.isfinite().all())
        }

    def weights(self) -> dict[str, Tensor]:
        """A copy of the program's ``state_dict``."""
        return {k: v.detach().clone() for k, v in self.program.state_dict().items()}

    def copy(self) -> dict[str, Tensor]:
        """A copy of all of them, named as in :class:`State`."""
        return {
            **prefixed("program", self.weights()),
            **{f"moments/{name}": value.clone() for name, value in self._moments().items()},
            **{f"buffers/{k}": v.detach().clone() for k, v in self._unstored().items()},
        }

    def put_back(self, tensors: Mapping[str, Tensor]) -> None:
        """Give all of them the values of a copy; moments that it lacks become zero."""
        self.program.load_state_dict(part(tensors, "program"))
        moments, unstored = part(tensors, "moments"), self._unstored()
        for name, value in part(tensors, "buffers").items():
            unstored[name].copy_(value)
        for name, value in self._moments().items():
            if name not in moments:
                value.zero_()
        for name, value in moments.items():
            place, _, kind = name.partition("/")
            parameter = self.parameters[int(place)]
            present = self.optimizer.state[parameter]
            if kind in present:
                present[kind].copy_(value)
            else:
                present[kind] = value.to(parameter.device, copy=True)

    def are_finite(self) -> bool:
        """Whether weights, moments, and buffers that once were finite are."""
        buffers = [v for name, v in self._buffers().items() if name in self._finite_buffers]
        tensors = [*self.parameters, *self._moments().values(), *buffers]
        # One answer, for each would wait for a GPU.
        return bool(torch.stack([t.isfinite().all().to(self.device) for t in tensors]).all())

    def check_sizes(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse the tensors of a state of another fit: a fused optimizer would write beyond them.

        Raises:
            ValueError: Naming the tensor.
        """
        like = prefixed("program", self.weights()) | prefixed("best", self.weights())
        like |= prefixed("buffers", self._unstored())
        for place, parameter in enumerate(self.parameters):
            # Adam has none of a parameter that never had a gradient.
            if f"moments/{place}/step" in tensors:
                like |= {f"moments/{place}/{kind}": parameter for kind in ("exp_avg", "exp_avg_sq")}
                like[f"moments/{place}/step"] = torch.tensor(0.0, dtype=torch.float32)
        sized = {name for name in tensors if not name.startswith("random/")}
        if odd := like.keys() ^ sized:
            raise ValueError(f"{min(odd)} is missing, or not known")
        for name, own in like.items():
            if (tensors[name].shape, tensors[name].dtype) != (own.shape, own.dtype):
                raise ValueError(f"{name} is of another shape or type")

    def _moments(self) -> dict[str, Tensor]:
        """Adam's counts and moments, by the place of their parameter."""
        return {
            f"{place}/{name}": value
            for place, parameter in enumerate(self.parameters)
            for name, value in self.optimizer.state[parameter].items()
        }

    def _buffers(self) -> dict[str, Tensor]:
        return dict(cast(nn.Module, self.program).named_buffers())

    def _unstored(self) -> dict[str, Tensor]:
        """Buffers that are not persistent, and so in no ``state_dict``."""
        stored = self.program.state_dict()
        return {name: value for name, value in self._buffers().items() if name not in stored}


def random_states(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's global generators that a fit draws from, named as in :class:`State`."""
    states = {"random/cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random/cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(tensors: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's global generators into these states.

    Raises:
        KeyError, RuntimeError, TypeError: If they are not such states.
    """
    torch.set_rng_state(tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random/cuda"], device)
