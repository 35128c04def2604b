"""Parts of a program, by name."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn

COMPONENTS = 10  # of a mixture, unless said otherwise


def make_part(
    argument: str, choice: str | nn.Module, registry: Mapping[str, type[nn.Module]], **given: Any
) -> Any:
    """Make a part from its name; a module is returned unchanged.

    Arguments:
        argument: The argument of the program that chose it, for the error.
        choice: A name in the registry, or a module.
        registry: Classes by name.
        given: Arguments for the class: those that it takes are handed on, unless they are ``None``.

    Raises:
        ValueError: If the name is unknown.

    Example:
        >>> make_part("prior", "norml", {"normal": nn.Linear})
        Traceback (most recent call last):
        ValueError: prior must be one of normal, or a module, got 'norml' (did you mean 'normal'?)
    """
    if isinstance(choice, nn.Module):
        return choice
    if not isinstance(choice, str) or choice not in registry:
        close = get_close_matches(str(choice), registry, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        known = ", ".join(registry)
        raise ValueError(f"{argument} must be one of {known}, or a module, got {choice!r}{hint}")
    kind = registry[choice]
    taken = inspect.signature(kind).parameters.keys()
    return kind(**{n: value for n, value in given.items() if n in taken and value is not None})


def refuse_components(components: int | None, *parts: nn.Module) -> None:
    """Refuse a number of components that no part uses.

    Raises:
        ValueError: In one line.
    """
    if components is not None and not any(hasattr(part, "components") for part in parts):
        raise ValueError(
            f"components={components} was given, but neither guide nor prior is a mixture: leave "
            "it out, or use the guide mixture, or the prior mixture or vamp"
        )
