"""What ``--given`` says: a class by its name, and real covariates."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.classes import LABELS
from ..errors import InputError
from ..evidence.classification import CLASS_SITE


def read_given(words: Sequence[str], data: Mapping[str, Any]) -> dict[str, Tensor]:
    """The values of covariates, from words such as ``label=3`` and ``age=1.5``.

    Arguments:
        words: What was given.
        data: What the run's config says of its data, ``label_names`` among it.

    Returns:
        A number for each covariate, or several for one of several columns; the class as ``y``.

    Raises:
        InputError: Naming what is not understood.

    Example:
        >>> read_given(["label=cat", "age=1.5"], {"label_names": ["ape", "cat"]})
        {'y': tensor(1), 'age': tensor(1.5000)}
    """
    found: dict[str, Tensor] = {}
    for word in words:
        name, equals, text = (part.strip() for part in word.partition("="))
        if not equals or not name or not text:
            raise InputError("given", f"must be like label=3 or age=1.5, got {word!r}")
        is_class = name in (CLASS_SITE, LABELS)
        name = LABELS if is_class else name
        if name in found:
            raise InputError("given", f"says {name!r} twice", "say it once")
        found[name] = _class(text, data.get("label_names", [])) if is_class else _real(name, text)
    return found


def _class(text: str, names: Sequence[str]) -> Tensor:
    """The index of a class by its name, or by its number where no class has that name."""
    if text in names:
        return torch.tensor(names.index(text))
    if text.isdecimal() and int(text) < len(names):
        return torch.tensor(int(text))
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    remedy = f"choose from {shown}" if names else "fit to data with labels"
    raise InputError("given", f"names the class {text!r}, which there is not", remedy)


def _real(name: str, text: str) -> Tensor:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError("given", f"must be numbers, got {name}={text!r}") from None
    values = torch.tensor(numbers)
    if not values.isfinite().all():
        raise InputError("given", f"must be finite, got {name}={text!r}")
    return values if len(numbers) > 1 else values[0]
