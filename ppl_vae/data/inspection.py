"""What columns hold, and what about them will be trouble."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .dataset import DataSet
from .missing import observed
from .schema import Column

SCALES = 1000.0  # the ratio of standard deviations that is worth a word
CLOSE = 1e-3  # of a standard deviation, to which single precision should know a value
MOSTLY = 0.99  # the share of one value that makes a column nearly constant
NAMED = 3  # columns that a line names


class DataWarning(UserWarning):
    """Data that can be read, and that a fit may go wrong on."""


@dataclass(frozen=True)
class Summary:
    """What a column holds, over all splits.

    Attributes:
        column: Its kind, and the mean and standard deviation of its training data.
        missing: How many of its values are missing.
        low, high: The least and the largest of those that are not.
        sd: Their standard deviation, in units of the data.
        mode_share: The share of their median among them.
    """

    column: Column
    missing: int
    low: float
    high: float
    sd: float
    mode_share: float


def summarize(data: DataSet) -> list[Summary]:
    """A summary of each column; empty for data without columns.

    Example:
        >>> from ppl_vae import make_data
        >>> [s.high for s in summarize(make_data(np.arange(20.0).reshape(10, 2)))]
        [18.0, 19.0]
    """
    parts = (data.train, data.validation, data.test)
    known = [observed(part.x, part.covariates) for part in parts]
    found = []
    for place, column in enumerate(data.columns):
        pieces = []
        for part, seen_of in zip(parts, known, strict=True):
            values = part.x[:, place].double().numpy() / (data.levels or 1)
            pieces.append(values[seen_of[:, place].numpy()])
        seen = np.concatenate(pieces)
        missing = sum(map(len, parts)) - len(seen)
        share = float((seen == np.median(seen)).mean())
        low, high, sd = float(seen.min()), float(seen.max()), float(seen.std())
        found.append(Summary(column, missing, low, high, sd, share))
    return found


def troubles(summaries: Sequence[Summary], standardized: bool = False) -> list[str]:
    """What to warn of, one line each, naming columns.

    Arguments:
        summaries: Of all columns.
        standardized: Whether the program brings columns to one scale by itself.

    Example:
        >>> a = Summary(Column("a", "real", 0.0, 1.0), 0, -1.0, 1.0, 1.0, 0.0)
        >>> b = Summary(Column("b", "real", 0.0, 1e4), 0, -1e4, 1e4, 1e4, 0.0)
        >>> troubles([a, b])[0][:56]
        'the scales of columns differ by a factor of 10,000: the '
    """
    said = []
    same = [s for s in summaries if s.column.is_constant]
    if same:
        said.append(f"{_list(same)} constant in the training data: nothing can be learned of it")
    rest = [
        s for s in summaries if not s.column.is_constant and s.column.kind in ("real", "positive")
    ]
    near = [s for s in rest if s.mode_share >= MOSTLY]
    if near:
        said.append(f"{_list(near)} nearly constant: {MOSTLY:.0%} of the values are the same")
    said += _coarse(rest)
    if not standardized and (words := scales(summaries)):
        said.append(f"{words}; bring them to one scale, such as unit variance")
    return said


def scales(summaries: Sequence[Summary]) -> str:
    """That the scales of columns differ by much, if they do."""
    numbers = [s for s in summaries if s.column.kind in ("real", "positive", "count") and s.sd > 0]
    if not numbers:
        return ""
    small, large = (choose(numbers, key=lambda s: s.sd) for choose in (min, max))
    if large.sd <= SCALES * small.sd:
        return ""
    return (
        f"the scales of columns differ by a factor of {large.sd / small.sd:,.0f}: the standard "
        f"deviation of {small.column.name!r} is {small.sd:.3g}, that of {large.column.name!r} is "
        f"{large.sd:.3g}"
    )


def _coarse(summaries: Sequence[Summary]) -> list[str]:
    """What single precision, in which programs compute, does not know of columns."""
    coarse = []
    for summary in summaries:
        step = float(np.spacing(np.float32(max(abs(summary.low), abs(summary.high)))))
        if summary.column.kind == "positive":  # the step of a logarithm
            step = float(np.finfo(np.float32).eps)
        if step > 2 * CLOSE * summary.column.scale:  # rounding errs by half a step
            coarse.append(summary)
    if not coarse:
        return []
    return [
        f"{_list(coarse)} too far from zero for single precision, which does not know values to a "
        "thousandth of their standard deviation: subtract an offset, such as the first time stamp"
    ]


def _list(summaries: Sequence[Summary]) -> str:
    """The first few columns, and the verb that follows."""
    names = [repr(s.column.name) for s in summaries]
    if len(names) > NAMED:
        names = [*names[:NAMED], f"{len(names) - NAMED} more"]
    if len(names) == 1:
        return f"column {names[0]} is"
    return f"columns {', '.join(names[:-1])} and {names[-1]} are"


def warn_of_precision(data: DataSet) -> None:
    """Warn of columns that single precision does not hold."""
    numbers = [s for s in data.columns if s.kind in ("real", "positive") and not s.is_constant]
    # A mean within so many deviations of zero needs no closer look.
    if any(abs(c.loc) > 1e3 * c.scale for c in numbers):
        for words in _coarse([s for s in summarize(data) if s.column in numbers]):
            warnings.warn(f"{data.source}: {words}", DataWarning, stacklevel=3)
