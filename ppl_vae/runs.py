"""The run directory: everything it takes to use a fitted program again."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn

from .data import DataSet
from .errors import InputError, first_line
from .program import Program, find_program
from .sources import NAMED_SETS

CONFIG, WEIGHTS, METRICS = "config.json", "weights.safetensors", "metrics.csv"
REPORT = "report.html"
PICTURES, EVENTS, RESULTS = "pictures", "tensorboard", "results"
FORMAT = 1


def software_versions() -> dict[str, str]:
    """Python's, and those of the packages that figures depend on."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{n: version(n) for n in ("ppl-vae", "pyro-ppl", "torch")}}


def recipe(data: DataSet, data_dir: str | Path | None = None) -> dict[str, Any]:
    """Where data came from and what they were, as plain data, to be found again from any folder.

    Arguments:
        data: The data.
        data_dir: Where they were looked for; see :func:`ppl_vae.load_data`.
    """
    named = data.source in NAMED_SETS
    place = None if data_dir is None else str(Path(data_dir).expanduser().resolve())
    return {
        "source": data.source if named else str(Path(data.source).expanduser().resolve()),
        "data_dir": place,
        "binarize": data.binarize,
        "shape": list(data.shape),
        "digest": data.digest,
    }


@dataclass(frozen=True)
class Config:
    """What a run directory records about its fit, as plain data.

    Attributes:
        program: Where the program's class is, as ``package.module:Class`` or ``file.py:Class``.
        arguments: What the class was called with, beside the shape of a datum.
        data: ``source``, ``data_dir``, ``binarize``, ``shape`` and ``digest``.
        settings: The :class:`ppl_vae.Settings` of the fit.
        versions: The software that wrote it.
        format: The version of this layout.
    """

    program: str
    arguments: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=software_versions)
    format: int = FORMAT

    @classmethod
    def of(
        cls,
        program: str,
        arguments: dict[str, Any],
        data: DataSet,
        settings: Any = None,
        data_dir: str | Path | None = None,
    ) -> "Config":
        """Record what is fitted to what, so that it can be found again from any folder.

        Arguments:
            program: Where the program's class is; see the attribute.
            arguments: What it was called with, beside the shape of a datum.
            data: What it is fitted to.
            settings: The :class:`ppl_vae.Settings` of the fit.
            data_dir: Where the data were looked for; see :func:`ppl_vae.load_data`.

        Example:
            >>> from ppl_vae import load_data
            >>> config = Config.of("ppl_vae.models:VAE", {"latent_dim": 2}, load_data("digits"))
            >>> config.data["source"], config.data["shape"]
            ('digits', [1, 8, 8])
        """
        return cls(
            program, arguments, recipe(data, data_dir), {} if settings is None else asdict(settings)
        )


