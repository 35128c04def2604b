"""The commands put together, and how their errors are told."""

import contextlib
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from ppl_vae import __version__

from ..errors import InputError, printable
from ..signals import INTERRUPTED
from . import (
    compare,
    diagnose,
    encode,
    evaluate,
    experiment,
    gradients,
    impute,
    inspect,
    reconstruct,
    refit,
    repair,
    report,
    sample,
    score,
    train,
)
from .hints import COMMANDS, nearest, option_hint
from .messages import in_flags, missing_extra
from .terminal import LOG, speaking, write_line

SHARED = ("train", "evaluate", "encode", "diagnose")  # commands that several processes share


class _Commands(TyperGroup):
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names; otherwise, the nearest ones are told."""
        name = args[0]
        if ctx.resilient_parsing:  # the shell completes a line, and shows what is printed
            return super().resolve_command(ctx, args)
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            found = nearest(name, COMMANDS, COMMANDS) or [*self.commands]
            ctx.fail(f"No such command {name!r}: did you mean {' or '.join(found)}?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; an interrupt keeps its words, which Typer would lose."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            LOG.critical("%s", str(error) or "interrupted")  # above all that -q hides
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    help="Variational autoencoders as Pyro programs: fit by SVI, evaluate, diagnose, generate.",
    epilog="Example: ppl-vae train --data digits --latent-dim 2 --epochs 150 --output runs/digits",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    inspect,
    train,
    evaluate,
    compare,
    diagnose,
    repair,
    refit,
    encode,
    impute,
    score,
    sample,
    reconstruct,
    report,
    gradients,
    experiment,
):
    app.add_typer(module.app)


def _show_version(wanted: bool) -> None:
    if wanted:
        write_line(f"ppl-vae {__version__}")
        raise typer.Exit


def _look_in(folder: Path | None) -> None:
    """Let packages of the user's be found there, after all that are installed."""
    if folder is None:
        return
    if not folder.is_dir():
        raise InputError(f"--path {folder}", "is not a folder", "name the one that holds it")
    sys.path.append(str(folder.resolve()))


@app.callback()
def _options(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Option(
            callback=_look_in,
            help="Folder of a package that --model names, such as . for package.module:Class.",
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more of what is being done.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Say nothing but results, warnings and errors: no progress."
        ),
    ] = False,
) -> None:
    if verbose and quiet:
        raise InputError("--quiet", "was given with --verbose", "choose one")
    if verbose or quiet:
        LOG.setLevel(logging.DEBUG if verbose else logging.WARNING)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        _in_several_processes(context.invoked_subcommand or "")


def _in_several_processes(command: str) -> None:
    """Let one process of a machine speak, and none do what each would write for itself.

    Raises:
        InputError: If the command is not one that processes share.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        LOG.setLevel(logging.CRITICAL)
    if command not in SHARED:
        raise InputError(f"ppl-vae {command}", "runs in one process", "leave out torchrun")


# What a wrong option raises, by whichever name Typer keeps Click.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line and exit, as :func:`ppl_vae.cli.main` says."""
    with speaking():
        _run(typer.main.get_command(app))


def _run(group: Any) -> NoReturn:
    try:
        _import_without_settings()
        code = group(prog_name="ppl-vae", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        sys.exit(code)
    except InputError as error:
        _refuse(in_flags(error, _flags_of_command(group)))
    except ModuleNotFoundError as error:
        if reason := missing_extra(error.name):
            _refuse(reason)
        raise
    except _UsageError as error:
        # Without words, it has shown the help.
        if words := " ".join(error.format_message().split()):
            _refuse(_usage(error, words, group))
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:  # RuntimeError is torch's
        from ..storage.memory import is_lack_of_memory

        if not is_lack_of_memory(error):
            raise
        _refuse("there is too little memory for this: free some, or take fewer data or draws")


def _flags(command: Any) -> dict[str, str]:
    """The options of a command by the names of their arguments: ``batch_size: --batch-size``."""
    options = {parameter.name: max(parameter.opts, key=len) for parameter in command.params}
    return {name: flag for name, flag in options.items() if flag.startswith("--")}


def _flags_of_command(group: Any) -> dict[str, str]:
    name = _command(group)
    return _flags(group.commands[name]) if name else {}


def _command(group: Any) -> str:
    """The command on the command line, behind the options of all; or nothing."""
    return next((word for word in sys.argv[1:] if word in group.commands), "")


def _usage(error: Any, words: str, group: Any) -> str:
    """What is wrong with a command line, what may have been meant, and where to read more."""
    if "did you mean" in words:
        return words
    name = _command(group)
    remedy = f"see ppl-vae {name} --help".replace("  ", " ")
    if hasattr(error, "possibilities"):  # there is no such option
        wrong = error.option_name
        # Click reads -lr as -l and -r.
        if (shown := [w for w in sys.argv if w.startswith(wrong)]) and not wrong.startswith("--"):
            wrong = shown[0].partition("=")[0]
        options = {name: _flags(command).values() for name, command in group.commands.items()}
        hint = option_hint(wrong, name, {"": _flags(group).values(), **options})
        words, remedy = f"No such option: {printable(wrong)}", hint or remedy
    return f"{words.replace('Value error, ', '').rstrip('.?')}: {remedy}"


def _refuse(reason: str) -> NoReturn:
    LOG.error("%s", reason)
    sys.exit(2)


def _import_without_settings() -> None:
    """Matplotlib and ArviZ take settings from the folder that the shell is in, which may be a
    stranger's run: they call other programs, and Matplotlib before 3.11 evaluates some as Python.
    """
    if any(Path(name).exists() for name in ("matplotlibrc", "arvizrc")):
        # Other commands run without them, which are extras.
        with contextlib.chdir(Path(__file__).parent), contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("matplotlib")
            from ..storage.arviz_io import load_arviz

            load_arviz()
