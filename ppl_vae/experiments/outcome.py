"""What an experiment finds: tables, a figure, and what they say about each claim."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure

from ..errors import InputError
from ..evidence.scores import Estimate
from ..labels import round_together
from ..plots.drawing import png_or_warning
from ..storage.files import replacing

Verdict = Literal["holds", "holds in part", "does not hold"]

CONFIG, FIGURE, FINDINGS = "config.json", "figure.png", "findings.json"
STORED_DECIMALS = 6


@dataclass(frozen=True)
class Claim:
    """A sentence of the exercise, and what the figures say about it.

    Attributes:
        text: The claim.
        verdict: Whether it holds.
        because: The figures that decide, with their errors.
    """

    text: str
    verdict: Verdict
    because: str


@dataclass(frozen=True)
class Table:
    """Figures in rows, with what the columns mean.

    Attributes:
        rows: One column for each quantity; ``NAME_error`` is the standard error of ``NAME``.
        meanings: What each column is, with its unit.
        identities: Columns that are the difference of two others, such as
            ``{"kl": ("reconstruction", "elbo")}``; they hold to the printed digits.
    """

    rows: pd.DataFrame
    meanings: dict[str, str]
    identities: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def exact_columns(self) -> set[str]:
        """Columns in which an identity holds; all of one unit, and written with fixed decimals."""
        return {name for key, pair in self.identities.items() for name in (key, *pair)}

    def rounded(self, decimals: int) -> pd.DataFrame:
        """The rows, with the columns of identities rounded so that what is printed adds up.

        Arguments:
            decimals: How many to leave.

        Example:
            >>> rows = pd.DataFrame({"elbo": [-1.4], "reconstruction": [-0.9], "kl": [0.5]})
            >>> table = Table(rows, {}, {"kl": ("reconstruction", "elbo")})
            >>> table.rounded(0).iloc[0].to_dict()
            {'elbo': -1.0, 'reconstruction': -1.0, 'kl': 0.0}
        """
        columns = {str(name): self.rows[name] for name in self.rows}
        return self.rows.assign(**round_together(columns, self.identities, decimals))


@dataclass(frozen=True)
class Outcome:
    """All that an experiment found.

    Attributes:
        claims: Every claim it puts to the test.
        tables: By the names of their files.
        draw: Makes one picture of it.
    """

    claims: tuple[Claim, ...]
    tables: dict[str, Table]
    draw: Callable[[], Figure]


def verdict(holds: bool, in_part: bool = False) -> Verdict:
    """Whether a claim holds; ``in_part`` counts where it does not hold altogether."""
    return "holds" if holds else "holds in part" if in_part else "does not hold"


def cells(name: str, estimate: Estimate) -> dict[str, float]:
    """A mean over data and its standard error, as two columns of a table."""
    return {name: estimate.mean, f"{name}_error": estimate.stderr}


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Make the folder that an experiment is to write to, before it takes its time.

    Raises:
        InputError: If it is taken by something else, or by an outcome that was not to be
            overwritten; or cannot be made.
    """
    try:
        taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    except OSError as error:
        reason = error.strerror
        raise InputError(folder, f"cannot be read ({reason})", "another-path") from None
    if taken and not (folder / FINDINGS).is_file():
        raise InputError(folder, "exists and is not an experiment", "another-path")
    if taken and not overwrite:
        raise InputError(folder, "holds an experiment", "overwrite")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror
        raise InputError(folder, f"cannot be written ({reason})", "another-path") from None


def write_outcome(folder: Path, outcome: Outcome, config: dict[str, Any]) -> list[Path]:
    """Write tables, figure, config and findings, all of them or none.

    A figure that cannot be drawn is left out, with a ``PictureWarning``.

    Arguments:
        folder: A folder made by :func:`prepare_folder`.
        outcome: What was found.
        config: What it takes to find it again, as plain data.

    Returns:
        The files written.

    Raises:
        InputError: If they cannot be written.
    """
    tables = {folder / f"{name}.csv": table for name, table in outcome.tables.items()}
    png = png_or_warning(FIGURE, outcome.draw)
    figures = {} if png is None else {folder / FIGURE: png}
    files = [folder / CONFIG, folder / FINDINGS, *tables, *figures]
    with replacing(*files) as (plain, findings, *others):
        plain.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        findings.write_text(json.dumps(as_plain(outcome), indent=2) + "\n", encoding="utf-8")
        for sheet, table in zip(others, tables.values(), strict=False):
            table.rounded(STORED_DECIMALS).to_csv(sheet, index=False)
        for picture, drawn in zip(others[len(tables) :], figures.values(), strict=True):
            picture.write_bytes(drawn)
    for stale in {*folder.glob("*.csv"), *folder.glob(FIGURE)} - {*files}:  # of another, replaced
        stale.unlink()
    return files


def as_plain(outcome: Outcome) -> dict[str, Any]:
    """Claims and tables as plain data, for JSON, which has no NaN: it becomes ``None``."""
    tables = {
        name: {
            "rows": json.loads(
                table.rounded(STORED_DECIMALS).to_json(orient="records", double_precision=15)
            ),
            "meanings": table.meanings,
        }
        for name, table in outcome.tables.items()
    }
    return {"claims": [asdict(claim) for claim in outcome.claims], "tables": tables}
