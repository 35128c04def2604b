"""``ppl-vae train --config``: options from a file, or those that a run was fitted with."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, first_line
from .hints import nearest
from .terminal import LOG

if TYPE_CHECKING:
    from ..runs.directory import Run

NEVER = {"config", "resume", "help"}


def use_recipe(context: typer.Context, path: Path | None) -> Path | None:
    """Take options from a recipe; those on the command line have the last word.

    Raises:
        InputError: If it cannot be read, or says something that is no option.
    """
    if path is None or context.resilient_parsing:
        return path
    flags = {
        flag.removeprefix("--").replace("-", "_"): parameter.name or ""
        for parameter in context.command.params
        for flag in parameter.opts
        if flag.startswith("--")
    }
    flags = {flag: name for flag, name in flags.items() if flag not in NEVER}
    run = _run_of(path)
    found = _of_file(path) if run is None else _of_run(run, flags)
    for flag in found.keys() - flags.keys():
        known = nearest(flag, sorted(flags), {})
        hint = f"did you mean {' or '.join(known)}?" if known else "see ppl-vae train --help"
        raise InputError(path, f"says {flag}, which is no option of train", hint)
    context.default_map = {flags[f]: _as_option(path, f, value) for f, value in found.items()}
    return path


def tell_differences(
    path: Path | None, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> None:
    """Say which arguments of a run's model, that no option gives, are others in this fit.

    Arguments:
        path: The recipe, if there is one.
        arguments: Those of this fit's model.
        options: Those of the command line.
    """
    if path is None or (run := _run_of(path)) is None:
        return
    for name, value in run.config.arguments.items():
        if name not in options and arguments.get(name) != value:
            LOG.warning("%s was made with another %s, which no option says", path, name)


def _run_of(path: Path) -> "Run | None":
    """The run that a recipe is, if it is one."""
    from ..runs.config import CONFIG
    from ..runs.directory import Run

    if path.is_dir():
        return Run.open(path)
    return Run.open(path.parent) if path.name == CONFIG else None


def _of_file(path: Path) -> dict[str, Any]:
    """A TOML file whose keys are long options, without dashes in front."""
    from ..storage.memory import read_text

    try:
        found = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise InputError(path, f"is no TOML file that can be read ({reason})") from None
    return {name.replace("-", "_"): value for name, value in found.items()}


def _of_run(run: "Run", flags: Mapping[str, str]) -> dict[str, Any]:
    """What a run's config says, as options; other arguments of its model come from the data."""
    from ..runs.config import in_memory

    config, data = run.config, run.config.data
    labels = data.get("known_labels")
    reading = data.get("reading", {})
    for problem, remedy, refused in (
        ("is of a guide that was trained alone", "use ppl-vae refit", config.parent),
        ("was fitted to data in memory", "say its options one by one", in_memory(data)),
        ("was made without settings", "say its options one by one", not config.settings),
        ("has a schema", "say --schema FILE, and its options one by one", reading.get("schema")),
        (
            "has labels that another seed chose than that of its fit",
            "say its options one by one",
            labels and labels[1] != config.settings.get("seed"),
        ),
    ):
        if refused:
            raise InputError(run.path, problem, remedy)
    if config.epochs_before:
        LOG.warning(
            "%s was extended from %d epochs; a fit of %d from scratch is another one",
            run.path,
            config.epochs_before[0],
            config.settings["epochs"],
        )
    # Levels of a model are those of its data.
    arguments = {n: v for n, v in config.arguments.items() if n in flags and n != "levels"}
    found = {"model": config.program, "data": data["source"], "binarize": data["binarize"]}
    found |= {**reading, **arguments, **config.settings, "data_dir": data["data_dir"]}
    found["labels"] = labels[0] if labels else None
    return {name: value for name, value in found.items() if value is not None}


def _as_option(path: Path, name: str, value: Any) -> Any:
    """A value as the command line would have it."""
    if isinstance(value, dict):
        raise InputError(path, f"has a table {name!r}, where an option has one value")
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return value
