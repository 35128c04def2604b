"""Distances between laws, and which of several a verdict speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass

from .materiality import total_variation
from .verdicts import Grade, Z, grade

SEVERITY: tuple[Grade, ...] = ("pass", "cannot say", "caution", "fail")


@dataclass(frozen=True)
class Distance:
    """A total variation, and of how many units it is.

    Attributes:
        name: Of what it is.
        value: The total variation.
        error: Its standard error.
        units: Latent units that it is of together; so many say what is material of it.
        kind: What sort of distance it is, for words.
        chance: Whether it may be chance alone.

    Example:
        >>> shifted = Distance("z[0]", 0.14, 0.01)  # the mean is off by 0.35 standard deviations
        >>> shifted.grade, Distance("log q", 0.14, 0.01, units=10).grade
        ('caution', 'pass')
    """

    name: str
    value: float
    error: float
    units: int = 1
    kind: str = "unit"
    chance: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """Where caution and failure begin."""
        return total_variation(self.units)

    @property
    def grade(self) -> Grade:
        """What it is graded."""
        return grade(self.value, self.error, *self.limits)

    @property
    def is_off(self) -> bool:
        """Whether it matters."""
        return self.grade in ("caution", "fail")

    @property
    def threshold(self) -> str:
        """The limits, and what they mean."""
        caution, fail = self.limits
        return (
            f"caution above {caution:.2g}, fail above {fail:.2g}, by 3 standard errors: what a "
            "mean off by a quarter or a half of a standard deviation gives"
            + (f" in each of {self.units} active units" if self.units > 1 else "")
        )


def most_telling(distances: Sequence[Distance]) -> Distance:
    """The worst one, by the upper end of its interval, and of several faults a unit's: it says
    more than a joint one.

    Example:
        >>> joint = Distance("all", 0.9, 0.01, units=2, kind="joint")
        >>> most_telling([joint, Distance("z[0]", 0.4, 0.01), Distance("z[1]", 0.5, 0.01)]).name
        'z[1]'
    """
    return max(
        distances,
        key=lambda d: (
            SEVERITY.index(d.grade),
            d.is_off and d.kind == "unit",
            (d.value + Z * d.error) / d.limits[0],
        ),
    )
