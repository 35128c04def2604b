"""The run directory: everything it takes to use a fitted program again."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError, as_path, check_type
from ..programs.protocol import Program
from ..storage.files import make_folder, name_of_leftover, remove
from ..storage.memory import read_text
from ..storage.tensors import write_tensors
from .checkpoints import Checkpoints
from .config import CONFIG, WEIGHTS, Config
from .loading import load_program
from .lock import LOCK, Hold, refuse_busy
from .metrics import read_metrics, write_metrics

METRICS, REPORT = "metrics.csv", "report.html"
CHECKPOINTS, PICTURES, EVENTS, RESULTS = "checkpoints", "pictures", "tensorboard", "results"
FILES = (CONFIG, WEIGHTS, METRICS, REPORT)
OF_FITS = {CONFIG, WEIGHTS, METRICS}  # which nobody but the fit that holds the lock writes


class Run:
    """A run directory: ``config.json``, ``weights.safetensors``, ``metrics.csv``, checkpoints.

    Attributes:
        path: The directory.
        config: What was fitted to what, and how.
        checkpoints: The newest states of the fit.
        pictures, events, results: Folders of pictures, TensorBoard events, evaluations.
        report: The page of the diagnosis.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
        self.checkpoints, self.report = Checkpoints(path / CHECKPOINTS), path / REPORT
        self.pictures, self.events, self.results = path / PICTURES, path / EVENTS, path / RESULTS
        self._overwrite = False
        self._hold: Hold | None = None
        self.checkpoints.before_writing = self.require_place

    def __repr__(self) -> str:
        return f"Run({self.path}: {self.config.program} on {self.config.data.get('source')})"

    @classmethod
    def create(cls, path: str | Path, config: Config, *, overwrite: bool = False) -> "Run":
        """Choose a place for a new run. Nothing is written, or removed, before :meth:`start`.

        Arguments:
            path: The directory.
            config: What will be fitted to what, and how.
            overwrite: Whether a run that is already there may be replaced.

        Raises:
            InputError: If the path is taken.
        """
        check_type("config", config, Config)
        run = cls(as_path("path", path), config)
        run._overwrite = overwrite
        run.require_free()
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """Open a run directory.

        Raises:
            InputError: If it is not one, or its config is broken.
        """
        path = as_path("path", path)
        _require_config(path)
        return cls(path, Config.read(path / CONFIG))

    def start(self) -> None:
        """Make the directory, lock it until :meth:`close`, and write the config.

        Of a run that is there, nothing stays but the files that others put into it.

        Raises:
            InputError: If a run is there that was not to be overwritten, or that is being fitted;
                or if it cannot be written.
        """
        self.require_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold = Hold(self.path)
            self.require_free()  # another fit may have ended since
            # Weights go before the config: those of one fit never lie beside the config of another.
            for name in (*reversed(FILES[1:]), CHECKPOINTS, PICTURES, EVENTS, RESULTS):
                remove(self.path / name)
            _remove_leftovers(self.path)
            self.config.write(self.path)
            make_folder(self.pictures)
        except OSError as error:
            self.close()
            raise InputError(
                self.path, f"cannot be written ({error.strerror})", "another-path"
            ) from None

    def resume(self) -> None:
        """Lock the directory until :meth:`close`, and remove what a crash has left half-written.

        Raises:
            InputError: If it is being fitted by another process, or cannot be written.
        """
        _require_config(self.path)
        try:
            self._hold = Hold(self.path)
            make_folder(self.checkpoints.folder)  # and no link, in whose place others lie
            _remove_leftovers(self.path)
            self.checkpoints.remove_leftovers()
        except OSError as error:
            self.close()
            raise InputError(
                self.path, f"cannot be written ({error.strerror})", "make it writable"
            ) from None

    def close(self) -> None:
        """Give the lock back."""
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def require_place(self) -> None:
        """Refuse to write where another directory than the locked one lies by now.

        Raises:
            InputError: If it was moved or removed.
        """
        if self._hold is not None:
            self._hold.require_place()

    def require_free(self) -> None:
        """Refuse a place where something is that a fit may not replace.

        Raises:
            InputError: If there is.
        """
        if _is_taken(self.path) and not _holds_run(self.path):
            raise InputError(self.path, "exists and is not a run", "another-path")
        if _is_taken(self.path) and not self._overwrite:
            raise InputError(self.path, "holds a run", "resume-or-overwrite", run=str(self.path))

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the rows of all epochs so far to ``metrics.csv``; see :func:`write_metrics`."""
        write_metrics(self.path / METRICS, rows, self.require_place)

    def metrics(self) -> list[dict[str, float]]:
        """The rows of all epochs, as ``metrics.csv`` has them; see :func:`read_metrics`."""
        return read_metrics(self.path / METRICS)

    def save_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights on disk, a ``state_dict()``, whole or not at all.

        Raises:
            InputError: If they cannot be written.
        """
        write_tensors(self.path / WEIGHTS, weights, self.config.identity, self.require_place)

    def has_weights(self) -> bool:
        """Whether a fit has begun here."""
        return os.path.lexists(self.path / WEIGHTS)

    def load(self, program: Program | type[Any] | None = None) -> Program:
        """Give the program back, bit for bit; see :func:`ppl_vae.load`."""
        return load_program(self.path, self.config, program)


def load(path: str | Path, program: Program | type[Any] | None = None) -> Program:
    """Load the fitted program of a run directory, bit for bit.

    Arguments:
        path: The directory.
        program: The class, or a program to put the weights into. It may be left out for the
            programs of ``ppl_vae.models``; a run directory never makes other code run.

    Raises:
        InputError: If there is no run at ``path``, the program is not known, or the weights are
            broken or not its own.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        ppl_vae.errors.InputError: runs/none is not a run, for it has no config.json: make one ...
    """
    return Run.open(path).load(program)


def _require_config(path: Path) -> None:
    if not os.path.isfile(path / CONFIG):  # Path.is_file raises where a name is too long
        refuse_busy(path)
        raise InputError(path, f"is not a run, for it has no {CONFIG}", "fit-first")


def _remove_leftovers(path: Path) -> None:
    for file in path.iterdir():
        if name_of_leftover(file.name) in OF_FITS:
            remove(file)


def _is_taken(path: Path) -> bool:
    """Whether something is there that is not left from a fit that ended before its config."""
    try:
        if path.is_dir():
            names = {file.name for file in path.iterdir()} - {LOCK}
            return any(name_of_leftover(name) not in FILES for name in names)
        return path.exists()
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "another-path") from None


def _holds_run(path: Path) -> bool:
    """Whether there is a run, of whatever format, that may be overwritten."""
    try:
        fields = json.loads(read_text(path / CONFIG))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.keys() >= {"program", "arguments", "data"}
