"""The columns of a table, in the units that a likelihood of all of them has."""

from dataclasses import replace

import torch
from torch import Tensor

from .dataset import DataSet
from .missing import observed
from .schema import Column, has_names

OF_CODES = ("categorical", "ordered")
MOST_CODES = 1000  # more are no categories


def fit_columns(data: DataSet, likelihood: str | None = None) -> list[Column]:
    """The columns of a table for a likelihood of all of them.

    Mean and standard deviation are those of logarithms for ``"lognormal"``, and for others those of
    the data; ``None`` and ``"columns"`` leave them as they are, each for its kind. Whole numbers
    from 0 have a category each, for a likelihood of codes. What is constant among the training data
    of an array has a standard deviation of 1.

    Arguments:
        data: The data set, of a table.
        likelihood: The name of the likelihood.

    Example:
        >>> from ppl_vae import make_data
        >>> data = make_data(torch.arange(40.0).exp()[:, None])
        >>> data.columns[0].kind, round(data.columns[0].loc)
        ('positive', 20)
        >>> fit_columns(data, "gaussian")[0].loc > 1e14
        True
    """
    found = []
    for place, column in enumerate(data.columns):
        x = _observed(data, place)
        logarithmic = column.kind == "positive"
        wanted = likelihood == "lognormal"
        if likelihood not in (None, "columns") and logarithmic != wanted and (x > 0).all():
            values = x.log() if wanted else x
            # The deviation of equal values is 0, whatever rounding makes of it.
            scale = values.std(correction=0).item() if values.min() < values.max() else 0.0
            column = replace(column, loc=values.mean().item(), scale=scale)
        if likelihood in OF_CODES and not column.categories:
            column = replace(column, categories=_codes(data, place))
        if column.is_constant and not has_names(data.columns):
            column = replace(column, scale=1.0)
        found.append(column)
    return found


def _observed(data: DataSet, place: int) -> Tensor:
    """The observed training values of a column."""
    seen = observed(data.train.x, data.train.covariates)[:, place]
    return data.train.x[:, place].double()[seen]


def _codes(data: DataSet, place: int) -> tuple[str, ...]:
    """Whole numbers from 0, as the names of categories; none if there are others, or too many."""
    x = torch.cat([part.x[:, place] for part in (data.train, data.validation, data.test)])
    count = max(2, int(x.max().item()) + 1)
    whole = bool(((x % 1 == 0) & (x >= 0)).all()) and count <= MOST_CODES
    return tuple(map(str, range(count))) if whole else ()
