"""What a run directory records about its fit: plain data, enough to make all of it again."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from ..choices import GuideData
from ..data.dataset import DataSet
from ..data.reading import Reading
from ..data.schema import Column
from ..data.sources import NAMED_SETS
from ..errors import InputError, as_path, check_type, first_line
from ..storage.files import replacing
from ..storage.memory import read_text

CONFIG, WEIGHTS = "config.json", "weights.safetensors"
FORMAT = 3


def software_versions() -> dict[str, str]:
    """Those of Python, and of the packages that numbers depend on."""
    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, **{n: version(n) for n in ("ppl-vae", "pyro-ppl", "torch")}}


def recipe(data: DataSet, data_dir: str | Path | None = None) -> dict[str, Any]:
    """Where data came from and what they were, as plain data, to be found again from any folder.

    Arguments:
        data: The data.
        data_dir: Where they were looked for; see :func:`ppl_vae.load_data`.
    """
    path = Path(data.source).expanduser()
    is_file = data.source not in NAMED_SETS and os.path.lexists(path)
    place = None if data_dir is None else str(Path(data_dir).expanduser().resolve())
    return {
        # Data that were made in Python have a name that is no file's.
        "source": str(path.resolve()) if is_file else data.source,
        "data_dir": place,
        "binarize": data.binarize,
        "levels": data.levels,
        "reading": data.reading.plain(),
        "columns": [column.plain() for column in data.columns],
        "label_names": list(data.label_names),
        "known_labels": None if data.known_labels is None else list(data.known_labels),
        "covariates": sorted(data.train.covariates),
        "shape": list(data.shape),
        "digest": data.digest,
    }


def in_memory(data: Mapping[str, Any]) -> bool:
    """Whether the data that a config describes were made in Python, and are in no file."""
    source = str(data["source"])
    return not (source in NAMED_SETS or os.path.isabs(source) or os.path.lexists(source))


@dataclass(frozen=True)
class Config:
    """What a run directory records about its fit, as plain data.

    Attributes:
        program: Where the program's class is, as ``package.module:Class`` or ``file.py:Class``.
        arguments: What the class was called with, beside the shape of a datum.
        data: ``source``, ``data_dir``, ``binarize``, ``levels``, ``shape`` and ``digest``; of
            newer runs also ``reading``, how files are read, ``columns`` of a table,
            ``label_names``, the names of ``covariates``, and ``known_labels``: how many training
            labels were kept, and the seed that chose them.
        settings: The :class:`ppl_vae.Settings` of the fit.
        parent: Where the guide alone was trained: the ``run`` whose model it has, the SHA-256 of
            its ``weights``, and what the guide was trained ``on``. Else empty.
        epochs_before: How many epochs there were to be at first, if the fit was extended.
        versions: The software that wrote it.
        format: The version of this layout.
    """

    program: str
    arguments: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    parent: dict[str, str] = field(default_factory=dict)
    epochs_before: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=software_versions)
    format: int = FORMAT

    @classmethod
    def read(cls, file: Path) -> "Config":
        """Read a config.

        Raises:
            InputError: If it is broken, or of another format.
        """
        try:
            fields = json.loads(read_text(file))
            found = fields.get("format", FORMAT)
            if found == FORMAT:
                config = cls(**fields)
                _check_types(config)
        except InputError:
            raise
        except (
            *(OSError, ValueError, TypeError),
            *(KeyError, AttributeError, RecursionError),
        ) as error:
            raise InputError(file, f"is broken ({first_line(error)})", "fit-again") from None
        if found != FORMAT:
            raise InputError(
                file,
                f"is of format {found!r}, and this version reads format {FORMAT} only, since "
                "checkpoints and the hashes of data have changed",
                "fit-again",
            )
        return config

    @property
    def identity(self) -> dict[str, Any]:
        """What weights belong to, as JSON gives it back: program, arguments, shape of a datum."""
        fields = {name: getattr(self, name) for name in ("program", "arguments")}
        plain: dict[str, Any] = json.loads(json.dumps({**fields, "shape": self.data["shape"]}))
        return plain

    @classmethod
    def of(
        cls,
        program: str,
        arguments: dict[str, Any],
        data: DataSet,
        settings: Any = None,
        data_dir: str | Path | None = None,
        parent: str | Path | None = None,
    ) -> "Config":
        """Record what is fitted to what, so that it can be found again from any folder.

        Arguments:
            program: Where the program's class is; see the attribute.
            arguments: What it was called with, beside the shape of a datum.
            data: What it is fitted to.
            settings: The :class:`ppl_vae.Settings` of the fit.
            data_dir: Where the data were looked for; see :func:`ppl_vae.load_data`.
            parent: For :func:`ppl_vae.refit_guide`, the directory of the run whose model it has.

        Example:
            >>> from ppl_vae import load_data
            >>> config = Config.of("ppl_vae.models:VAE", {"latent_dim": 2}, load_data("digits"))
            >>> config.data["source"], config.data["shape"]
            ('digits', [1, 8, 8])
        """
        check_type("data", data, DataSet)
        if settings is not None and (not is_dataclass(settings) or isinstance(settings, type)):
            given = type(settings).__name__
            raise InputError("settings", f"must be of type Settings, not {given}")
        try:
            json.dumps(arguments)
        except (TypeError, ValueError) as error:
            raise InputError(
                "arguments", f"cannot be kept as JSON ({first_line(error)})", "give plain data"
            ) from None
        plain = {} if settings is None else asdict(settings)
        named = {} if parent is None else _name_run(as_path("parent", parent))
        return cls(program, arguments, recipe(data, data_dir), plain, named)

    def write(self, folder: Path) -> None:
        """Write it into a run directory, whole or not at all.

        Raises:
            InputError: If it cannot be written.
        """
        with replacing(folder / CONFIG) as (temporary,):
            temporary.write_text(json.dumps(asdict(self), indent=2) + "\n")


def _name_run(folder: Path) -> dict[str, str]:
    """A run's directory, and the SHA-256 of its weights."""
    try:
        with (folder / WEIGHTS).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(folder / WEIGHTS, f"cannot be read ({error.strerror})") from None
    return {"run": str(folder.resolve()), "weights": digest}


