"""The learning rate and the weight of the KL term, step by step."""

import math
from dataclasses import dataclass

from .settings import Settings


@dataclass(frozen=True)
class Schedule:
    """What a step is taken with, as a function of its number.

    It is not a ``torch.optim.lr_scheduler``: those count steps of their own, which a roll back
    would have to undo, and compute in the type of the rate, which is float32 where a CUDA graph
    reads it from a tensor.

    Attributes:
        learning_rate: The highest rate.
        steps: All steps of the fit.
        warmup: Steps over which the rate rises to the highest.
        kl_warmup: Steps over which the weight of the KL term rises to 1.

    Example:
        >>> schedule = Schedule(learning_rate=0.1, steps=100, warmup=20.0, kl_warmup=0.0)
        >>> [round(schedule.lr(step), 3) for step in (0, 20, 60, 99)]
        [0.005, 0.1, 0.05, 0.0]
    """

    learning_rate: float
    steps: int
    warmup: float
    kl_warmup: float

    @classmethod
    def of(cls, settings: Settings, steps_per_epoch: int) -> "Schedule":
        """The schedule of a fit."""
        steps = settings.epochs * steps_per_epoch
        warmup = min(settings.warmup_epochs * steps_per_epoch, steps / 2)
        return cls(
            settings.learning_rate, steps, warmup, settings.kl_warmup_epochs * steps_per_epoch
        )

    def lr(self, step: int) -> float:
        """The learning rate: a linear warm-up, then half a cosine (Loshchilov & Hutter 2017)."""
        if step < self.warmup:
            return self.learning_rate * ((step + 1) / (self.warmup + 1))
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (0.5 * (1 + math.cos(math.pi * done)))

    def kl_weight(self, step: int) -> float:
        """The weight of the KL term: a linear warm-up to 1 (Bowman et al. 2016)."""
        return min(1.0, (step + 1) / (self.kl_warmup + 1))
