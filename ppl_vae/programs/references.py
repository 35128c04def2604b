"""From a reference to a program: its class found, and built."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..errors import InputError, first_line
from ..runtime import derived_seed, isolated
from ..storage.memory import refuse_beyond_memory, tell_lack_of_memory
from .protocol import Program

COPIES = 5  # in a fit: weights, gradients, two moments, the best weights


def find_program(reference: str, registry: Mapping[str, type[Any]] | None = None) -> type[Any]:
    """Find a program's class. Unless it is in the registry, this runs the code of its module.

    Arguments:
        reference: A name in the registry, ``package.module:Class`` or ``path/to/file.py:Class``.
        registry: Classes by name.

    Raises:
        InputError: If the module, or the class in it, is not there, or the class is not a program.

    Example:
        >>> find_program("ppl_vae.models:VAE").__name__
        'VAE'
    """
    if registry and reference in registry:
        return registry[reference]
    place, _, name = reference.rpartition(":")
    if not place or not name:
        known = [*(registry or ()), "package.module:Class", "file.py:Class"]
        raise InputError("model", f"must be one of {', '.join(known)}, got {reference!r}")
    try:
        module = (
            _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        reason = f"cannot be imported ({type(error).__name__}: {first_line(error)})"
        raise InputError(place, reason, _remedy(place)) from error
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        raise InputError(place, f"has no class {name!r}", "name one that it has")
    if not (issubclass(kind, nn.Module) and hasattr(kind, "model") and hasattr(kind, "guide")):
        raise InputError(reference, "is not a program", "make it an nn.Module with model and guide")
    return kind


def build_program(
    kind: type[Any], data_shape: Sequence[int], arguments: Mapping[str, Any], seed: int = 0
) -> Program:
    """Call a program's class, its initial weights drawn from ``seed``.

    Arguments:
        kind: The class.
        data_shape: Its first argument, the shape of a datum.
        arguments: Its other arguments.
        seed: Seed of the weights.

    Raises:
        InputError: With the reason that the class gave; or if it would take too much memory, before
            it does, where the class comes with this distribution.
    """
    if is_ours(f"{kind.__module__}:"):
        sized = build_without_values(kind, data_shape, arguments)
        refuse_large(sized, kind.__name__, "make its layers smaller")
    return _built(kind, data_shape, arguments, seed)


def build_without_values(
    kind: type[Any], data_shape: Sequence[int], arguments: Mapping[str, Any]
) -> Program:
    """:func:`build_program` on torch's device ``meta``, whose tensors take no memory.

    Raises:
        InputError: With the reason that the class gave.
    """
    with torch.device("meta"):
        return _built(kind, data_shape, arguments, 0)


def refuse_large(program: Program, culprit: str, remedy: str) -> None:
    """Refuse a program whose fit would take too much memory.

    Arguments:
        program: The program, perhaps without values.
        culprit, remedy: See :class:`ppl_vae.InputError`.

    Raises:
        InputError: If it is too large.
    """
    taken = sum(t.numel() * t.element_size() for t in program.state_dict().values())
    refuse_beyond_memory(COPIES * taken, culprit, remedy)


def is_ours(reference: str) -> bool:
    """Whether a class comes with this distribution: the only code a run may name by itself.

    Example:
        >>> is_ours("ppl_vae.models:VAE"), is_ours("theirs:VAE")
        (True, False)
    """
    parts = reference.rpartition(":")[0].split(".")
    modules = parts[:2] == ["ppl_vae", "models"] and all(part.isidentifier() for part in parts)
    return modules and parts[-1] != "py"  # ppl_vae.models.py would be a file


def _built(
    kind: type[Any], data_shape: Sequence[int], arguments: Mapping[str, Any], seed: int
) -> Program:
    try:
        with isolated(derived_seed(seed, "weights")):
            program: Program = kind(tuple(data_shape), **arguments)
    except Exception as error:  # whatever the class raises
        tell_lack_of_memory(error, kind.__name__)
        if "overflow" in str(error).lower():
            raise InputError(
                kind.__name__, "would take more memory than can be counted", "make it smaller"
            ) from None
        raise InputError(
            kind.__name__,
            f"cannot be built ({first_line(error)})",
            "give it other arguments",
        ) from error
    return program


def _remedy(place: str) -> str:
    """What to do about a module that cannot be imported, but lies in the working directory."""
    here = Path(*place.split("."))
    if place.endswith(".py") or not (here.is_dir() or here.with_suffix(".py").is_file()):
        return ""
    return "code-beside"


def _import_file(file: Path) -> ModuleType:
    name = f"_ppl_vae_program_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    # It finds its neighbours, behind all that is installed: a file here may have any name.
    beside = str(file.parent.resolve())
    sys.path.append(beside)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(beside)
    return module
