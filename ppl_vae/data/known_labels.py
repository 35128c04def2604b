"""Labels hidden from a fit, as if only some had been known."""

from dataclasses import replace

import torch

from ..errors import InputError, check_int, check_type
from ..runtime import check_seed, derived_seed
from .classes import UNKNOWN
from .dataset import DataSet


def keep_labels(data: DataSet, count: int, seed: int = 0) -> DataSet:
    """The same data, of whose training labels only some are known; the others are -1.

    Classes have the same number of them, or one more. Validation and test data keep all theirs.

    Arguments:
        data: Data with labels.
        count: How many labels are kept.
        seed: Which ones.

    Raises:
        InputError: If there are no labels, fewer are asked for than there are classes, or a class
            has not so many.

    Example:
        >>> from ppl_vae import load_data
        >>> labels = keep_labels(load_data("digits"), 20).train.labels
        >>> labels[labels >= 0].bincount().tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2, 2]
    """
    check_type("data", data, DataSet)
    labels, classes = data.train.labels, len(data.label_names)
    if labels is None:
        raise InputError("labels", f"were to be kept, but {data.source} has none", "leave it out")
    count = check_int("labels", count, least=classes)
    generator = torch.Generator().manual_seed(derived_seed(check_seed(seed), "known labels"))
    order = torch.randperm(len(labels), generator=generator)
    more = set(torch.randperm(classes, generator=generator)[: count % classes].tolist())
    kept = torch.full_like(labels, UNKNOWN)
    for index, name in enumerate(data.label_names):
        share = count // classes + (index in more)
        rows = order[labels[order] == index]
        if len(rows) < share:
            raise InputError(
                f"labels={count}",
                f"means {share} of each class, but {name!r} has {len(rows)} training data",
                "lower it",
            )
        kept[rows[:share]] = index
    return replace(data, train=replace(data.train, labels=kept), known_labels=(count, seed))
