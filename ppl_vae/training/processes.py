"""The processes that fit one program together, as ``torchrun`` starts them."""

import atexit
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..data.batch import Batch
from ..errors import InputError


class Processes:
    """The processes of a fit, each of which takes its share of every batch.

    Pyro's losses are sums over the batch, and so gradients of shares add up to that of the batch.
    All processes go through the data in the same order, with the same binarization, and draw
    latents from generators of their own. What is decided, such as a rollback or an early stop, is
    decided once. A single process is one of its own, to which none of this applies.

    Attributes:
        rank: Which of them this is, from 0; the first keeps the record.
        count: How many there are.

    Example:
        >>> alone = Processes()
        >>> alone.is_first, alone.total(2.5), alone.share(Batch(x=torch.zeros(4, 2)))[0].size
        (True, 2.5, 4)
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    @classmethod
    def launched(cls) -> "Processes":
        """Those that ``torchrun`` has started, or that the user's own code has joined."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        if dist.is_available() and dist.is_torchelastic_launched():
            return cls(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        return cls()

    def join(self) -> "Processes":
        """Meet the others, unless that is done, and wait until all have come.

        Raises:
            InputError: If one of them ended.
        """
        if self.count > 1:
            if not dist.is_initialized():
                backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
                self.together(dist.init_process_group, backend)
                atexit.register(_leave)
            self.total(0.0)
        return self

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def device_name(self, name: str) -> str:
        """``"auto"`` is a GPU for each process of a machine, where there are GPUs."""
        if self.count > 1 and name == "auto" and torch.cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        return name

    def share(self, batch: Batch) -> tuple[Batch, bool]:
        """This process's data points of a batch, and whether they count.

        Where there are fewer data points than processes, some run on one that does not count, so
        that all take part in each exchange.
        """
        if self.count == 1:
            return batch, True
        first, last = (batch.size * rank // self.count for rank in (self.rank, self.rank + 1))
        if first == last:
            return batch.rows(slice(1)), False
        return batch.rows(slice(first, last)), True

    def mean(self, values: Tensor, counts: bool) -> Tensor:
        """The mean over the data points of all processes, of shape ()."""
        if self.count == 1:
            return values.mean()
        both = torch.stack([values.sum(), values.new_tensor(values.numel())]) * counts
        self.together(dist.all_reduce, both)
        return both[0] / both[1]

    def total(self, value: float) -> float:
        """The sum over processes."""
        if self.count == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        self.together(dist.all_reduce, found)
        return found.item()

    def all(self, is_so: bool) -> bool:
        """Whether it is so in all of them."""
        return self.total(float(not is_so)) == 0

    def copy_first(self, tensors: Sequence[Tensor]) -> None:
        """Give tensors the values that they have in the first process; in place."""
        if self.count > 1:
            for tensor in tensors:
                self.together(dist.broadcast, tensor, 0)

    def said_by_first(self, value: Any) -> Any:
        """What the first process has, of what JSON can say."""
        return value if self.count == 1 else json.loads(self.sent_by_first(_packed(value)))

    def sent_by_first(self, data: bytes) -> bytes:
        """The bytes that the first process has."""
        if self.count == 1:
            return data
        size = torch.tensor(len(data))
        self.together(dist.broadcast, size, 0)
        sent = _tensor(data) if self.is_first else torch.empty(int(size), dtype=torch.uint8)
        self.together(dist.broadcast, sent, 0)
        return sent.numpy().tobytes()

    def said_by_each(self, value: Any) -> list[Any]:
        """What each process has, of what JSON can say."""
        if self.count == 1:
            return [value]
        data = _packed(value)
        longest = torch.tensor(len(data))
        self.together(dist.all_reduce, longest, dist.ReduceOp.MAX)
        padded = _tensor(data.ljust(int(longest)))
        return [json.loads(other.numpy().tobytes()) for other in self.each(padded)]

    def at_first(self, value: Any) -> list[Any]:
        """What each process has, of any kind, in the first; nothing in the others."""
        if self.count == 1:
            return [value]
        found = [None] * self.count if self.is_first else None
        self.together(dist.gather_object, value, found)
        return found or []

    def each(self, tensor: Tensor) -> list[Tensor]:
        """The tensors that the processes have, all of one shape and type, on the CPU."""
        if self.count == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        self.together(dist.all_gather, found, tensor)
        return found

    def together(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function of ``torch.distributed``, as all of them do.

        Raises:
            InputError: If one of them ended.
        """
        try:
            function(*args)
        except RuntimeError as error:  # of which all of torch.distributed's errors are
            raise InputError(
                "this command",
                f"lost one of its {self.count} processes",
                "see what that one said; a fit goes on from its newest checkpoint",
            ) from error


def check_layers(processes: Processes, program: nn.Module) -> None:
    """Refuse what each process would compute of its own share alone.

    Raises:
        InputError: If the program has batch normalization.
    """
    for name, module in program.named_modules():
        if processes.count > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise InputError(
                f"layer {name!r}",
                "normalizes by the data points of its own process, not of the whole batch",
                "use nn.LayerNorm or nn.GroupNorm, or fit in one process",
            )


def add_gradients(processes: Processes, parameters: Sequence[Tensor], counts: bool) -> None:
    """Give each parameter the sum of its gradients over processes, in one exchange; in place.

    Those that have no gradient in any process are left without.

    Arguments:
        processes: Who takes part.
        parameters: The same in all of them, in the same order.
        counts: Whether this process's gradients are of data points that count.
    """
    if processes.count == 1:
        return
    zeros = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    present = parameters[0].new_tensor([float(p.grad is not None) for p in parameters])
    flat = torch.cat([present, *(part.flatten() for part in zeros)])
    if not counts:
        flat.zero_()
    processes.together(dist.all_reduce, flat)
    present, *sums = flat.split([len(parameters), *(p.numel() for p in parameters)])
    for parameter, some, total in zip(parameters, present.tolist(), sums, strict=True):
        if some:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(total.view_as(parameter))


def _packed(value: Any) -> bytes:
    return json.dumps(value).encode()


def _tensor(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
