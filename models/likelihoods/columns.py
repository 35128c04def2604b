"""Mixed tables: each column has the likelihood that its kind asks for."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from .base import Advised, Columns, Likelihood
from .bernoulli import Bernoulli
from .categorical import Categorical
from .location_scale import Gaussian, LogNormal
from .negative_binomial import NegativeBinomial
from .ordered import Ordered

KINDS: dict[str, Callable[..., Likelihood]] = {
    "real": Gaussian,
    "positive": LogNormal,
    "count": NegativeBinomial,
    "binary": Bernoulli,
    "category": Categorical,
    "ordered": Ordered,
}
"""The likelihood of each kind of column."""


class Each(constraints.Constraint):
    """The supports of columns, some of each kind."""

    event_dim = 0

    def __init__(self, parts: "MixedDistribution") -> None:
        self.parts = parts
        super().__init__()

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether all columns are."""
        return all(bool(p.support.is_discrete) for p in self.parts.each)

    def check(self, value: Tensor) -> Tensor:
        return self.parts.join([p.support.check(v) for p, v in self.parts.pairs(value)])


class MixedDistribution(Advised, dist.TorchDistribution):
    r"""One distribution over the columns of a table, made of one for each kind of column.

    Its batch shape is (\*, D): densities are those of each cell, with respect to lengths where a
    column is real or positive, and to counting elsewhere.

    Arguments:
        each: A distribution of batch shape (\*, D_k) for each kind.
        places: The columns of each kind, of shape (D_k,).
        order: Where each column stands in all of them, one after the other, of shape (D,).
    """

    title = "columns"
    arg_constraints = {}  # noqa: RUF012

    def __init__(self, each: Sequence[Any], places: Sequence[Tensor], order: Tensor) -> None:
        self.each, self.places, self.order = list(each), list(places), order
        shape = torch.broadcast_shapes(*(p.batch_shape[:-1] for p in each))
        super().__init__(torch.Size((*shape, len(order))), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return Each(self)

    def join(self, values: Sequence[Tensor]) -> Tensor:
        r"""Values of columns of each kind, (\*, D_k) each, as those of all, (\*, D)."""
        shape = torch.broadcast_shapes(*(v.shape[:-1] for v in values))
        wide = [v.expand(*shape, v.shape[-1]) for v in values]
        return torch.cat(wide, -1).index_select(-1, self.order)

    def pairs(self, value: Tensor) -> list[tuple[Any, Tensor]]:
        """The distribution of each kind, with the values of its columns."""
        parts = zip(self.each, self.places, strict=True)
        return [(p, value.index_select(-1, place)) for p, place in parts]

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MixedDistribution":
        shape = torch.Size(batch_shape)[:-1]
        each = [p.expand(shape + p.batch_shape[-1:]) for p in self.each]
        return MixedDistribution(each, self.places, self.order)

    def log_prob(self, value: Tensor) -> Tensor:
        if value.shape[-1:] != self.batch_shape[-1:]:
            raise ValueError(
                f"value is not broadcastable: it has shape {tuple(value.shape)}, and there are "
                f"{self.batch_shape[-1]} columns"
            )
        return self.join([p.log_prob(v) for p, v in self.pairs(value)])

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self.join([p.sample(sample_shape) for p in self.each]).detach()

    @property
    def mean(self) -> Tensor:
        """The mean of each cell; of codes, which have none, the most probable one."""
        return self.join([p.mean for p in self.each])

    @property
    def variance(self) -> Tensor:
        """The variance of each cell; NaN for codes."""
        return self.join([p.variance for p in self.each])


class MixedColumns(Likelihood):
    r"""A table of columns of any kinds, independent given z (HI-VAE, Nazabal et al. 2020).

    =========== ============================== =====================================
    kind        likelihood                     read by the encoder
    =========== ============================== =====================================
    real        :class:`.Gaussian`             standardized
    positive    :class:`.LogNormal`            its logarithm, standardized
    count       :class:`.NegativeBinomial`     log(1 + x), less that of the mean
    binary      :class:`.Bernoulli`            as it is
    category    :class:`.Categorical`          zeros, and a one for its code
    ordered     :class:`.Ordered`              codes from -1 to 1
    =========== ============================== =====================================

    Missing cells are read as zeros. An exposure multiplies the means of counts.

    Arguments:
        data_shape: Shape of one datum, (D,).
        columns: What is known of each column: ``name`` and ``kind``, ``loc`` and ``scale`` of those
            that are real, or of the logarithm of those that are positive, ``categories`` of codes.

    Raises:
        ValueError: Naming a column that is constant, or of no kind that there is.

    Example:
        >>> columns = [{"name": "age", "kind": "count"}, {"name": "height", "kind": "real"},
        ...            {"name": "pet", "kind": "category", "categories": ["cat", "dog", "none"]}]
        >>> likelihood = MixedColumns((3,), columns)
        >>> likelihood.output_shape, likelihood.input_shape
        ((5,), (5,))
        >>> p = likelihood(torch.zeros(7, 5))
        >>> p.log_prob(torch.tensor([41.0, 1.7, 2.0])).shape
        torch.Size([7, 3])
    """

    takes_exposure = True
    order: Tensor

    def __init__(self, data_shape: Sequence[int], columns: Columns | None = None) -> None:
        if columns is None:
            raise ValueError("columns must be given: what is known of each column of the table")
        super().__init__(data_shape, columns)
        kinds = [_kind(column) for column in columns]
        places = {k: [i for i, kind in enumerate(kinds) if kind == k] for k in KINDS if k in kinds}
        parts = {
            kind: KINDS[kind]((len(at),), columns=[columns[i] for i in at])
            for kind, at in places.items()
        }
        self.parts = nn.ModuleDict(parts)
        for kind, at in places.items():
            self.register_buffer(f"{kind}_places", torch.tensor(at), persistent=False)
        after = [i for at in places.values() for i in at]
        order = [after.index(i) for i in range(len(after))]
        self.register_buffer("order", torch.tensor(order), persistent=False)
        self.widths = [part.output_shape[0] for part in parts.values()]
        self.output_shape = (sum(self.widths),)
        self.input_shape = (sum(part.input_shape[0] for part in parts.values()),)

    def forward(self, output: Tensor, exposure: Tensor | None = None) -> dist.Distribution:
        each = []
        for part, own in zip(self.parts.values(), output.split(self.widths, -1), strict=True):
            use = part.takes_exposure and exposure is not None
            each.append(part(own, self._exposure(exposure)) if use else part(own))
        return MixedDistribution(each, self._places(), self.order).named(self.names)

    def _exposure(self, exposure: Any) -> Tensor:
        """Of the counts: one for all, or that of each."""
        own: Tensor = exposure
        return own.index_select(-1, self.count_places) if own.dim() > 1 else own  # type: ignore[arg-type]

    def _places(self) -> list[Tensor]:
        return [getattr(self, f"{kind}_places") for kind in self.parts]

    def read(self, x: Tensor) -> Tensor:
        return self._of_each(x, "read")

    def spread(self, mask: Tensor) -> Tensor:
        return self._of_each(mask, "spread")

    def _of_each(self, values: Tensor, function: str) -> Tensor:
        parts = zip(self.parts.values(), self._places(), strict=True)
        return torch.cat(
            [getattr(part, function)(values.index_select(-1, at)) for part, at in parts], -1
        )


def _kind(column: Any) -> str:
    kind = column.get("kind")
    if kind not in KINDS:
        raise ValueError(
            f"columns must be of a kind that is one of {', '.join(KINDS)}, but "
            f"{column['name']!r} is {kind!r}"
        )
    return str(kind)
