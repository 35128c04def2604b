"""Programs out of run directories, which are a stranger's: no code runs, no memory is taken, but
what this distribution's own programs take."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..programs.protocol import Program, require_program
from ..programs.references import (
    build_program,
    build_without_values,
    find_program,
    is_ours,
    refuse_large,
)
from ..storage.tensors import TornError, read_tensors
from .config import CONFIG, WEIGHTS, Config
from .lock import refuse_busy


def find_class(folder: Path, config: Config) -> type[Any]:
    """The class of a run's program, if it is one of ``ppl_vae.models``.

    Arguments:
        folder: The run directory.
        config: Its config.

    Raises:
        InputError: If it is not one: a run directory never makes other code run.
    """
    if not is_ours(config.program):
        raise InputError(
            folder,
            f"was fitted with {config.program!r}, code from outside ppl_vae",
            "trust-program",
            program=config.program,
        )
    return find_program(config.program)


def check_size(folder: Path, config: Config, kind: type[Any]) -> Program | None:
    """Refuse a program that its config makes too large, before memory is taken.

    Arguments:
        folder: The run directory.
        config: Its config.
        kind: The program's class.

    Returns:
        The program without values; ``None`` if the class is the user's own, whose code may need
        them.

    Raises:
        InputError: If it is too large for a fit, or cannot be built.
    """
    if not is_ours(f"{kind.__module__}:"):
        return None
    sized = build_without_values(kind, config.data["shape"], config.arguments)
    refuse_large(sized, f"the program of {folder / CONFIG}", "fit again")
    return sized


def load_program(
    folder: Path, config: Config, program: Program | type[Any] | None = None
) -> Program:
    """A run's program with its stored weights, bit for bit.

    Arguments:
        folder: The run directory.
        config: Its config.
        program: The class, or a program to put the weights into; ``None`` for one of ours.

    Raises:
        InputError: If the program is not known, or the weights are broken or not its own.
    """
    program = find_class(folder, config) if program is None else program
    try:
        return _load(folder, config, program)
    except InputError:
        refuse_busy(folder)
        raise


def _load(folder: Path, config: Config, program: Program | type[Any]) -> Program:
    file = folder / WEIGHTS
    try:
        weights, identity = read_tensors(file)
    except TornError as error:
        raise InputError(error.culprit, error.problem, "write-again", run=str(folder)) from None
    if isinstance(program, type):
        if (sized := check_size(folder, config, program)) is not None:
            _check_shapes(file, sized, weights)
        built = build_program(program, config.data["shape"], config.arguments)
        if identity != config.identity:
            raise InputError(
                folder / CONFIG, f"was altered: {WEIGHTS} is of {identity}", "fit-again"
            )
    else:
        built = program
    require_program(built)
    _match_types(built, weights)
    _check_shapes(file, built, weights)
    built.load_state_dict(weights)
    for name, parameter in built.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(file, f"has a parameter {name!r} with NaN or infinity", "fit-again")
    return built


def _check_shapes(file: Path, program: Program, weights: Mapping[str, Tensor]) -> None:
    own = {name: tuple(tensor.shape) for name, tensor in program.state_dict().items()}
    stored = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(own.keys() | stored.keys()):
        if own.get(name) != stored.get(name):
            there, here = stored.get(name, "none"), own.get(name, "none")
            raise InputError(
                file,
                f"does not fit this program ({name} is of shape {there} there, and {here} in the "
                "program)",
                "fit again, or give its own class",
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