def _check_types(config: Config) -> None:
    """Refuse fields of a config that are not what its class says.

    Raises:
        KeyError, TypeError, ValueError: Naming the field.
    """
    kinds = {"program": str, "epochs_before": list}
    kinds |= dict.fromkeys(("arguments", "data", "settings", "parent", "versions"), dict)
    for name, kind in kinds.items():
        if not isinstance(getattr(config, name), kind):
            raise TypeError(f"{name} is {getattr(config, name)!r}")
    shape = config.data["shape"]
    if not isinstance(shape, list) or not shape or {*map(type, shape)} != {int} or min(shape) < 1:
        raise ValueError(f"shape is {shape!r}")
    if not {*map(type, config.parent.values())} <= {str}:
        raise TypeError(f"parent is {config.parent!r}")
    if config.parent.get("on") not in (None, *get_args(GuideData)):
        raise ValueError(f"its guide was trained on {config.parent['on']!r}")
    if not {*map(type, config.epochs_before)} <= {int}:
        raise TypeError(f"epochs_before is {config.epochs_before!r}")
    levels = config.data.get("levels")
    if levels is not None and (type(levels) is not int or not 1 <= levels <= 255):
        raise ValueError(f"levels is {levels!r}")
    for name in ("source", "data_dir", "binarize", "digest"):
        value = config.data.get(name, "")
        if not isinstance(value, str) and not (name == "data_dir" and value is None):
            raise TypeError(f"{name} is {value!r}")
    _check_labels(config.data)
    columns = config.data.get("columns", [])
    if not isinstance(columns, list) or (columns and [len(columns)] != shape):
        raise ValueError(f"columns do not fit the shape {shape!r}")
    try:
        Reading.of(config.data.get("reading"))
        for column in columns:
            Column.of(column)
    except InputError as error:
        raise ValueError(str(error)) from None


def _check_labels(data: dict[str, Any]) -> None:
    names, known = data.get("label_names", []), data.get("known_labels")
    for field_, found in (("label_names", names), ("covariates", data.get("covariates", []))):
        if not isinstance(found, list) or not {*map(type, found)} <= {str}:
            raise TypeError(f"{field_} is {found!r}")
    if known is not None and (
        not isinstance(known, list) or [*map(type, known)] != [int, int] or min(known) < 0
    ):
        raise TypeError(f"known_labels is {known!r}")
