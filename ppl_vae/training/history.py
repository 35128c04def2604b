"""What happened in a fit."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(repr=False)
class History:
    """What happened in a fit.

    Attributes:
        epochs: One row for each epoch: the validation ``elbo``, ``reconstruction`` and ``kl`` in
            nats per datum, the training ``loss``, rates and times; where a guide is trained on
            simulations, ``log_q`` too, the mean of log q(z | x) over simulations.
        best_epoch: The epoch whose weights the program ends with; 0 where a guide was trained, and
            none scored better than the one before.
        stopped_early: Whether patience ran out, or ``on_epoch`` ended the fit.

    Example:
        >>> History([{"epoch": 1, "elbo": -75.204, "reconstruction": -70.0}], best_epoch=1)
        History(1 epoch, the best 1: validation ELBO -75.20)
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    stopped_early: bool = False

    def __repr__(self) -> str:
        count = len(self.epochs)
        if not 0 < self.best_epoch <= count:
            return f"History({count} epochs)"
        score = validation_score(self.epochs[self.best_epoch - 1])
        ended = ", stopped early" if self.stopped_early else ""
        plural = "s" if count > 1 else ""
        return f"History({count} epoch{plural}, the best {self.best_epoch}: {score}{ended})"

    @classmethod
    def restored(cls, fields: dict[str, Any]) -> "History":
        """The history that a file gave.

        Raises:
            KeyError, TypeError, ValueError: If it is not one.
        """
        history = cls(**fields)
        for number, row in enumerate(history.epochs, start=1):
            known = row.keys() >= {"epoch", "reconstruction", "seconds"} and row["epoch"] == number
            if not known or not {*map(type, row.values())} <= {int, float}:
                raise ValueError(f"its row of epoch {number} is {row}")
        if type(history.best_epoch) is not int or type(history.stopped_early) is not bool:
            raise TypeError("it does not say which epoch was best")
        return history


def validation_score(row: dict[str, float]) -> str:
    """The score of an epoch in words, in nats per datum."""
    if "log_q" in row:
        return f"validation ELBO {row['elbo']:.2f}, log q {row['log_q']:.2f}"
    if "elbo" in row:
        return f"validation ELBO {row['elbo']:.2f}"
    return f"validation reconstruction {row['reconstruction']:.2f}"
