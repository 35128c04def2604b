"""The answer to a question: a verdict, and the labelled arrays that it rests on."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import xarray

from ..errors import InputError

Grade = Literal["pass", "caution", "fail", "cannot say"]
GRADES: tuple[Grade, ...] = get_args(Grade)

Z = 3.0  # standard errors above a threshold before a statistic counts as above it: p = 0.0013


@dataclass(frozen=True, repr=False)
class Verdict:
    """The answer to one question, by a statistic.

    Attributes:
        question: What was asked.
        grade: ``"pass"``, ``"caution"``, ``"fail"`` or ``"cannot say"``.
        meaning: What the answer means, or why there is none, in one sentence.
        statistic: What was measured.
        value: Its value; ``None`` where there is none.
        error: Its standard error.
        unit: Its unit.
        threshold: Where caution and failure begin.
        source: The papers that statistic and threshold are from.
        remedy: What to try next; empty for a pass.

    Raises:
        InputError: If a field is not of its type, or there is no such grade.

    Example:
        >>> Verdict("Is q(z|x) calibrated?", "pass", "...", value=0.12345, error=0.0123)
        Verdict(pass: Is q(z|x) calibrated? 0.123 ± 0.012)
    """

    question: str
    grade: Grade
    meaning: str
    statistic: str = ""
    value: float | None = None
    error: float | None = None
    unit: str = ""
    threshold: str = ""
    source: str = ""
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.grade not in GRADES:
            raise InputError("grade", f"must be one of {', '.join(GRADES)}, got {self.grade!r}")
        for name in ("question", "meaning", "statistic", "unit", "threshold", "source", "remedy"):
            if not isinstance(text := getattr(self, name), str):
                raise InputError(f"{name} of a verdict", f"must be text, got {text!r}")
        for name in ("value", "error"):
            number = getattr(self, name)
            if not (number is None or isinstance(number, Real)):
                raise InputError(
                    f"{name} of a verdict", f"must be a number or None, got {number!r}"
                )
        if self.error is not None and self.error < 0:
            raise InputError("error of a verdict", f"must be at least 0, got {self.error!r}")

    def __repr__(self) -> str:
        return f"Verdict({self.grade}: {f'{self.question} {self.statistic_text}'.rstrip()})"

    @property
    def statistic_text(self) -> str:
        """The statistic with its error, in significant digits; empty where there is none.

        Example:
            >>> Verdict("?", "pass", "...", value=0.12345, error=0.0123).statistic_text
            '0.123 ± 0.012'
        """
        if self.value is None:
            return ""
        if not self.error or not math.isfinite(self.error):
            return f"{self.value:g} {self.unit}"
        digits = max(0, min(4, 1 - math.floor(math.log10(self.error))))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, for JSON."""
        found = asdict(self)
        for name in ("value", "error"):  # JSON has no NaN
            if found[name] is not None and not math.isfinite(found[name]):
                found[name] = None
        return found


@dataclass(frozen=True, repr=False)
class DiagnosticResult:
    """A verdict, and what it rests on.

    Attributes:
        verdict: The verdict.
        groups: Labelled arrays by the name of their group; every array has the attributes
            ``long_name`` and ``units``.
    """

    verdict: Verdict
    groups: Mapping[str, xarray.Dataset] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"DiagnosticResult({self.verdict!r}, groups: {', '.join(self.groups) or 'none'})"


def grade(value: float, error: float, caution: float, fail: float) -> Grade:
    """Grade a statistic of which smaller values are better.

    It counts as above a threshold if it is so by three standard errors, which happens by chance
    with a probability of 0.0013, and passes if it is below the first threshold by as much.

    Arguments:
        value: The value of the statistic.
        error: Its standard error.
        caution: Where caution begins.
        fail: Where failure begins.

    Returns:
        The grade; ``"cannot say"`` if the statistic is not finite, or if three standard errors
        reach across the first threshold: see :func:`needed`.

    Example:
        >>> grade(0.3, 0.01, 0.1, 0.5), grade(0.05, 0.01, 0.1, 0.5), grade(0.05, 0.03, 0.1, 0.5)
        ('caution', 'pass', 'cannot say')
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return "cannot say"
    if value - Z * error > caution:
        return "fail" if value - Z * error > fail else "caution"
    return "pass" if value + Z * error <= caution else "cannot say"


MANY = 100  # times as much data as there are: more is not asked for


def needed(value: float, error: float, caution: float, count: int, what: str = "data") -> str:
    """How much data would tell on which side of a threshold a statistic lies.

    The standard error falls with the root of their number.

    Arguments:
        value: The value of the statistic.
        error: Its standard error.
        caution: The threshold.
        count: The number of data that it was measured on.
        what: What they are.

    Example:
        >>> needed(0.05, 0.03, 0.1, 200)
        'more data: some 650 would tell'
        >>> needed(0.0999, 0.03, 0.1, 200)
        'more data: it is too close to the threshold for 20000 to tell'
    """
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"more {what}: the statistic is not finite"
    apart = abs(caution - value)
    factor = (Z * error / apart) ** 2 if apart else math.inf
    if factor > MANY:
        return f"more {what}: it is too close to the threshold for {MANY * count} to tell"
    wanted = math.ceil(factor * count)
    step = 10 ** max(0, len(str(wanted)) - 2)
    return f"more {what}: some {-(-wanted // step) * step} would tell"


def advice(given: Grade, remedy: str, more: str = "more data: the statistic is not finite") -> str:
    """What to try next: nothing after a pass; ``more``, of :func:`needed`, where none can say."""
    return {"pass": "", "cannot say": more}.get(given, remedy)


def sentence(words: str) -> str:
    """Words as a sentence, with a capital and a full stop.

    Example:
        >>> sentence("log p(x) is known")
        'Log p(x) is known.'
    """
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def share(chosen: Any) -> tuple[float, float]:
    """The share of true values, and the standard error of the share by Laplace's rule.

    Laplace's rule of succession adds one success and one failure, so that the error is not zero
    where all are alike, as the plain one would be. The share itself is the plain one. (The interval
    of Agresti & Coull, 1998, adds two of each.)

    Example:
        >>> share(np.zeros(98, dtype=bool))
        (0.0, 0.0099...)
    """
    count = len(chosen)
    guarded = (float(np.sum(chosen)) + 1) / (count + 2)
    return float(np.mean(chosen)), math.sqrt(guarded * (1 - guarded) / (count + 2))
