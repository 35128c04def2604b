"""The epochs of a fit, where there is no progress bar."""

from .terminal import LOG


class EpochLog:
    """Prints each epoch of a fit as one line on standard error.

    Arguments:
        epochs: How many there will be, at most.

    Example:
        >>> log = EpochLog(20)
        >>> log.line({"epoch": 3, "elbo": -95.124, "loss": 96.3, "seconds": 1.2})
        'epoch 3/20: ELBO -95.12 nats, loss 96.30, 1.2 s, 0:20 left'
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self._seconds: list[float] = []

    def __call__(self, row: dict[str, float]) -> None:
        """Print the row of an epoch."""
        LOG.info(self.line(row))

    def line(self, row: dict[str, float]) -> str:
        """The row of an epoch in words; the time left is that of as many mean epochs."""
        self._seconds.append(row["seconds"])
        epoch, spent = int(row["epoch"]), sum(self._seconds) / len(self._seconds)
        left = round((self.epochs - epoch) * spent)
        names = {"elbo": "ELBO", "reconstruction": "reconstruction"}
        score = next(f"{title} {row[name]:.2f}" for name, title in names.items() if name in row)
        return (
            f"epoch {epoch}/{self.epochs}: {score} nats, loss {row['loss']:.2f}, "
            f"{row['seconds']:.1f} s, {left // 60}:{left % 60:02} left"
        )
