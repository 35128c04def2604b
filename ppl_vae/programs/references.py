"""References to programs' classes, and the classes that they mean."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import InputError, first_line


def find_program(reference: str) -> type[Any]:
    """Import a program's class. This runs the code of its module.

    Arguments:
        reference: ``package.module:Class`` or ``path/to/file.py:Class``.

    Raises:
        InputError: If the module, or the class in it, is not there, or the class is no program.

    Example:
        >>> find_program("ppl_vae.models:VAE").__name__
        'VAE'
    """
    place, _, name = reference.rpartition(":")
    if not place or not name:
        raise InputError(
            f"no model {reference!r}: give a registered name, package.module:Class or file.py:Class"
        )
    try:
        module = (
            _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
        )
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise InputError(
            f"{place} cannot be imported ({type(error).__name__}: {first_line(error)})"
        ) from error
    kind = getattr(module, name, None)
    if not isinstance(kind, type):
        raise InputError(f"{place} has no class {name!r}: name one that it has")
    if not (issubclass(kind, nn.Module) and hasattr(kind, "model") and hasattr(kind, "guide")):
        raise InputError(f"{reference} is no program: it must be an nn.Module with model and guide")
    return kind


def _import_file(file: Path) -> ModuleType:
    name = f"_ppl_vae_program_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    sys.path.insert(0, str(file.parent.resolve()))  # where it would look for its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