class Run:
    """A run directory: ``config.json``, ``weights.safetensors``, ``metrics.csv``, pictures.

    Attributes:
        path: The directory.
        config: What was fitted to what, and how.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
        self._overwrite = False
        self._event_writer: Any = None
        self._events: Any = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        config: Config,
        *,
        overwrite: bool = False,
        tensorboard: bool = False,
    ) -> "Run":
        """Choose a place for a new run. Nothing is written, or removed, before :meth:`start`.

        Arguments:
            path: The directory.
            config: What will be fitted to what, and how.
            overwrite: Whether a run that is already there may be replaced.
            tensorboard: Whether :meth:`log` also writes TensorBoard events.

        Raises:
            InputError: If the path is taken, or TensorBoard is not installed.
        """
        run = cls(Path(path), config)
        run._overwrite = overwrite
        if tensorboard:
            run._event_writer = _event_writer()
        run._refuse_what_is_there()
        return run

    def _refuse_what_is_there(self) -> None:
        if not self.path.is_file() and not (self.path.is_dir() and any(self.path.iterdir())):
            return
        if not _is_run(self.path):
            raise InputError(f"{self.path} exists and is no run: choose another --output")
        if not self._overwrite:
            raise InputError(f"{self.path} holds a run: choose another --output, or --overwrite it")

    def start(self) -> None:
        """Make the directory and write the config. Of a run that is there, nothing stays but the
        files that others put into it.

        Raises:
            InputError: If a run is there that was not to be overwritten, or it cannot be written.
        """
        self._refuse_what_is_there()
        try:
            for name in (CONFIG, WEIGHTS, METRICS, REPORT):
                (self.path / name).unlink(missing_ok=True)
            for name in (PICTURES, EVENTS, RESULTS):
                shutil.rmtree(self.path / name, ignore_errors=True)
            self.pictures.mkdir(parents=True, exist_ok=True)
            _write_whole(self.path / CONFIG, json.dumps(asdict(self.config), indent=2) + "\n")
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror})") from None
        if self._event_writer is not None:
            self._events = self._event_writer(str(self.path / EVENTS))

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run directory.

        Raises:
            InputError: If it is none, or its config is broken.
        """
        path = Path(path)
        file = path / CONFIG
        if not file.is_file():
            raise InputError(f"{path} is no run: it has no {CONFIG}; fit one with ppl-vae train")
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            config = Config(**fields)
            shape = config.data["shape"]
            well_formed = config.format == FORMAT and all(type(size) is int for size in shape)
            well_formed &= isinstance(config.program, str) and isinstance(config.arguments, dict)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{file} is broken ({first_line(error)}): fit again") from None
        if not well_formed:
            raise InputError(
                f"{file} is not of format {FORMAT}: it was not written by this version"
            )
        return cls(path, config)

    @property
    def pictures(self) -> Path:
        """The folder of pictures."""
        return self.path / PICTURES

    @property
    def results(self) -> Path:
        """The folder of evaluations and diagnoses."""
        return self.path / RESULTS

    @property
    def report(self) -> Path:
        """The page of the diagnosis."""
        return self.path / REPORT

    def log(self, row: Mapping[str, float]) -> None:
        """Append one epoch's figures to ``metrics.csv``."""
        file = self.path / METRICS
        new = not file.exists()
        with file.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        if self._events is not None:
            for name in row.keys() - {"epoch"}:
                self._events.add_scalar(name, row[name], int(row["epoch"]))
            self._events.flush()

    def metrics(self) -> list[dict[str, float]]:
        """The figures of every epoch, as ``metrics.csv`` has them."""
        with (self.path / METRICS).open(newline="") as stream:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(stream)]

    def save_weights(self, program: Program) -> None:
        """Replace the weights on disk, whole or not at all."""
        temporary = self.path / f"{WEIGHTS}.tmp"
        save_model(cast(nn.Module, program), str(temporary))
        os.replace(temporary, self.path / WEIGHTS)

    def load(self, program: Program | type[Any] | None = None) -> Program:
        """Give the program back, bit for bit.

        Arguments:
            program: The class, or a program to put the weights into. It may be left out for the
                programs of ``ppl_vae.models``; a run directory never makes other code run.

        Raises:
            InputError: If the program is not known, or the weights are broken or not its own.
        """
        if program is None:
            if not _is_ours(self.config.program):
                raise InputError(
                    f"{self.path} was fitted with {self.config.program!r}, code from outside "
                    f"ppl_vae: if you trust it, name it (--model {self.config.program})"
                )
            program = find_program(self.config.program)
        built: Program = self._build(program) if isinstance(program, type) else program
        file = self.path / WEIGHTS
        try:
            _match_types(built, load_file(file))
            load_model(cast(nn.Module, built), file)
        except (SafetensorError, OSError, RuntimeError, StopIteration) as error:
            raise InputError(
                f"{file} is missing, broken or not this program's ({first_line(error)})"
            ) from None
        return built

    def _build(self, kind: type[Any]) -> Program:
        try:
            return kind(tuple(self.config.data["shape"]), **self.config.arguments)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"{self.path / CONFIG}: the program cannot be built ({first_line(error)})"
            ) from None


def load(path: str | Path, program: Program | type[Any] | None = None) -> Program:
    """Load the fitted program of a run directory; see :meth:`Run.load`.

    Raises:
        InputError: If there is no run at ``path``, or its program cannot be restored.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        ppl_vae.errors.InputError: runs/none is no run: it has no config.json; fit one with ...
    """
    return Run.open(path).load(program)


def _match_types(program: Program, stored: dict[str, Tensor]) -> None:
    """Bring a program to the types of its stored weights, its unstored buffers along with them."""
    program.to(next(stored[name].dtype for name, _ in program.named_parameters() if name in stored))
    for name, tensor in program.state_dict(keep_vars=True).items():
        if name in stored:
            tensor.data = tensor.data.to(stored[name].dtype)


def _is_run(path: Path) -> bool:
    try:
        Run.open(path)
    except InputError:
        return False
    return True


def _is_ours(reference: str) -> bool:
    """Whether a class comes with this distribution: the only code a run may name by itself."""
    parts = reference.rpartition(":")[0].split(".")
    modules = parts[:2] == ["ppl_vae", "models"] and all(part.isidentifier() for part in parts)
    return modules and parts[-1] != "py"  # ppl_vae.models.py would be a file


def _event_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard is not installed: pip install 'ppl-vae[tensorboard]'"
        ) from None
    return SummaryWriter


def _write_whole(file: Path, text: str) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)
