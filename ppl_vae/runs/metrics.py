"""The rows of a fit, an epoch each, as CSV."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..errors import InputError, first_line
from ..storage.files import replacing
from ..storage.memory import read_text

COLUMNS = {"epoch", "reconstruction", "loss"}  # that every fit has


def write_metrics(
    file: Path, rows: Sequence[Mapping[str, float]], check: Callable[[], None] = lambda: None
) -> None:
    """Write the rows of all epochs, whole or not at all; ``check`` is as of :func:`.replacing`.

    Raises:
        InputError: If they cannot be written.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    with replacing(file, check=check) as (temporary,), temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(names) or ["epoch"])
        writer.writeheader()
        writer.writerows(rows)


def read_metrics(file: Path) -> list[dict[str, float]]:
    """The rows of all epochs.

    Raises:
        InputError: If the file is missing or broken.
    """
    try:
        reader = csv.DictReader(read_text(file).splitlines())
        names = list(reader.fieldnames or ())
        rows = [{k: float(v) for k, v in row.items()} for row in reader]
        if names != ["epoch"]:  # which is what there is before the first epoch
            if not {*names} >= COLUMNS:
                raise ValueError(f"it lacks one of the columns {', '.join(sorted(COLUMNS))}")
            if not rows:
                raise ValueError("it has no rows")
        return rows
    except (OSError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise InputError(
            file,
            f"is missing or broken ({first_line(error)})",
            "write-again",
            run=str(file.parent),
        ) from None
