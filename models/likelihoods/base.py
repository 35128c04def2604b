"""What likelihoods share: their shapes, what an encoder reads, masks, and errors about values."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

Columns = Sequence[Mapping[str, Any]]
"""Of each column of a table: ``name``, ``kind``, ``loc``, ``scale`` and ``categories``."""

INSIDE = 1.0  # lies in the support of every likelihood here


class Likelihood(nn.Module):
    r"""From the decoder's output to the distribution p(x | z).

    ``forward(output)``, or ``forward(output, exposure)`` where an exposure has a meaning, returns a
    distribution of batch shape (\*, \*data_shape).

    Arguments:
        data_shape: Shape of one datum.
        columns: What is known of each column of a table: at least its name.
        outputs: Numbers that the decoder gives for each value of a datum.
        inputs: Numbers that the encoder reads for each.

    Raises:
        ValueError: If there is another number of columns.

    Attributes:
        names: The names of the columns, if they are known.
        output_shape: Shape of the decoder's output for one datum.
        input_shape: Shape of what the encoder reads of it.
    """

    takes_exposure = False

    def __init__(
        self,
        data_shape: Sequence[int],
        columns: Columns | None = None,
        *,
        outputs: int = 1,
        inputs: int = 1,
    ) -> None:
        super().__init__()
        self.data_shape = tuple(data_shape)
        self.names = () if columns is None else column_names(columns, self.data_shape)
        first, *rest = self.data_shape
        self.output_shape, self.input_shape = (outputs * first, *rest), (inputs * first, *rest)

    def inputs(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        r"""What an encoder reads of data of shape (\*, \*data_shape): zero where one is missing."""
        if mask is None:
            return self.read(x)
        return torch.where(self.spread(mask), self.read(torch.where(mask, x, INSIDE)), 0.0)

    def read(self, x: Tensor) -> Tensor:
        """What an encoder reads of complete data."""
        return x

    def spread(self, mask: Tensor) -> Tensor:
        """The mask in the shape of what the encoder reads."""
        return mask

    def split(self, output: Tensor, outputs: int) -> Tensor:
        r"""The decoder's output as (\*, outputs, \*data_shape)."""
        return output.unflatten(-len(self.data_shape), (outputs, self.data_shape[0]))

    def parameter_shape(self) -> tuple[int, ...]:
        """That of a learned parameter: each column of a table has its own, an image has one."""
        return self.data_shape if len(self.data_shape) == 1 else ()


def encoder_inputs(likelihood: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """What the encoder reads of data, by a likelihood that need not say so: the data themselves."""
    inputs: Any = getattr(likelihood, "inputs", None)
    if inputs is not None:
        return inputs(x, mask)
    return x if mask is None else torch.where(mask, x, 0.0)


def data_distribution(
    likelihood: nn.Module,
    output: Tensor,
    mask: Tensor | None = None,
    exposure: Tensor | None = None,
) -> Any:
    r"""p(x | z) for each value of a datum, whose log density counts the observed ones alone.

    Arguments:
        likelihood: The likelihood.
        output: The decoder's, of shape (\*, \*output_shape).
        mask: True where a value was observed, of the shape of the data.
        exposure: What multiplies the mean of counts, of shape (N,) or that of the data.

    Raises:
        ValueError: If there is an exposure, and the likelihood takes none.
    """
    if exposure is None:
        p = likelihood(output)
    elif getattr(likelihood, "takes_exposure", True):
        p = likelihood(output, exposure)
    else:
        raise ValueError(
            f"exposure was given, but the likelihood {type(likelihood).__name__} has no use for "
            "it: leave it out, or use poisson or negative-binomial"
        )
    return p if mask is None else p.mask(mask)


class Observed(dist.MaskedDistribution):
    """A distribution of which only some values were observed: the others may be anything, and
    neither their density nor its gradient is asked for."""

    def log_prob(self, value: Tensor) -> Tensor:
        if isinstance(self._mask, Tensor):
            value = torch.where(self._mask, value, torch.as_tensor(INSIDE).to(value))
        return super().log_prob(value)


class Advised:
    """A distribution whose error about a value names its column, and a suitable likelihood.

    Attributes:
        title: What the error calls the likelihood.
        names: Names of the columns of a table, the last dimension; empty where there are none.
    """

    title: str
    names: tuple[str, ...] = ()

    def named(self, names: tuple[str, ...]) -> Any:
        """The same, with names for its columns."""
        self.names = names
        return self

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, _instance).named(self.names)  # type: ignore[misc]

    def mask(self, mask: Any) -> Any:
        return Observed(self, mask)

    def remedy(self, value: float) -> str:
        """What to do about a value outside the support."""
        return remedy(value)

    def _validate_sample(self, value: Tensor) -> None:
        try:
            super()._validate_sample(value)  # type: ignore[misc]
        except ValueError:
            inside = self.support.check(value)  # type: ignore[attr-defined]
            if inside.all():
                raise  # about shapes
            place = (~inside.expand(value.shape)).nonzero()[0]
            outlier = value[tuple(place)].item()
            column = f"column {self.names[int(place[-1])]!r}: " if self.names else ""
            advice = MISSING if math.isnan(outlier) else self.remedy(outlier)
            raise ValueError(
                f"{column}{outlier:.6g} lies outside the support of the {self.title} likelihood; "
                f"{advice}"
            ) from None


