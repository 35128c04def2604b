"""``ppl-vae train --config``: options from a file, or those that a run was fitted with."""

import tomllib
from pathlib import Path
from typing import Any

import typer

from ..errors import InputError, first_line
from .hints import nearest

NEVER = {"recipe", "resume", "help"}


def use_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Take options from a recipe; those on the command line have the last word.

    Raises:
        InputError: If it cannot be read, or says something that is no option.
    """
    if path is None or context.resilient_parsing:
        return path
    options = {parameter.name or "" for parameter in context.command.params} - NEVER
    is_run = path.is_dir() or path.suffix == ".json"
    found = _of_run(path, options) if is_run else _of_file(path)
    for name in found.keys() - options:
        known = nearest(name, sorted(options), {})
        hint = f"did you mean {' or '.join(known)}?" if known else "see ppl-vae train --help"
        raise InputError(path, f"says {name}, which is no option of train", hint)
    context.default_map = {name: _as_option(path, name, value) for name, value in found.items()}
    return path


def _of_file(path: Path) -> dict[str, Any]:
    """A TOML file whose keys are long options, without dashes in front."""
    from ..storage.memory import read_text

    try:
        found = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(path, f"is no TOML file that can be read ({reason})") from None
    return {name.replace("-", "_"): value for name, value in found.items()}


def _of_run(path: Path, options: set[str]) -> dict[str, Any]:
    """What a run's config says, as options; other arguments of its model come from the data."""
    from ..runs.config import CONFIG
    from ..runs.directory import Run

    run = Run.open(path if path.is_dir() else path.parent)
    config, data = run.config, run.config.data
    if config.parent:
        raise InputError(run.path, "is of a guide that was trained alone", "use ppl-vae refit")
    reading = data.get("reading", {})
    if reading.get("schema"):
        raise InputError(run.path / CONFIG, "has a schema", "say --schema FILE, and the rest too")
    found = {"model": config.program, "data": data["source"], "binarize": data["binarize"]}
    arguments = {name: value for name, value in config.arguments.items() if name in options}
    found |= {**reading, **arguments, **config.settings}
    if data.get("known_labels"):
        found["labels"] = data["known_labels"][0]
    if data.get("data_dir") is not None:
        found["data_dir"] = data["data_dir"]
    return {name: value for name, value in found.items() if value is not None}


def _as_option(path: Path, name: str, value: Any) -> Any:
    """A value as the command line would have it."""
    if isinstance(value, dict):
        raise InputError(path, f"has a table {name!r}, where an option has one value")
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return value
