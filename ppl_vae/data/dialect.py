"""The dialect of a text table, found without guessing: what is not certain is refused."""

import codecs
import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from ..errors import InputError
from .cells import decimals_of, is_missing, is_number
from .header import has_header
from .reading import SEPARATORS, Reading

LIMIT = 2**22  # characters, of the first rows: of some 400,000 columns
SAMPLE = 200  # rows
MARKS = {b"PK\x03\x04": "zipped", b"\x1f\x8b": "compressed", b"BZh": "compressed"}
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Dialect:
    """How a text table is written.

    Attributes:
        encoding: Of its characters.
        skipped: How many lines stand before its first row.
        separator: What stands between cells.
        decimal: What stands before decimals.
        names: Of its columns; empty for those without.
        header: Whether its first row holds them.
        ends: Whether each row of data ends with one more separator than the header has.
    """

    encoding: str
    skipped: int
    separator: str
    decimal: str
    names: tuple[str, ...]
    header: bool
    ends: bool = False

    @contextmanager
    def rows(self, path: Path) -> Iterator[Iterator[tuple[int, list[str]]]]:
        """The rows of data, with the numbers of their lines, without spaces around cells.

        Yields:
            An iterator that raises InputError, naming the line, where a row has not as many cells
            as there are names.
        """
        width = len(self.names) + self.ends
        with open_table(path, self.encoding, self.skipped) as file:
            reader = _reader(file, self.separator)

            def checked() -> Iterator[tuple[int, list[str]]]:
                header, empty = self.header, self._empty_line(path)
                for row in reader:
                    if not row:
                        empty = reader.line_num + self.skipped
                        continue
                    if empty and not header:
                        _refuse_empty(path, empty, width)
                    empty = 0
                    if header:
                        header = False
                        continue
                    line = reader.line_num + self.skipped
                    if len(row) != width or (self.ends and row[-1].strip()):
                        refuse_ragged(path, line, len(row), len(self.names))
                    yield line, [cell.strip() for cell in row[: len(self.names)]]
                if empty:
                    _refuse_empty(path, empty, width)

            yield checked()

    def _empty_line(self, path: Path) -> int:
        """An empty line before the first row, which may be a datum of a table of one column."""
        if self.header or len(self.names) > 1:
            return 0
        with open_table(path, self.encoding, 0) as file:
            lines = [*islice(file, self.skipped)]
        return next((place for place, line in enumerate(lines, 1) if not line.strip()), 0)


def _refuse_empty(path: Path, line: int, width: int) -> None:
    """Refuse an empty line in a table of one column."""
    if width == 1:
        problem = f"has an empty line {line}, which may be a missing value"
        raise InputError(path, problem, 'remove it, or write NA or ""')


def refuse_ragged(path: Path, line: int, cells: int, width: int) -> NoReturn:
    """Refuse a row that has not as many cells as others."""
    raise InputError(
        path,
        f"has {cells} {'cell' if cells == 1 else 'cells'} in line {line}, and {width} in others",
        "mend-row",
        line=line,
    )


def find_dialect(path: Path, reading: Reading) -> Dialect:
    """Find the dialect of a table.

    Raises:
        InputError: If it is not certain, with the attribute of :class:`.Reading` that says it.
        UnicodeDecodeError, csv.Error: If it is no table.
    """
    encoding = _encoding(path)
    skipped, comment, said = _leading(path, encoding)
    separator = reading.separator or said or _find_separator(path, encoding, skipped)
    sample = _sample(path, encoding, skipped, separator)
    if not sample:
        raise InputError(path, "holds no data", "give a table with rows of numbers")
    widths = [len(row) for _, row in sample]
    ends = len(sample) > 1 and {*widths[1:]} == {widths[0] + 1}
    ends = ends and not any(row[-1] for _, row in sample[1:])
    for line, row in sample:
        if len(row) != widths[0] and not ends:
            _refuse_widths(path, sample, line)
    rows = [row for _, row in sample]
    if reading.header is None and comment and not _texts(rows[0]):
        names = [cell.strip() for cell in next(_reader(iter([comment]), separator), [])]
        if len(names) == len(rows[0]):  # as NumPy's savetxt writes it
            decimal = reading.decimal or _find_decimal(path, encoding, skipped, separator, 0)
            return Dialect(encoding, skipped, separator, decimal, _checked(path, names), False)
    header = has_header(rows, path) if reading.header is None else reading.header
    first = rows[0] if header else [f"column {place}" for place in range(widths[0])]
    decimal = reading.decimal or _find_decimal(path, encoding, skipped, separator, int(header))
    return Dialect(encoding, skipped, separator, decimal, _checked(path, first), header, ends)


def _texts(row: Sequence[str]) -> list[str]:
    return [cell for cell in row if not is_number(cell) and not is_missing(cell)]


def _checked(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    counts = Counter(name for name in names if name)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(path, f"has two columns {twice[0]!r}", "rename or remove one of them")
    return tuple(names)


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4096)
    for mark, what in MARKS.items():
        if start.startswith(mark):
            raise InputError(path, f"is {what}, and no text", "unpack it, or save it as CSV")
    for mark, encoding in BOMS.items():
        if start.startswith(mark):
            return encoding
    if b"\0" in start:
        raise InputError(path, "is not text, or in UTF-16 without its mark", "save it as UTF-8")
    return "utf-8"


