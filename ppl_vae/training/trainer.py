"""SVI on a data set, epoch by epoch: check, snapshot, roll back."""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import nn

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..programs.protocol import Program, device_of
from ..progress import Progress
from .batches import EpochBatches
from .processes import Processes, check_layers
from .schedule import Schedule
from .settings import Settings
from .shared_state import gather_states, restore_states, score_together
from .state import (
    MAX_DIVERGENCES,
    Counters,
    State,
    TrainedTensors,
    prefixed,
)
from .step import Refit, SVIStep, choose_engine
from .validation import Validation

LOSS_CHECKS = 50  # in an epoch, each of which waits for a GPU
SNAPSHOT_STEPS = 50  # before a state is worth its copy


class DivergenceError(Exception):
    """A fit diverged too often in a row."""


class DivergenceWarning(UserWarning):
    """A fit was rolled back to an earlier step, and continues at a lower learning rate."""


class Trainer:
    """The moving parts of one fit.

    A state is sound where weights, moments and buffers are finite; it is copied every
    :data:`SNAPSHOT_STEPS` steps and after each epoch. Where it is not, or a loss or the validation
    ELBO is not finite, weights and moments go back to the last snapshot, at a tenth of the learning
    rate, while data and draws go on. The second time in a row, they go back to the best weights,
    and Adam starts afresh; the third time ends the fit.

    Arguments: as of :func:`ppl_vae.fit`, the program on its device; what a refit trains, processes.

    Attributes:
        best: The weights with the best score so far.
        last, on_snapshot: The last snapshot, and what is called when there is a new one.

    Raises:
        InputError: If the program does not suit the validation data, objective, or processes.
    """

    def __init__(
        self,
        program: Program,
        data: DataSet,
        settings: Settings,
        refit: Refit | None = None,
        processes: Processes | None = None,
    ) -> None:
        self.processes = processes or Processes()
        check_layers(self.processes, cast(nn.Module, program))
        self.program, self.settings, self.device = program, settings, device_of(program)
        self.batches = EpochBatches(data, settings.batch_size, settings.seed, self.device)
        self.validation = Validation(program, data, settings, refit)
        self.schedule = Schedule.of(settings, len(self.batches))
        engine = choose_engine(settings, data, self.schedule.steps, self.processes)
        enumerated = bool(self.validation.posterior.sites.enumerated)
        self.svi_step = SVIStep(
            program, settings, self.schedule, engine, refit, enumerated, self.processes
        )
        self.shapes = self.svi_step.svi.gradients.shapes  # what the engine has compiled
        self.tensors = TrainedTensors(program, self.svi_step.optimizer)
        self.refit, self.counters, self.best = refit, Counters(), self.tensors.weights()
        self.last: State | None = None
        self.on_snapshot: Callable[[], None] = lambda: None

    def epoch(self, progress: Progress | None = None) -> dict[str, float]:
        """What is left of a pass over the training data, and one over the validation data.

        Returns the row of :class:`ppl_vae.training.fit.History`; ``progress`` is told of steps.
        Raises :class:`DivergenceError` if it diverged three times in a row.
        """
        counters, progress = self.counters, progress or Progress()
        start = time.perf_counter() - counters.seconds
        last = self.last or self.snapshot()
        unchecked = torch.zeros((), dtype=torch.float64, device=self.device)
        steps, seen, every = 0, 0, math.ceil(len(self.batches) / LOSS_CHECKS)
        for batch in self.batches.remaining(counters.batches):
            unchecked += self.step(batch)
            counters.batches += 1
            steps, seen = steps + 1, seen + batch.size
            ends = counters.batches == len(self.batches)
            if counters.batches % every and not ends:
                continue
            if cause := counters.check_loss(self.processes.total(unchecked.item()), seen):
                self.roll_back(cause)
            progress.advance(steps, f"loss {counters.mean_loss:.2f}")
            unchecked.zero_()
            steps = seen = 0
            counters.seconds = time.perf_counter() - start
            if not ends and counters.steps - last.plain["steps"] >= SNAPSHOT_STEPS:
                if cause := self.check():
                    self.roll_back(cause)
                else:
                    last = self.snapshot()
        first_lr = self.schedule.lr(counters.steps - counters.batches)
        row = self._validated() | {
            "loss": counters.mean_loss,
            "learning_rate": first_lr * counters.lr_scale,
            "kl_weight": self.svi_step.kl_weight,
            "seconds": time.perf_counter() - start,
        }
        counters.begin_epoch()
        self.batches.begin_epoch()
        return row

    def step(self, batch: Batch) -> Any:
        """One step of SVI; returns the loss in nats, summed over the batch."""
        loss = self.svi_step(batch, self.counters.steps, self.counters.lr_scale)
        self.counters.steps += 1
        return loss

    def _validated(self) -> dict[str, float]:
        """Score the validation data, with the newest weights that can be scored."""
        while True:
            row, cause = score_together(self.processes, self.check(), self.validation)
            if not cause:
                return row
            self.roll_back(cause)

    def update_best(self, row: Mapping[str, float]) -> bool:
        """Make the present weights the best if they score better; say whether they do."""
        if is_best := (score := self.validation.score(row)) > self.counters.best_score:
            self.best, self.counters.best_score = self.tensors.weights(), score
        return is_best

    def check(self) -> str:
        """Why the state is not sound; nothing if it is."""
        sound = self.processes.all(self.tensors.are_finite())
        return "" if sound else "a gradient was not finite"

    def snapshot(self) -> State:
        """Copy the state, which must be sound."""
        if self.counters.steps > self.counters.last_rollback:
            self.counters.num_divergences = 0
        tensors = self.tensors.copy() | prefixed("best", self.best)
        states, plain = gather_states(self.processes, self.device, self.shapes)
        tensors |= states | self.batches.states()
        self.last = State(tensors, plain | asdict(self.counters))
        self.on_snapshot()
        return self.last

    def roll_back(self, cause: str) -> None:
        """Go back to the last snapshot, or to the best weights, at a lower learning rate.

        Raises:
            DivergenceError: If it diverged for the third time in a row.
        """
        assert self.last is not None
        counters = self.counters
        if counters.diverge() >= MAX_DIVERGENCES:
            raise DivergenceError(cause)
        first = counters.num_divergences == 1
        self.tensors.put_back(self.last.tensors if first else prefixed("program", self.best))
        target = f"step {self.last.plain['steps']}" if first else "the best weights"
        rate = f"learning rate scaled by {counters.lr_scale:g}"
        words = f"{cause} by step {counters.steps}: rolled back to {target}, {rate}"
        warnings.warn(words, DivergenceWarning, stacklevel=2)

    def restore(self, state: State) -> None:
        """Continue from a snapshot, perhaps one of another process.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: If it is not one of such a fit.
        """
        counters = Counters.restored(state.plain, len(self.batches))
        self.tensors.check_sizes(state.tensors)
        self.batches.restore(state.tensors)
        restore_states(self.processes, state, self.device, self.shapes, self.settings.seed)
        self.tensors.put_back(state.tensors)
        self.counters, self.best, self.last = counters, state.part("best"), state
