"""The words of the shell: choices and options that commands share."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError


class BinarizeChoice(StrEnum):
    """How grey values become zeros and ones."""

    auto = "auto"
    dynamic = "dynamic"
    fixed = "fixed"
    none = "none"


class SplitChoice(StrEnum):
    """Part of the data."""

    train = "train"
    validation = "validation"
    test = "test"


class ObjectiveChoice(StrEnum):
    """What SVI maximizes."""

    elbo = "elbo"
    analytic_kl = "analytic-kl"
    stl = "stl"
    iw = "iw"
    dreg = "dreg"


class EngineChoice(StrEnum):
    """What runs the steps of a fit."""

    auto = "auto"
    compiled = "compiled"
    eager = "eager"


class EstimatorChoice(StrEnum):
    """How log p(x) is bounded."""

    iw = "iw"
    ais = "ais"
    bdmc = "bdmc"


class StartChoice(StrEnum):
    """Where annealing starts."""

    prior = "prior"
    guide = "guide"


class ExperimentChoice(StrEnum):
    """Claims to be put to the test."""

    reparameterization = "reparameterization"
    latent_size = "latent-size"
    reconstruction_loss = "reconstruction-loss"
    generate = "generate"
    gap = "gap"


in_data = partial(typer.Option, rich_help_panel="Data")
in_model = partial(typer.Option, rich_help_panel="Model")
in_fit = partial(typer.Option, rich_help_panel="Fit")
in_annealing = partial(typer.Option, rich_help_panel="Annealing")
in_diagnosis = partial(typer.Option, rich_help_panel="Effort")

RunPath = Annotated[Path, typer.Argument(help="A run directory, written by `ppl-vae train`.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print figures as JSON, for machines.")]
Seed = Annotated[int, typer.Option(help="Seed; the same seed gives the same bits here.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Data = Annotated[
    str,
    in_data(
        help="digits, mnist, fashion-mnist, kmnist; an .npy, .npz, .csv or .parquet file; or a "
        "folder of images."
    ),
]
Engine = Annotated[
    EngineChoice,
    in_fit(help="Compile the step once, or run each through Pyro; auto: what takes less time."),
]
DataDir = Annotated[
    Path | None,
    in_data(help="Where mnist and its kin lie; else $PPL_VAE_DATA, else a cache folder."),
]
Output = Annotated[Path | None, typer.Option(help="A .png or .npy file (default: in RUN)")]
Trusted = Annotated[
    str | None,
    typer.Option("--model", help="The run's own model class, if it is not one of ppl_vae's."),
]


def sizes(name: str, text: str | None) -> tuple[int, ...] | None:
    """Whole numbers with commas in between, such as ``500,500``.

    Raises:
        InputError: If they are none, naming the option.
    """
    try:
        return None if text is None else tuple(map(int, text.split(",") if text else ()))
    except ValueError:
        raise InputError(f"--{name} must be whole numbers like 500,500, got {text!r}") from None
