"""Categories, as codes from 0."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from .base import Advised, Columns, Likelihood, column_names


class Codes(constraints.Constraint):
    """Whole numbers 0 ... K - 1, as floating-point numbers, K for each column."""

    is_discrete = True
    event_dim = 0

    def __init__(self, classes: Tensor) -> None:
        self.classes = classes
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return (value % 1 == 0) & (value >= 0) & (value < self.classes)


class CodeDistribution(Advised, dist.TorchDistribution):
    r"""Probabilities of codes, which are values of the type of the data.

    PyTorch's categorical distribution has integers, whose columns cannot stand beside real ones.

    Arguments:
        logits: Log probabilities up to a constant, of shape (\*, D, K).
        classes: How many codes each column has, at most K: of shape (D,), or a scalar.
        title: What errors call the likelihood.
        validate_args: As of any distribution.
    """

    arg_constraints = {"logits": constraints.independent(constraints.real, 1)}  # noqa: RUF012

    def __init__(
        self, logits: Tensor, classes: Tensor, title: str, validate_args: bool | None = None
    ) -> None:
        self.given, self.classes, self.title = logits, classes, title
        used = torch.arange(logits.shape[-1], device=logits.device) < classes.unsqueeze(-1)
        # The lowest number, not minus infinity: its gradient is zero, not NaN.
        lowest = torch.finfo(logits.dtype).min
        self.logits = torch.where(used, logits, lowest).log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return Codes(self.classes)

    @property
    def mean(self) -> Tensor:
        """The most probable code: codes have no mean, and this is what a reconstruction shows."""
        return self.logits.argmax(-1).to(self.logits.dtype)

    @property
    def variance(self) -> Tensor:
        """NaN: codes have none."""
        return torch.full_like(self.logits[..., 0], torch.nan)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "CodeDistribution":
        logits = self.given.expand(torch.Size(batch_shape) + self.given.shape[-1:])
        new = CodeDistribution(logits, self.classes, self.title, self._validate_args)
        expanded: CodeDistribution = new.named(self.names)
        return expanded

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            table = self.logits.exp().expand(*shape, -1).reshape(-1, self.logits.shape[-1])
            return table.multinomial(1).reshape(shape).to(self.logits.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        logits = self.logits.expand(*shape, -1)
        found: Tensor = logits.gather(-1, value.long().expand(shape).unsqueeze(-1)).squeeze(-1)
        return found

    def remedy(self, value: float) -> str:
        classes = sorted({int(k) for k in self.classes.flatten()})
        known = " or ".join(f"0 ... {k - 1}" for k in classes)
        return f"its codes are {known}; for counts use poisson or negative-binomial"


class Categorical(Likelihood):
    """Categories, as codes 0 ... K - 1; the decoder gives a logit for each code.

    The encoder reads each as zeros and a one.

    Arguments:
        data_shape: Shape of one datum.
        columns: What is known of each column of a table: its ``categories``.
        classes: The number of codes K, the same for all values, if columns do not say it.

    Raises:
        ValueError: If the number of codes is not known, or less than 2.

    Example:
        >>> likelihood = Categorical((2,), classes=3)
        >>> likelihood.output_shape
        (6,)
        >>> likelihood(torch.zeros(6)).log_prob(torch.tensor([0.0, 2.0])).exp()
        tensor([0.3333, 0.3333])
    """

    classes: Tensor
    title = "categorical"

    def __init__(
        self,
        data_shape: Sequence[int],
        columns: Columns | None = None,
        classes: int | None = None,
    ) -> None:
        counts = class_counts(data_shape, columns, classes)
        most = max(counts)
        super().__init__(data_shape, columns, outputs=most, inputs=most)
        self.most = most
        shared = columns is None
        known = torch.tensor(counts[0] if shared else counts)
        self.register_buffer("classes", known, persistent=False)

    def forward(self, output: Tensor) -> dist.Distribution:
        logits = self.split(output, self.most).movedim(-1 - len(self.data_shape), -1)
        return CodeDistribution(logits, self.classes, self.title).named(self.names)

    def read(self, x: Tensor) -> Tensor:
        place = -len(self.data_shape)
        read = one_hot(x, self.most).movedim(-1, place - 1)
        return read.flatten(place - 1, place)

    def spread(self, mask: Tensor) -> Tensor:
        return torch.cat([mask] * self.most, -len(self.data_shape))


def class_counts(
    data_shape: Sequence[int], columns: Columns | None, classes: int | None
) -> list[int]:
    """How many codes each column has; one number where there are no columns.

    Raises:
        ValueError: In one line.
    """
    if columns is None and classes is None:
        raise ValueError(
            "columns or classes must be given: a likelihood of codes needs to know how many there "
            "are; make it with classes, or use poisson for counts"
        )
    counts: list[Any] = [classes]
    if columns is not None:
        column_names(columns, data_shape)
        codes = [column.get("categories", ()) for column in columns]
        counts = [len(names) if isinstance(names, Sequence) else names for names in codes]
    for place, count in enumerate(counts):
        if not isinstance(count, int) or isinstance(count, bool) or count < 2:
            if columns is None:
                raise ValueError(f"classes must be an integer of at least 2, got {count!r}")
            name = columns[place].get("name")
            raise ValueError(
                f"columns must have categories, but {name!r} has {count!r}: 2 at least"
            )
    return counts


def one_hot(x: Tensor, classes: int) -> Tensor:
    """Zeros, and a one for each code, in a dimension behind those of x."""
    return (x.unsqueeze(-1) == torch.arange(classes, device=x.device)).to(x.dtype)