@contextmanager
def open_table(path: Path, encoding: str, skipped: int) -> Iterator[Iterator[str]]:
    """The lines of a table after those that are skipped."""
    with path.open(newline="", encoding=encoding) as file:
        for _ in range(skipped):
            file.readline(LIMIT)
        yield file


def _reader(lines: Iterator[str], separator: str) -> Any:
    # strict: a quote that is not closed would swallow the rows that follow.
    return csv.reader(lines, delimiter=separator, skipinitialspace=separator != "\t", strict=True)


def _leading(path: Path, encoding: str) -> tuple[int, str, str | None]:
    """How many lines stand before the table, the text of the last comment, and the separator, where
    a line ``sep=;`` says it."""
    comment, separator = "", None
    with open_table(path, encoding, 0) as file:
        for skipped, line in enumerate(_limited(file)):
            text = line.strip(" \r\n")  # tabs may be cells
            if not skipped and text.lower().startswith("sep=") and len(text) == 5:
                separator = text[-1]
            elif text.startswith("#"):
                comment = text.lstrip("#").strip()
            elif text:
                return skipped, comment, separator
    return 0, "", separator


def _limited(file: Iterator[str]) -> Iterator[str]:
    """Lines of the first rows. An endless one is not read to its end."""
    left = LIMIT
    while line := file.readline(left):  # type: ignore[attr-defined]
        left -= len(line)
        if not left:
            raise csv.Error(f"its first rows have more than {LIMIT} characters")
        yield line


def _sample(path: Path, encoding: str, skipped: int, separator: str) -> list[tuple[int, list[str]]]:
    """The first rows, with the numbers of their lines."""
    found: list[tuple[int, list[str]]] = []
    with open_table(path, encoding, skipped) as file:
        reader = _reader(_limited(file), separator)
        try:
            for row in islice(reader, SAMPLE):
                if row:
                    cells = [cell.strip() for cell in row]
                    found.append((reader.line_num + skipped, cells))
        except csv.Error:
            if len(found) < 2 or reader.line_num < 2:
                raise
    return found


def _find_separator(path: Path, encoding: str, skipped: int) -> str:
    """The one separator by which all first rows have as many cells."""
    samples, scores, broken = {}, {}, None
    for separator in SEPARATORS.values():
        try:
            samples[separator] = _sample(path, encoding, skipped, separator)
        except csv.Error as error:
            broken = error
            continue
        rows = [row for _, row in samples[separator]]
        widths = {len(row) for row in rows[1:]} or {len(rows[0])} if rows else {0}
        same = len(widths) == 1 and rows and len(rows[0]) in (min(widths), min(widths) - 1)
        if same and min(widths) > 1:
            ended = len(rows[0]) < min(widths)
            if not ended or not any(row[-1] for row in rows[1:]):
                scores[separator] = _clean(rows)
    best = [s for s, score in scores.items() if score == max(scores.values())]
    if len(best) == 1:
        return best[0]
    if best:
        raise InputError(path, f"may be separated by {best[0]!r} or {best[1]!r}", "separator")
    if not samples:
        assert broken is not None
        raise broken
    for separator, sample in samples.items():  # a table of one column
        if all(len(row) == 1 for _, row in sample) and _clean([row for _, row in sample]) == 1.0:
            return separator
    wide = {s: sum(len(row) for _, row in sample) for s, sample in samples.items()}
    separator = max(wide, key=wide.__getitem__)
    if wide[separator] == len(samples[separator]):
        return separator
    return _ragged(path, samples[separator])


def _clean(rows: Sequence[Sequence[str]]) -> float:
    """The share of cells that hold no other separator."""
    signs = {*SEPARATORS.values()}
    cells = [cell for row in rows for cell in row]
    return sum(is_number(cell) or not signs & {*cell} for cell in cells) / max(1, len(cells))


def _ragged(path: Path, sample: list[tuple[int, list[str]]]) -> NoReturn:
    usual = Counter(len(row) for _, row in sample).most_common(1)[0][0]
    line = next(line for line, row in sample if len(row) != usual)
    _refuse_widths(path, sample, line)


def _refuse_widths(path: Path, sample: list[tuple[int, list[str]]], line: int) -> NoReturn:
    cells = next(len(row) for at, row in sample if at == line)
    others = Counter(len(row) for at, row in sample if at != line).most_common(1)
    refuse_ragged(path, line, cells, others[0][0])


def _find_decimal(path: Path, encoding: str, skipped: int, separator: str, header: int) -> str:
    """What stands before decimals in all of the table, as the first cells that are certain say."""
    sure: dict[str, str] = {}
    either: dict[str, str] = {}
    with open_table(path, encoding, skipped) as file:
        for count, row in enumerate(islice(_reader(file, separator), header, None)):
            if count > SAMPLE and len(sure) == 1 and not either:
                break
            for cell in row:
                if found := decimals_of(cell.strip()):
                    known = either if found == "either" else sure
                    known.setdefault("," if found == "either" and "," in cell else found, cell)
            if len(sure) == 1:
                either.clear()
            if len(sure) > 1:
                break
    if len(sure) > 1:
        raise InputError(path, f"has decimals like {sure['.']!r} and like {sure[',']!r}", "decimal")
    if sure:
        return next(iter(sure))
    if not either or ("," not in either and separator == ","):
        return "."
    cell = next(iter(either.values()))
    raise InputError(path, f"holds {cell!r}, which may be a thousand or have decimals", "decimal")
