"""The run directory: everything it takes to use a fitted program again."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from torch import Tensor

from ..errors import InputError, as_path, check_type, first_line
from ..programs.protocol import Program
from ..storage.files import make_folder, remove, replacing, temporary_path
from ..storage.memory import read_text
from ..storage.tensors import write_tensors
from .checkpoints import Checkpoints
from .config import Config
from .loading import load_program

CONFIG, WEIGHTS, METRICS = "config.json", "weights.safetensors", "metrics.csv"
REPORT, LOCK = "report.html", ".lock"
CHECKPOINTS, PICTURES, EVENTS, RESULTS = "checkpoints", "pictures", "tensorboard", "results"
FILES = (CONFIG, WEIGHTS, METRICS, REPORT)


class Run:
    """A run directory: ``config.json``, ``weights.safetensors``, ``metrics.csv``, checkpoints.

    Attributes:
        path: The directory.
        config: What was fitted to what, and how.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
        self._logged = 0
        self._overwrite = False
        self._event_writer: Any = None
        self._events: Any = None
        self._lock: FileLock | None = None

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
        check_type("config", config, Config)
        run = cls(as_path("path", path), config)
        run._overwrite = overwrite
        if tensorboard:
            run._event_writer = _event_writer()
        run.require_free()
        return run

    @classmethod
    def open(cls, path: str | Path, *, tensorboard: bool = False) -> "Run":
        """Open a run directory.

        Arguments:
            path: The directory.
            tensorboard: Whether :meth:`log` also writes TensorBoard events.

        Raises:
            InputError: If it is none, or its config is broken; or TensorBoard is not installed.
        """
        path = as_path("path", path)
        file = path / CONFIG
        if not os.path.isfile(file):  # Path.is_file raises where a name is too long
            raise InputError(f"{path} is no run: it has no {CONFIG}; fit one with ppl-vae train")
        run = cls(path, Config.read(file))
        if tensorboard:
            run._event_writer = _event_writer()
        return run

    def start(self) -> None:
        """Make the directory, lock it until :meth:`close`, and write the config. Of a run that is
        there, nothing stays but the files that others put into it.

        Raises:
            InputError: If a run is there that was not to be overwritten, or that is being fitted;
                or if it cannot be written.
        """
        self.require_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock("choose another --output")
            self.require_free()  # another fit may have ended since
            # Weights go before the config: those of one fit never lie beside the config of another.
            for name in (*reversed(FILES[1:]), *map(temporary_path, map(Path, FILES))):
                remove(self.path / name)
            for name in (CHECKPOINTS, PICTURES, EVENTS, RESULTS):
                remove(self.path / name)
            with replacing(self.path / CONFIG) as (temporary,):
                temporary.write_text(json.dumps(asdict(self.config), indent=2) + "\n")
            make_folder(self.pictures)
        except OSError as error:
            self.close()
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}): choose another --output"
            ) from None

    def resume(self) -> None:
        """Lock the directory until :meth:`close`, and remove what a crash has left half-written.

        Raises:
            InputError: If it is being fitted by another process, or cannot be written.
        """
        if not os.path.isfile(self.path / CONFIG):
            raise InputError(f"{self.path} is no run: it has no {CONFIG}; fit without resuming")
        try:
            self._take_lock("stop it")
            make_folder(self.checkpoints.folder)  # and no link, in whose place others lie
            halves = [temporary_path(self.path / name) for name in FILES]
            halves += self.checkpoints.folder.glob(".step-*")
            for file in halves:
                remove(file)
        except OSError as error:
            self.close()
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}): make it writable"
            ) from None

    def close(self) -> None:
        """Give the lock back, and close what is open."""
        if self._events is not None:
            with suppress(OSError):  # of which log has told
                self._events.close()
            self._events = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def require_free(self) -> None:
        """Refuse a place where something is that a fit may not replace.

        Raises:
            InputError: If there is.
        """
        ours = {
            LOCK,
            *(temporary_path(Path(name)).name for name in FILES),
        }  # before there is a config
        try:
            if self.path.is_dir():
                taken = any(file.name not in ours for file in self.path.iterdir())
            else:
                taken = self.path.exists()
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read ({error.strerror}): choose another --output"
            ) from None
        if not taken:
            return
        if not _is_run(self.path):
            raise InputError(f"{self.path} exists and is no run: choose another --output")
        if not self._overwrite:
            raise InputError(
                f"{self.path} holds a run: choose another --output, or --overwrite it, or go on "
                f"with it by ppl-vae train --resume {self.path}"
            )

    def _take_lock(self, remedy: str) -> None:
        file = self.path / LOCK
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise InputError(f"{file} is no file of ours: remove it")
        lock = FileLock(file)  # the system takes it back from a process that dies
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path} is being fitted by another process: wait for it, or {remedy}"
            ) from None
        self._lock = lock

    @property
    def checkpoints(self) -> Checkpoints:
        """The newest states of the fit."""
        return Checkpoints(self.path / CHECKPOINTS)

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

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the figures of all epochs so far to ``metrics.csv``, whole or not at all.

        Raises:
            InputError: If they cannot be written.
        """
        names = dict.fromkeys(name for row in rows for name in row)
        with (
            replacing(self.path / METRICS) as (temporary,),
            temporary.open("w", newline="") as stream,
        ):
            writer = csv.DictWriter(stream, fieldnames=list(names) or ["epoch"])
            writer.writeheader()
            writer.writerows(rows)
        if self._event_writer is None:
            return
        try:
            self._log_events(rows)
        except OSError as error:
            raise InputError(
                f"{self.path / EVENTS} cannot be written ({error.strerror}): make room"
            ) from None

    def _log_events(self, rows: Sequence[Mapping[str, float]]) -> None:
        if self._events is None:
            make_folder(self.path / EVENTS)
            # What a fit wrote before it was stopped is void: all of it is written again.
            self._events = self._event_writer(str(self.path / EVENTS), purge_step=1)
            self._logged = 0
        for row in rows[self._logged :]:
            for name in row.keys() - {"epoch"}:
                self._events.add_scalar(name, row[name], int(row["epoch"]))
        self._logged = len(rows)
        self._events.flush()

    def metrics(self) -> list[dict[str, float]]:
        """The figures of every epoch, as ``metrics.csv`` has them.

        Raises:
            InputError: If the file is missing or broken.
        """
        file = self.path / METRICS
        try:
            reader = csv.DictReader(read_text(file).splitlines())
            names = list(reader.fieldnames or ())
            rows = [{k: float(v) for k, v in row.items()} for row in reader]
            if names != ["epoch"] and not {*names} >= {"epoch", "reconstruction", "loss"}:
                raise ValueError("it has no columns epoch, reconstruction, loss")
            if names != ["epoch"] and not rows:  # which is what there is before the first epoch
                raise ValueError("it has no rows")
            return rows
        except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
            raise InputError(
                f"{file} is missing or broken ({first_line(error)}): ppl-vae train --resume "
                f"{self.path} writes it again"
            ) from None

    def save_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights on disk, whole or not at all.

        Arguments:
            weights: The program's ``state_dict()``.

        Raises:
            InputError: If they cannot be written.
        """
        write_tensors(self.path / WEIGHTS, weights, self.config.identity)

    def has_weights(self) -> bool:
        """Whether a fit has begun here."""
        return os.path.lexists(self.path / WEIGHTS)

    def load(self, program: Program | type[Any] | None = None) -> Program:
        """Give the program back, bit for bit.

        Arguments:
            program: The class, or a program to put the weights into. It may be left out for the
                programs of ``ppl_vae.models``; a run directory never makes other code run.

        Raises:
            InputError: If the program is not known, or the weights are broken or not its own.
        """
        return load_program(self.path / CONFIG, self.config, self.path / WEIGHTS, program)


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


def _is_run(path: Path) -> bool:
    """Whether there is a run, of whatever format, that --overwrite may replace."""
    try:
        fields = json.loads(read_text(path / CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.keys() >= {"program", "arguments", "data"}


def _event_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "tensorboard is not installed: pip install 'ppl-vae[tensorboard]'"
        ) from None
    return SummaryWriter
