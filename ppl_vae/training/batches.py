"""The training data in random order, from any batch of an epoch on."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.dataset import DataSet
from ..runtime import derived_seed


class EpochBatches:
    """The batches of each epoch, the same after a restart.

    Arguments:
        data: The data set; its training data are gone through.
        size: Data points in a batch; the last one of an epoch holds what is left.
        seed: Seed of order and binarization.
        device: Where rows are gathered.

    Example:
        >>> from ppl_vae import load_data
        >>> batches = EpochBatches(load_data("digits"), 500, 0, torch.device("cpu"))
        >>> [batch.size for batch in batches.remaining(done=1)], len(batches)
        ([500, 437], 3)
    """

    def __init__(self, data: DataSet, size: int, seed: int, device: torch.device) -> None:
        self.data, self.size = data, size
        self.generator = torch.Generator(device)
        self.generator.manual_seed(derived_seed(seed, "data"))
        self.begin_epoch()

    def __len__(self) -> int:
        return math.ceil(len(self.data.train) / self.size)

    def begin_epoch(self) -> None:
        """Remember the state from which the order of the epoch will be drawn."""
        self._at_order = self.generator.get_state()

    def remaining(self, done: int) -> Iterator[Batch]:
        """The batches of this epoch, without the first ``done``, as they would have come."""
        present = self.generator.get_state()
        self.generator.set_state(self._at_order)
        order = self.data.order(self.generator)
        if done:
            self.generator.set_state(present)
        return self.data.batches(self.size, self.generator, order[done * self.size :])

    def states(self) -> dict[str, Tensor]:
        """What :meth:`restore` takes."""
        return {"random/order": self._at_order, "random/data": self.generator.get_state()}

    def restore(self, states: Mapping[str, Tensor]) -> None:
        """Continue as the one did whose :meth:`states` these are.

        Raises:
            KeyError, RuntimeError, TypeError: If they are not such states.
        """
        # Either is tried, for the order is drawn later.
        for name in ("random/order", "random/data"):
            self.generator.set_state(states[name])
        self._at_order = states["random/order"]
