"""One step of SVI, as settings say."""

from collections.abc import Set
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..choices import Engine, GuideData
from ..compiled.engine import worth_compiling
from ..compiled.fused import TorchOptimizer
from ..compiled.svi import CompiledSVI
from ..data.batch import Batch
from ..data.dataset import DataSet
from ..objectives.estimators import make_objective
from ..objectives.forward import ForwardKL
from ..objectives.kl_weight import KLWeight
from ..programs.protocol import Program, device_of, dtype_of
from .processes import Processes, add_gradients
from .schedule import Schedule
from .settings import Settings


@dataclass(frozen=True)
class Refit:
    """What is trained, and on what, where it is the guide alone.

    Attributes:
        on: The data, simulations, or both.
        trained: The names of the guide's parameters.
    """

    on: GuideData
    trained: Set[str]


class SVIStep:
    """A step of :class:`ppl_vae.CompiledSVI` with Adam.

    Arguments:
        program: The program, on its device.
        settings: Which objective, and how its gradient is clipped.
        schedule: Learning rate and weight of the KL term, by the number of the step.
        engine: ``"compiled"``, ``"eager"`` or ``"auto"``.
        refit: Which parameters are trained on what, where not all are on the data. On both, the
            loss is the sum of the two.
        enumerated: Whether the guide has sites to be enumerated.
        processes: Those that take a step together.

    Attributes:
        parameters: What it trains.
        optimizer: Adam.
        svi: What runs model and guide.
    """

    def __init__(
        self,
        program: Program,
        settings: Settings,
        schedule: Schedule,
        engine: Engine,
        refit: Refit | None = None,
        enumerated: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self._processes, self._counts = processes or Processes(), True
        self.schedule, self.device, self.dtype = schedule, device_of(program), dtype_of(program)
        self.parameters = [
            parameter
            for name, parameter in program.named_parameters()
            if (parameter.requires_grad if refit is None else name in refit.trained)
        ]
        self._on: GuideData = "data" if refit is None else refit.on
        self.optimizer = self._adam(settings.learning_rate)
        self._clip_norm, self._size = settings.clip_norm, 0
        if self._processes.count > 1:
            self.optimizer.register_step_pre_hook(self._add)
        if settings.clip_norm is not None:
            self.optimizer.register_step_pre_hook(self._clip)
        weighted = settings.kl_warmup_epochs > 0 or settings.free_bits > 0
        mean = torch.mean if self._processes.count == 1 else self._mean
        self._kl_weight = KLWeight(settings.free_bits, mean) if weighted else None
        self._objective = make_objective(settings.objective, settings.particles, enumerated)
        self.svi = CompiledSVI(
            program.model,
            program.guide,
            TorchOptimizer(self.optimizer),
            self._objective.loss,  # which nothing asks for
            self._loss_and_grads,
            engine=engine,
        )

    def __call__(self, batch: Batch, number: int, lr_scale: float = 1.0) -> Any:
        """Take a step.

        Arguments:
            batch: Data, on any device, of which this process takes its share.
            number: How many steps there were before.
            lr_scale: What the scheduled learning rate is multiplied by.

        Returns:
            The loss in nats, summed over the share; perhaps as a tensor, which a GPU has yet to
            fill.
        """
        if self._kl_weight is not None:
            self._kl_weight.weight = self.schedule.kl_weight(number)
        lr = self.schedule.lr(number) * lr_scale
        (group,) = self.optimizer.param_groups
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)  # where a CUDA graph reads it
        else:
            group["lr"] = lr
        self._size = batch.size
        share, self._counts = self._processes.share(batch)
        loss = share.to(self.device, self.dtype).call(self.svi.update)
        return loss if self._counts else 0.0

    @property
    def kl_weight(self) -> float:
        """The weight of the KL term in the last step."""
        return 1.0 if self._kl_weight is None else self._kl_weight.weight

    def _adam(self, rate: float) -> torch.optim.Adam:
        # A CUDA graph of the step would leave out what processes exchange before it.
        on_gpu = self.device.type == "cuda" and self._processes.count == 1
        lr = torch.tensor(rate, device=self.device) if on_gpu else rate
        return torch.optim.Adam(self.parameters, lr=lr, fused=True, capturable=on_gpu)

    def _loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Any:
        loss: Any = 0.0
        if self._on != "simulations":
            with self._kl_weight or nullcontext():
                loss = self._objective.loss_and_grads(model, guide, *args, **kwargs)
        if self._on != "data":
            loss = loss + ForwardKL().loss_and_grads(model, guide, *args, **kwargs)
        return loss

    def _add(self, *args: Any) -> None:
        add_gradients(self._processes, self.parameters, self._counts)

    def _mean(self, values: Tensor) -> Tensor:
        return self._processes.mean(values, self._counts)

    def _clip(self, *args: Any) -> None:
        # Pyro's losses are sums over the batch, and so are their gradients.
        assert self._clip_norm is not None
        nn.utils.clip_grad_norm_(self.parameters, self._clip_norm * self._size)


def choose_engine(settings: Settings, data: DataSet, steps: int, processes: Processes) -> Engine:
    """What the engine ``"auto"`` comes to, once the number of steps is known."""
    if settings.free_bits and processes.count > 1:
        return "eager"  # they exchange the KL while the loss is computed
    if settings.engine != "auto":
        return settings.engine
    stored = (data.train.x, *data.train.covariates.values())
    size = settings.batch_size // processes.count
    numbers = sum(tensor[:size].numel() for tensor in stored)
    return "compiled" if worth_compiling(steps, numbers) else "eager"
