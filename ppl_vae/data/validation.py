"""Arrays checked, and split into training, validation and test data."""

from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from ..choices import Binarize
from ..errors import InputError
from ..runtime import derived_seed
from .batch import Batch
from .binarization import draw_binary
from .classes import LABELS, as_classes, known_classes
from .columns import align, as_table, check_rows, columns_of, reading_like
from .covariates import as_covariates
from .dataset import DataSet, Split
from .inspection import warn_of_precision
from .missing import joint_mask
from .objects import as_plain, is_made
from .reading import Reading
from .stored import (
    as_array,
    as_stored,
    as_whole,
    check_array,
    given_parts,
    in_order,
    part_apart,
    split_rows,
)
from .table import Table

SPLIT_SEED = 0  # The same data are held out whatever the seed of the fit.


FIXED_BINARIZATION_SEED = 0


def make_data(
    x: Any,
    labels: Any = None,
    *,
    test: tuple[Any, ...] | None = None,
    validation: tuple[Any, ...] | None = None,
    covariates: Mapping[str, Any] | None = None,
    levels: int | None = None,
    binarize: Binarize = "none",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    source: str = "array",
    reading: Reading | None = None,
) -> DataSet:
    """Validate arrays and split them, the same way every time.

    Images in bytes (uint8) are read as levels of grey in [0, 1], unless they hold zeros and ones
    only; all other numbers are taken as they are, bytes of shape (N, D) too, which may be counts:
    grey values of that shape need ``levels=255``. Images of shape (N, height, width) or (N, height,
    width, channels) become (N, channels, height, width).

    Where values are missing (NaN, or masked), ``x`` is 0, and a covariate ``mask`` says which were
    observed.

    Arguments:
        x: Array or tensor of shape (N, *data_shape); a pandas ``DataFrame``, whose columns may be
            of numbers, booleans or categories, with classes in a column ``label`` if there is one;
            a SciPy sparse matrix; a list of tensors; or a PyTorch ``Dataset`` whose items are
            tensors, or pairs of a tensor and a class.
        labels: One label for each data point, of any type, ``None`` or NaN where it is missing.
            Pictures show them, and a program that takes ``y`` is given their indices, -1 for a
            missing one.
        test: A pair (x, labels), or with covariates a triple (x, labels, covariates), held out by
            others; without it, ``test_fraction`` of the data is.
        validation: Likewise, instead of ``validation_fraction`` of the data.
        covariates: What programs take beside ``x``, by the name of the argument, such as ``mask``:
            arrays of numbers or booleans, of shape (N, ...).
        levels: Highest value of integer data, by which they are divided; by default that of
            ``reading``, or 255 for images in bytes.
        binarize: See :class:`DataSet`.
        validation_fraction: Share of ``x`` held out to choose the best epoch by.
        test_fraction: Share of ``x`` held out for the final figures.
        source: The name that messages and runs know the data by.
        reading: What is not to be found out: see :class:`ppl_vae.data.reading.Reading`.

    Raises:
        InputError: If an array is empty, ragged, not numeric, holds infinity, does not fit its
            labels or covariates, or cannot be binarized; or if a column of a table cannot be used.

    Example:
        >>> data = make_data(np.eye(10), binarize="fixed")
        >>> len(data.train), len(data.validation), len(data.test), data.shape
        (8, 1, 1, (10,))
    """
    return build_data(
        x,
        labels,
        test=test,
        validation=validation,
        covariates=covariates,
        levels=levels,
        binarize=binarize,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        source=source,
        reading=reading,
    )


def build_data(
    x: Any,
    labels: Any = None,
    *,
    test: tuple[Any, ...] | None = None,
    validation: tuple[Any, ...] | None = None,
    covariates: Mapping[str, Any] | None = None,
    levels: int | None = None,
    binarize: Binarize = "none",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    source: str = "array",
    reading: Reading | None = None,
    ours: bool = False,
) -> DataSet:
    """:func:`make_data` of arrays that may be ``ours``, such as a reader's: nobody has another view
    of them, and they become the memory of the data set."""
    if binarize not in get_args(Binarize):
        raise InputError(
            "binarize", f"must be one of {', '.join(get_args(Binarize))}, got {binarize!r}"
        )
    given = given_parts(source, test=test, validation=validation)
    reading = reading or Reading()
    plain, labels = as_plain(x, labels, reading, source)
    table = as_table(
        plain if isinstance(plain, Table) else as_array(plain, source), reading, source
    )
    array = as_array(plain if table is None else table, source)
    made = ours or table is not None or is_made(x, plain)
    levels = reading.levels if levels is None else levels
    grey = array.dtype == np.uint8 and array.max(initial=0) > 1
    if levels is None and binarize != "none" and grey:
        levels = 255  # grey values, since they are to be binarized
    if table is not None and levels is not None:
        array = as_whole(array)
    array, levels, kind = check_array(array, source, levels, made)
    fractions = {"test": test_fraction, "validation": validation_fraction}
    held_out = {n: _size(f, len(array)) for n, f in fractions.items() if n not in given}
    rows = _divided(len(array), held_out, source)
    order = torch.cat([*rows.values()]).numpy()
    stored, missing = as_stored(array, kind, order, made)
    del plain, array  # what is left of another type
    further = as_covariates(covariates, stored.shape, source)
    further = in_order(further, order, ours)
    apart = {n: part_apart(p, stored, levels, further, reading, ours) for n, p in given.items()}
    if missing is not None or any(part.missing is not None for part in apart.values()):
        further = joint_mask(further, missing, stored, source)
        for part in apart.values():
            part.covariates = joint_mask(part.covariates, part.missing, part.x, part.source)
    labelled = {name: (part.labels, len(part.x)) for name, part in apart.items()}
    classes, label_names = as_classes(labels, labelled, len(stored), source)
    splits = split_rows(stored, classes["train"], further, rows)
    for name, part in apart.items():
        splits[name] = Split(part.x, torch.arange(len(part.x)), classes[name], part.covariates)
    columns = columns_of(splits, levels, binarize, table, source)
    if binarize != "none":
        splits = {n: _prepared(s, n, levels, binarize, source) for n, s in splits.items()}
        levels = 1 if binarize == "fixed" else levels
    data = DataSet(
        source,
        splits["train"],
        splits["validation"],
        splits["test"],
        levels,
        binarize,
        label_names,
        columns,
        () if table is None else table.row_names,
        reading,
    )
    warn_of_precision(data)
    return data


