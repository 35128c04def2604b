"""Text tables: read as what they are, or refused with what would decide; never read as another."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ppl_vae import InputError, load_data
from ppl_vae.data import csv_tables
from ppl_vae.data.csv_tables import read_csv
from ppl_vae.data.reading import Reading

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(40, 3)).round(3)
FRAME = pd.DataFrame(VALUES, columns=["a", "b", "c"])


def table(tmp_path, text, encoding="utf-8", **reading):
    file = tmp_path / "t.csv"
    file.write_text(text, encoding=encoding)
    return read_csv(file, Reading(**reading))["x"]


def refusal(tmp_path, text, **reading):
    with pytest.raises(InputError) as caught:
        table(tmp_path, text, **reading)
    assert caught.value.culprit.endswith("t.csv")
    assert "\n" not in str(caught.value)
    return caught.value


def rows(lines, header="a,b"):
    return "\n".join([header, *lines]) + "\n"


PLAIN = "".join(f"{a},{b}\n" for a, b in VALUES[:, :2])
READ_AS_PLAIN = {
    "as pandas writes it": ("a,b\n" + PLAIN, {}),
    "a byte-order mark": ("\ufeffa,b\n" + PLAIN, {}),
    "spaces after commas": (("a,b\n" + PLAIN).replace(",", ", "), {}),
    "quotes": ('"a","b"\n' + "".join(f'"{a}","{b}"\n' for a, b in VALUES[:, :2]), {}),
    "quotes after spaces": ('"a", "b"\n' + PLAIN, {}),
    "semicolons": (("a,b\n" + PLAIN).replace(",", ";"), {}),
    "tabs": (("a,b\n" + PLAIN).replace(",", "\t"), {}),
    "pipes": (("a,b\n" + PLAIN).replace(",", "|"), {}),
    "decimal commas": (("a,b\n" + PLAIN).replace(",", ";").replace(".", ","), {}),
    "decimal commas after tabs": (("a,b\n" + PLAIN).replace(",", "\t").replace(".", ","), {}),
    "what Excel says of itself": ("sep=;\n" + ("a,b\n" + PLAIN).replace(",", ";"), {}),
    "empty lines": ("\na,b\n\n" + PLAIN + "\n\n", {}),
    "line ends of Windows": (("a,b\n" + PLAIN).replace("\n", "\r\n"), {}),
    "comments first": ("# made by hand\n# in 2024\na,b\n" + PLAIN, {}),
    "NumPy's header": ("# a,b\n" + PLAIN, {}),
    "commas at the ends of rows": ("a,b\n" + PLAIN.replace("\n", ",\n"), {}),
    "commas at all ends": ("a,b,\n" + PLAIN.replace("\n", ",\n"), {}),
    "signs of minus": (("a,b\n" + PLAIN).replace("-", "\u2212"), {}),
    "a column to leave out": (
        "a,b,when\n" + PLAIN.replace("\n", ",2024-01-31\n"),
        {"schema": {"when": {"drop": True}}},
    ),
}


@pytest.mark.parametrize("name", READ_AS_PLAIN)
def test_dialects_of_one_table(name, tmp_path):
    text, reading = READ_AS_PLAIN[name]
    found = table(tmp_path, text, **reading)
    assert found.names == ("a", "b")
    np.testing.assert_array_equal(found.values, VALUES[:, :2])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_encodings_that_say_what_they_are(encoding, tmp_path):
    found = table(tmp_path, "größe,b\n" + PLAIN, encoding)
    assert found.names == ("größe", "b")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16-le"])
def test_encodings_that_do_not_are_refused(encoding, tmp_path):
    (tmp_path / "t.csv").write_bytes(("größe,b\n" + PLAIN).encode(encoding))
    with pytest.raises(InputError, match="save it as UTF-8"):
        load_data(tmp_path / "t.csv")


ROW_NAMES = {
    "R's": FRAME.set_axis(range(1, 41)),
    "of rows that were dropped": FRAME.drop(index=[3, 7]),
    "shuffled": FRAME.sample(frac=1, random_state=0),
    "of text": FRAME.set_axis([f"row {i}" for i in range(40)]),
    "counted by pandas": FRAME,
}


@pytest.mark.parametrize("name", ROW_NAMES)
def test_nameless_first_columns_name_rows(name, tmp_path):
    frame = ROW_NAMES[name]
    found = table(tmp_path, frame.to_csv())
    np.testing.assert_array_equal(found.values, frame.to_numpy())
    assert found.row_names == tuple(map(str, frame.index))


def test_row_names_with_a_name(tmp_path):
    named = FRAME.set_axis([f"row {i}" for i in range(40)]).rename_axis("gene")
    assert table(tmp_path, named.to_csv()).row_names[:2] == ("row 0", "row 1")
    counted = FRAME.set_axis(range(100, 140)).rename_axis("id")
    error = refusal(tmp_path, counted.to_csv())
    assert (error.remedy, error.details["column"]) == ("index-or-data", "id")
    found = table(tmp_path, counted.to_csv(), index_column="id")
    assert (found.names, found.row_names[0]) == (("a", "b", "c"), "100")
    found = table(tmp_path, counted.to_csv(), schema={"id": {"kind": "real"}})
    assert found.names == ("id", "a", "b", "c")
    refusal(tmp_path, counted.to_csv(), index_column="nr")


NUMERIC = {
    "wavelengths": [400.0, 401.5, 403.0],
    "years": [2001, 2002, 2003],
    "1 ... n": [1, 2, 3],
    "pandas' own": [0, 1, 2],
    "m/z, falling": [980.2, 541.7, 120.1],
}


@pytest.mark.parametrize("name", NUMERIC)
def test_headers_of_numbers(name, tmp_path):
    frame = pd.DataFrame(RNG.random((40, 3)), columns=NUMERIC[name])
    text = frame.to_csv(index=False)
    if name == "m/z, falling":  # as one row in three falls by chance
        assert refusal(tmp_path, text).remedy == "header"
    found = table(tmp_path, text, header=True if name == "m/z, falling" else None)
    assert found.names == tuple(map(str, NUMERIC[name]))
    np.testing.assert_array_equal(found.values, frame.to_numpy())
    found = table(tmp_path, frame.to_csv())
    assert found.names == tuple(map(str, NUMERIC[name]))
    np.testing.assert_array_equal(found.values, frame.to_numpy())


def test_a_first_row_that_may_be_either_is_refused(tmp_path):
    counts = RNG.poisson(3, size=(40, 4))
    text = pd.DataFrame(counts, columns=[1, 2, 3, 4]).to_csv(index=False)
    assert refusal(tmp_path, text).remedy == "header"
    assert len(table(tmp_path, text, header=True).values) == 40
    assert len(table(tmp_path, text, header=False).values) == 41


@pytest.mark.parametrize("seed", range(20))
def test_tables_without_a_header_keep_their_first_row_or_are_refused(seed, tmp_path):
    rng = np.random.default_rng(seed)
    for array in (rng.normal(size=(30, 4)), rng.poisson(3, (30, 4)), rng.random((30, 6)).cumsum(1)):
        text = pd.DataFrame(array).to_csv(index=False, header=False)
        with contextlib.suppress(InputError):
            np.testing.assert_array_equal(table(tmp_path, text).values, array)
        np.testing.assert_array_equal(table(tmp_path, text, header=False).values, array)


def test_decimals_that_may_be_thousands(tmp_path):
    assert refusal(tmp_path, rows(["1,234;2"] * 9, "a;b")).remedy == "decimal"
    assert table(tmp_path, rows(["1,234;2"] * 9, "a;b"), decimal=",").values[0, 0] == 1.234
    assert table(tmp_path, rows(["1,234;2"] * 9, "a;b"), decimal=".").values[0, 0] == 1234
    assert refusal(tmp_path, rows(["1.234;2"] * 9, "a;b")).remedy == "decimal"
    assert table(tmp_path, rows(["1.234,2"] * 9)).values[0, 0] == 1.234
    # Another cell, however far below, decides.
    lines = ["1,234;2"] * 900
    assert table(tmp_path, rows([*lines, "0,5;2"], "a;b")).values[0, 0] == 1.234
    assert table(tmp_path, rows([*lines, "0.5;2"], "a;b")).values[0, 0] == 1234
    assert refusal(tmp_path, rows([*lines, "0.5;0,5"], "a;b")).remedy == "decimal"
    assert table(tmp_path, rows(['"1,234.5",2'] * 9)).values[0, 0] == 1234.5
    assert table(tmp_path, rows(["1 234,5;2"] * 9, "a;b")).values[0, 0] == 1234.5


def test_what_says_that_a_value_is_missing(tmp_path):
    spellings = ["", "NA", "N/A", "-", "?", "null", "NaN", "None", "#N/A", "."]
    found = table(tmp_path, rows([f"{i}.5,{cell}" for i, cell in enumerate(spellings)] + ["1,2"]))
    assert np.isnan(found.values[:-1, 1]).all()
    assert found.values[-1].tolist() == [1, 2]
    assert table(tmp_path, rows(["1,-999", "2,3"])).values[0, 1] == -999


MIXED = {
    "a unit": ["1,2", "3,12 kg", "5,6"],
    "units alone": ["1,5 kg", "3,12 kg", "5,7 kg"],
    "a limit of detection": ["1,2", "3,<0.1", "5,6"],
    "a row of units": ["m,kg", "1,2", "3,4"],
    "percent": ["1,2%", "3,4%", "5,6%"],
    "one of them": ["1,2", "3,2%", "5,6"],
    "a word": ["1,2", "3,many", "5,6"],
    "a word first": ["1,many", "3,2", "5,6"],
    "underscores": ["1,1_000", "3,2", "5,6"],
}


@pytest.mark.parametrize("name", MIXED)
def test_text_among_numbers_is_refused_by_column_line_and_cell(name, tmp_path):
    error = refusal(tmp_path, rows(MIXED[name]))
    column = "a" if name == "a row of units" else "b"
    assert f"column {column!r}, line " in error.problem
    assert error.remedy == "mend-or-category"
    if name in ("a word", "a unit", "a limit of detection"):
        assert "line 3" in error.problem
    assert len(table(tmp_path, rows(MIXED[name]), schema={
        "a": {"kind": "category"}, "b": {"kind": "category"}}).values) == 3  # fmt: skip


@pytest.mark.parametrize(
    "cells",
    [
        ["2024-01-31", "2024-02-01"],
        ["31.01.2024", "1.2.2024"],
        ["1/31/2024", "2/1/2024 10:30"],
        ["12:30", "13:45:10"],
        ["2024-01-31T12:30:00Z", "2024-01-31T12:30:01Z"],
        ["31-Jan-2024", "1-Feb-2024"],
    ],
)
def test_dates_are_refused_by_name(cells, tmp_path):
    error = refusal(tmp_path, rows([f"{i},{cell}" for i, cell in enumerate(cells)]))
    assert (error.remedy, error.details["column"]) == ("date", "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", "3 cells in line 3, and 2 in others"),
        ("a,b\n1,2\n1\n", "1 cell in line 3"),
        ("Results of 2024\n\na,b\n1,2\n3,4\n", "1 cell in line 1"),
        ("a,b\nx,1,2\ny,3,4\n", "2 cells in line 1, and 3"),
        ("a,b\n1,2\n,\n", "no cell in line 3"),
        ("a,,b\n1,2,3\n4,5,6\n", "no name for column 2"),
        ("a,a\n1,2\n4,5\n", "two columns 'a'"),
        ('a,b\n"1,2\n3,4\n', "not a CSV table"),
        ("a,b\n1,inf\n3,4\n", "infinite value in column 'b', line 2"),
        ("a,b\n1,9007199254740993\n3,4\n", "beyond 2^53"),
        ("", "holds no data"),
        ("a,b\n", "holds no data"),
        ("a;b|c\n1;2|3\n", "may be separated by"),
    ],
)
def test_what_cannot_be_used_is_named(text, words, tmp_path):
    assert words in str(refusal(tmp_path, text))


def test_a_row_that_is_ragged_far_below_is_named(tmp_path):
    lines = ["1.5,2"] * 5000
    assert "line 5002" in str(refusal(tmp_path, rows([*lines, "1,2,3"])))
    assert "line 5002" in str(refusal(tmp_path, rows([*lines, "1"])))


def test_categories_and_booleans(tmp_path):
    cells = ["TRUE,no,x", "FALSE,yes,y", "TRUE,NA,z"] * 4
    found = table(tmp_path, rows(cells, "a,b,c"))
    assert found.categories == {"a": ("FALSE", "TRUE"), "b": ("no", "yes"), "c": ("x", "y", "z")}
    assert found.values[0].tolist() == [1, 0, 0]
    assert np.isnan(found.values[2, 1])
    ordered = {"c": {"kind": "ordered", "categories": ["z", "y", "x"]}}
    assert table(tmp_path, rows(cells, "a,b,c"), schema=ordered).values[0, 2] == 2
    short = {"c": {"categories": ["x", "y"]}}
    assert "'z' in column 'c'" in str(refusal(tmp_path, rows(cells, "a,b,c"), schema=short))
    texts = rows([f"{i % 5},text {i}" for i in range(40)])
    assert refusal(tmp_path, texts).remedy == "leave-out-or-index"
    plus = rows(["1,+", "2,-"] * 4)
    assert refusal(tmp_path, plus).remedy == "mend-or-category"
    strand = {"b": {"kind": "category"}}
    assert table(tmp_path, plus, schema=strand).categories["b"] == ("+", "-")


def test_labels_are_text_wherever_they_stand(tmp_path):
    text = rows([f"{i % 11},{i}.5" for i in range(40)], "label,a")
    found = load_csv(tmp_path, text)
    assert found.label_names == tuple(map(str, range(11)))
    named = load_csv(tmp_path, text.replace("label", "class"), label="class")
    assert torch.equal(named.train.labels, found.train.labels)
    missing = load_csv(tmp_path, text.replace("\n10,", "\n,"))
    assert (missing.label_names, int(missing.train.labels.min())) == (found.label_names[:10], -1)
    with pytest.raises(InputError, match="no column 'klass'"):
        load_csv(tmp_path, text, label="klass")


def load_csv(tmp_path, text, **reading):
    (tmp_path / "t.csv").write_text(text)
    return load_data(tmp_path / "t.csv", reading=Reading(**reading))


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\0\0", b"PK\x03\x04\0\0\0"])
def test_what_is_no_text_says_what_to_do(content, tmp_path):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match="unpack it"):
        load_data(tmp_path / "t.csv")


def test_memory_is_compared_before_it_is_taken(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(csv_tables, "refuse_beyond_memory", lambda *of: taken.append(of[0]))
    text = rows(["1.5,2"] * 1000)
    table(tmp_path, text)
    assert taken[0] >= 8 * 2 * 1000 + len(text)


SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}


@st.composite
def dialects(draw):
    """A table, and the text that some program would write of it."""
    count, width = draw(st.integers(3, 8)), draw(st.integers(1, 4))
    places = draw(st.integers(0, 4))
    cell = st.one_of(
        st.floats(-2000, 2000, allow_nan=False).map(lambda v: round(v, places)), st.just(np.nan)
    )
    values = np.array([[draw(cell) for _ in range(width)] for _ in range(count)])
    separator = draw(st.sampled_from([*SEPARATORS.values()]))
    decimal = draw(st.sampled_from(".," if separator != "," else "."))
    missing = draw(st.sampled_from(["", "NA", "-"]))
    quote = '"' if draw(st.booleans()) else ""
    header = draw(st.sampled_from(["names", "numbers", "none"]))
    index = draw(st.booleans()) and header != "none"
    # One column of 0,5 is written as two columns of whole numbers are: no reader can tell them.
    assume(not (width == 1 and header == "none" and decimal == "," and places and not quote))

    def written(value):
        text = missing if np.isnan(value) else f"{value:.{places}f}".replace(".", decimal)
        return f"{quote}{text}{quote}"

    lines = [separator.join(map(written, row)) for row in values]
    if index:
        lines = [f"{quote}r{i}{quote}{separator}{line}" for i, line in enumerate(lines)]
    if header != "none":
        names = [f"v{i}" if header == "names" else str(2001 + i) for i in range(width)]
        lines.insert(0, separator.join([""] * index + names))
    return values, "\n".join(lines) + "\n"


@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
@given(dialects())
def test_a_table_in_any_dialect_is_read_as_it_is_or_refused(tmp_path_factory, drawn):
    values, text = drawn
    file = tmp_path_factory.getbasetemp() / "drawn.csv"
    file.write_text(text)
    try:
        found = read_csv(file)["x"].values
    except InputError:
        return
    assert found.shape == values.shape, text
    np.testing.assert_array_equal(found, values, err_msg=text)


IDENTIFIERS = {
    "R's, read and written again": "X",
    "pandas', likewise": "Unnamed: 0.1",
    "those of Kaggle": "PassengerId",
    "a first column that counts": "n",
}


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_what_may_be_names_of_rows_is_refused(name, tmp_path):
    column = IDENTIFIERS[name]
    counted = FRAME.assign(**{column: range(1, 41)})[[column, "a", "b"]]
    error = refusal(tmp_path, counted.to_csv(index=False))
    assert (error.remedy, error.details["column"]) == ("index-or-data", column)
    assert table(tmp_path, counted.to_csv(index=False), index_column=column).names == ("a", "b")
    data = table(tmp_path, counted.to_csv(index=False), schema={column: {"kind": "real"}})
    assert data.values[:3, 0].tolist() == [1, 2, 3]


def test_codes_with_leading_zeros_are_refused(tmp_path):
    text = rows([f"{i}.5,{i % 7:03}" for i in range(40)])
    assert "'000' in column 'b', line 2" in str(refusal(tmp_path, text))
    schema = {"b": {"kind": "category"}}
    assert table(tmp_path, text, schema=schema).categories["b"][1] == "001"


@pytest.mark.parametrize("aligned", [False, True])
def test_spaces_separate_where_that_is_said(aligned, tmp_path):
    text = FRAME.to_string(index=False) if aligned else FRAME.to_csv(index=False, sep=" ")
    assert refusal(tmp_path, text).remedy == "separator"
    np.testing.assert_array_equal(table(tmp_path, text, separator="space").values, VALUES)


@pytest.mark.parametrize("name", ["label", "Label", "LABEL"])
def test_a_label_in_capitals_is_one(name, tmp_path):
    text = rows([f"{i}.5,{i % 2}" for i in range(40)], f"a,{name}")
    assert load_csv(tmp_path, text).label_names == ("0", "1")
