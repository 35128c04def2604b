"""The shell: a file for each kind of command in ``commands/``, put together."""

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import InputError, printable
from . import experimenting, fitting, generating, judging

app = typer.Typer(
    help="Variational autoencoders as Pyro programs: fit by SVI, evaluate, diagnose, generate.",
    epilog="Example: ppl-vae train --data digits --latent-dim 2 --epochs 150 --output runs/digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (fitting, judging, generating, experimenting):
    app.add_typer(part.app)


# What a wrong option raises, by whichever name Typer keeps Click.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Run the command line: exit code 0, 2 for the user's input, 1 for a fault of ours."""
    try:
        _import_without_settings()
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _warn(str(message))
            sys.exit(app(prog_name="ppl-vae", standalone_mode=False))
    except InputError as error:
        _refuse(str(error))
    except _UsageError as error:
        # Without words, it has shown the help.
        if words := " ".join(error.format_message().split()):
            command = error.ctx.command_path if error.ctx else "ppl-vae"
            _refuse(f"{words.rstrip('.?')}: see {command} --help")
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)


def _refuse(reason: str) -> NoReturn:
    _say(f"[bold red]error:[/] {escape(reason)}")
    sys.exit(2)


def _import_without_settings() -> None:
    """Matplotlib and ArviZ take settings from the folder that the shell is in, which may be a
    stranger's run: they call other programs, and Matplotlib before 3.11 evaluates some as Python.
    """
    if any(Path(name).exists() for name in ("matplotlibrc", "arvizrc")):
        from ..diagnostics.arviz_io import load_arviz

        with contextlib.chdir(Path(__file__).parent):
            load_arviz()  # and with it Matplotlib


def _warn(text: str) -> None:
    shown = "\n".join(printable(line) for line in text.splitlines())
    _say(f"warning: {escape(shown)}")


def _say(text: str) -> None:
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)
