"""Programs out of run directories, which are a stranger's: no code, and no memory, but ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, first_line
from ..programs.protocol import Program, require_program
from ..programs.references import find_program
from ..runtime import isolated
from ..storage.memory import refuse_beyond_memory
from ..storage.tensors import TornError, read_tensors
from .config import Config

COPIES = 5  # in a fit: weights, gradients, two moments, the best weights


def find_class(file: Path, config: Config) -> type[Any]:
    """A program's class, if it is one of ``ppl_vae.models``.

    Arguments:
        file: Where the config is.
        config: What it says.

    Raises:
        InputError: If it is not one: a run directory never makes other code run.
    """
    if not _is_ours(config.program):
        raise InputError(
            f"{file.parent} was fitted with {config.program!r}, code from outside ppl_vae: if you "
            f"trust it, name it (--model {config.program})"
        )
    return find_program(config.program)


def check_size(file: Path, config: Config, kind: type[Any]) -> Program | None:
    """Refuse a program that its config makes too large, before memory is taken.

    Arguments:
        file: Where the config is.
        config: What it says.
        kind: The program's class.

    Returns:
        The program on torch's device ``meta``, which has sizes only; ``None`` if the class is the
        user's own, whose code may need values.

    Raises:
        InputError: If it is too large for a fit, or cannot be built.
    """
    if not _is_ours(f"{kind.__module__}:"):
        return None
    with torch.device("meta"):
        sized = _construct(file, config, kind)
    taken = sum(t.numel() * t.element_size() for t in sized.state_dict().values())
    refuse_beyond_memory(COPIES * taken, f"the program of {file}", "fit again")
    return sized


def load_program(
    file: Path, config: Config, weights_file: Path, program: Program | type[Any] | None
) -> Program:
    """A program with its stored weights, bit for bit.

    Arguments:
        file: Where the config is.
        config: What it says.
        weights_file: Where the weights are.
        program: The class, or a program to put the weights into; ``None`` for one of ours.

    Raises:
        InputError: If the program is not known, or the weights are broken or not its own.
    """
    program = find_class(file, config) if program is None else program
    try:
        weights, identity = read_tensors(weights_file)
    except TornError as error:
        raise InputError(f"{error}: ppl-vae train --resume {file.parent} writes it again") from None
    if isinstance(program, type):
        if (sized := check_size(file, config, program)) is not None:
            _require_same(weights_file, sized, weights)
        with isolated(0):
            built = _construct(file, config, program)
    else:
        built = program
    require_program(built)
    _match_types(built, weights)
    _require_same(weights_file, built, weights)
    if isinstance(program, type) and identity != config.identity:
        raise InputError(f"{file} was altered: {weights_file.name} is of {identity}; fit again")
    built.load_state_dict(weights)
    for name, parameter in built.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"{weights_file}: parameter {name!r} holds NaN or infinity: fit again")
    return built


def _construct(file: Path, config: Config, kind: type[Any]) -> Program:
    try:
        built: Program = kind(tuple(config.data["shape"]), **config.arguments)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
        raise InputError(
            f"{file}: the program cannot be built ({first_line(error)}): fit again"
        ) from None
    return built


def _require_same(file: Path, program: Program, weights: Mapping[str, Tensor]) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in program.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(own.keys() | stored.keys()):
        if own.get(name) != stored.get(name):
            there, here = stored.get(name, "none"), own.get(name, "none")
            raise InputError(
                f"{file} is not this program's ({name} is of shape {there} there, and {here} in "
                "the program): fit again, or name its own class"
            )


def _match_types(program: Program, stored: Mapping[str, Tensor]) -> None:
    """Bring a program to the types of its stored weights, its unstored buffers along with them."""
    types = [stored[name].dtype for name, _ in program.named_parameters() if name in stored]
    if not types:
        return
    program.to(types[0])
    for name, tensor in program.state_dict(keep_vars=True).items():
        if name in stored:
            tensor.data = tensor.data.to(stored[name].dtype)


def _is_ours(reference: str) -> bool:
    """Whether a class comes with this distribution: the only code a run may name by itself."""
    parts = reference.rpartition(":")[0].split(".")
    modules = parts[:2] == ["ppl_vae", "models"] and all(part.isidentifier() for part in parts)
    return modules and parts[-1] != "py"  # ppl_vae.models.py would be a file