MISSING = "remove or impute missing values"
OF_REALS = "for real numbers use gaussian or laplace"


def remedy(value: float) -> str:
    """The likelihood of a value that is no number of zeros and ones.

    Example:
        >>> remedy(0.5)
        'for grey pixels in [0, 1] use continuous-bernoulli, or binarize the data'
    """
    if 0 <= value <= 1:
        return "for grey pixels in [0, 1] use continuous-bernoulli, or binarize the data"
    if 1 < value <= 255:
        return (
            "for levels of grey, store them as bytes (uint8) or divide by the highest; for counts "
            f"use poisson or negative-binomial; {OF_REALS}"
        )
    return OF_REALS


class Cells(Advised, dist.TorchDistribution):
    """A distribution of numbers, one for each of its parameters' values.

    A subclass names its parameters in ``arg_constraints``.
    """

    def __init__(self, validate_args: bool | None = None, **parameters: Tensor) -> None:
        shape = torch.broadcast_shapes(*(p.shape for p in parameters.values()))
        for name, parameter in parameters.items():
            setattr(self, name, parameter.expand(shape))
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        parameters = {n: getattr(self, n).expand(batch_shape) for n in self.arg_constraints}
        return type(self)(self._validate_args, **parameters).named(self.names)


def column_names(columns: Columns, data_shape: Sequence[int]) -> tuple[str, ...]:
    """The names of the columns of a datum.

    Raises:
        ValueError: If they are no columns, or not as many as a datum has values.
    """
    if not isinstance(columns, Sequence) or not all(isinstance(c, Mapping) for c in columns):
        raise ValueError(f"columns must be a list of dictionaries, got {columns!r}")
    if tuple(data_shape) != (len(columns),):
        raise ValueError(
            f"columns must be one for each value of a datum, but there are {len(columns)}, and a "
            f"datum has shape {tuple(data_shape)}"
        )
    for column in columns:
        if not isinstance(column.get("name"), str):
            raise ValueError(f"columns must have names, but one is {dict(column)}")
    return tuple(column["name"] for column in columns)


def numbers_of(columns: Columns, what: str, default: float) -> list[float]:
    """The ``loc`` or ``scale`` of each column.

    Raises:
        ValueError: Naming a column of which it is no finite number.
    """
    found = []
    for column in columns:
        number = column.get(what, default)
        known = isinstance(number, Real) and not isinstance(number, bool)
        # As float32, and with a value even while torch's default device is meta.
        rounded = torch.tensor(float(number) if known else math.nan, device="cpu").item()
        if not math.isfinite(rounded):
            raise ValueError(
                f"columns must have finite numbers, but {column['name']!r} has {what} {number!r}"
            )
        found.append(rounded)
    return found


def location_and_scale(columns: Columns) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, of shape (D,).

    Raises:
        ValueError: Naming a column that is constant.
    """
    loc, scale = numbers_of(columns, "loc", 0.0), numbers_of(columns, "scale", 1.0)
    for column, unit in zip(columns, scale, strict=True):
        if unit <= 0:
            raise ValueError(
                f"columns must vary, but {column['name']!r} has scale {unit:g}: leave it out if it "
                "is constant, or rescale it"
            )
    return torch.tensor(loc), torch.tensor(scale)