def make_rows(
    x: Any,
    labels: Any = None,
    covariates: Mapping[str, Any] | None = None,
    *,
    like: Mapping[str, Any],
    source: str = "array",
    seed: int = 0,
    labelled: bool = False,
    ours: bool = False,
) -> Batch:
    """Validate arrays as data points for a program that was fitted to others.

    Arguments:
        x, labels, covariates: As for :func:`make_data`.
        like: The ``shape`` of a data point, how it is to ``binarize``, and its ``levels``, if any:
            integers are divided by these, real numbers are taken to be divided by them. A record
            without ``levels`` leaves them to be found from the type, as :func:`make_data` does. Its
            ``label_names`` are the classes that there are.
        source: The name that messages know the data by.
        seed: Seed of the binarization.
        labelled: Whether the program takes labels, as the covariate ``y``; else they are left out.
        ours: Whether the arrays may be changed, since nobody else has them.

    Raises:
        InputError: As :func:`make_data` does; if the shape is another one, or a label of none of
            the classes; or if values are not on the scale of the data that the program was fitted
            to.

    Example:
        >>> levels = {"shape": [1], "binarize": "none", "levels": 255}
        >>> x = make_rows(np.array([[51], [0]], dtype=np.uint8), like=levels)["x"]
        >>> round(x.max().item(), 6)
        0.2
    """
    levels = like.get("levels")
    given = x
    x, labels = as_plain(x, labels, reading_like(like), source)
    made = ours or isinstance(x, Table) or is_made(given, x)
    array = as_array(align(x, like, source) if isinstance(x, Table) else x, source)
    whole = array.dtype.kind in "bui"
    if levels is None and "levels" in like and array.dtype == np.uint8 and array.ndim > 2:
        problem = "holds bytes, but the program was fitted to numbers as they were"
        raise InputError(source, problem, "save it as floating-point numbers in the same units")
    if isinstance(x, Table) and levels is not None and not whole:
        array, whole = as_whole(array), True
    array, found, kind = check_array(array, source, levels if whole else None, made)
    stored, missing = as_stored(array, kind, None, made)
    if found == 1 and levels is None and "levels" in like:
        stored, found = stored.float(), None  # bytes that happen to be zeros and ones
    if list(stored.shape[1:]) != list(like["shape"]):
        raise InputError(
            source,
            f"has data points of shape {tuple(stored.shape[1:])}, but the program was fitted to "
            f"those of {tuple(like['shape'])}",
        )
    if levels is not None and found is None and (stored.min() < 0 or stored.max() > 1):
        problem = f"has values from {stored.min():g} to {stored.max():g}, but the program was "
        problem += f"fitted to levels of {levels}, which are divided by it"
        raise InputError(source, problem, "save whole numbers as integers, or divide them")
    further = in_order(as_covariates(covariates, stored.shape, source), None, ours)
    check_rows(stored, missing, like, source)
    if missing is not None:
        further = joint_mask(further, missing, stored, source)
    if labelled and like.get("label_names"):
        found_classes = known_classes(labels, like["label_names"], len(stored), source)
        further = {LABELS: found_classes, **further}
    split = Split(stored, torch.arange(len(stored)), None, further)
    if like.get("binarize", "none") != "none":
        split = _prepared(split, "new", found, "dynamic", source)
        generator = torch.Generator().manual_seed(derived_seed(seed, "new data"))
        drawn = draw_binary(split.x, found, generator, in_place=True).view(torch.uint8).float()
        return Batch(x=drawn, **further)
    return Batch(x=stored if found is None else stored.float() / found, **further)


def _size(fraction: float, total: int) -> int:
    if not isinstance(fraction, Real) or not 0 < fraction < 1:
        raise InputError("fractions of the data", f"must be between 0 and 1, got {fraction!r}")
    return max(1, round(fraction * total))


def _divided(total: int, held_out: Mapping[str, int], source: str) -> dict[str, Tensor]:
    """The rows of the splits that are held out, and of the training data, in random order."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED))
    if (left := total - sum(held_out.values())) <= 0:
        counts = " and ".join(f"{count} for {name}" for name, count in held_out.items())
        problem = f"has {total} data points, too few to hold out {counts}"
        raise InputError(source, problem, "give more")
    parts = order.split([*held_out.values(), left])
    return dict(zip([*held_out, "train"], parts, strict=True))


def _prepared(
    split: Split, name: str, levels: int | None, binarize: Binarize, source: str
) -> Split:
    """Check that values can be binarized; do it here and now where that is asked for."""
    top = 1 if levels is None else levels
    if len(split) and (split.x.min() < 0 or split.x.max() > top):
        raise InputError(
            source,
            f"has values from {split.x.min():g} to {split.x.max():g}, but only those in [0, 1] can "
            "be binarized",
            "binarize-or-gaussian",
        )
    if binarize == "dynamic":
        return split
    generator = torch.Generator().manual_seed(derived_seed(FIXED_BINARIZATION_SEED, name))
    return replace(
        split, x=draw_binary(split.x, levels, generator, in_place=True).view(torch.uint8)
    )
