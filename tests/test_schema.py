"""Kinds of columns: found, said, shown, kept, and asked of new data."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from ppl_vae import Config, InputError, load_data, make_data
from ppl_vae.data.inspection import summarize, troubles
from ppl_vae.data.reading import Reading
from ppl_vae.data.schema import Column, as_columns, refuse_constant
from ppl_vae.data.schema_files import read_schema, schema_text
from ppl_vae.data.sources import load_rows, read_rows

RNG = np.random.default_rng(0)
KINDS = {
    "normal": ("real", RNG.normal(size=400)),
    "far": ("real", RNG.normal(50, 2, size=400)),
    "uniform": ("real", RNG.random(400)),
    "log-normal": ("positive", RNG.lognormal(0, 1.5, size=400)),
    "zeros and amounts": ("real", RNG.lognormal(0, 1, size=400) * (RNG.random(400) < 0.7)),
    "Poisson": ("count", RNG.poisson(3, size=400)),
    "rare": ("count", RNG.negative_binomial(0.3, 0.1, size=400)),
    "counts as floats": ("count", RNG.poisson(3, size=400).astype(float)),
    "years": ("real", RNG.integers(1990, 2020, size=400)),
    "coin": ("binary", RNG.integers(2, size=400)),
    "signed": ("real", RNG.integers(-3, 4, size=400)),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("holes", [False, True])
def test_kinds_that_are_found(name, holes):
    kind, values = KINDS[name]
    values = np.where(RNG.random(400) < 0.3, np.nan, values) if holes else values
    data = make_data(pd.DataFrame({name: values, "b": RNG.normal(size=400)}))
    column = data.columns[0]
    assert (column.name, column.kind) == (name, kind)
    train = np.asarray(values, dtype=float)[data.train.rows.numpy()]
    train = np.log(train) if kind == "positive" else train
    assert column.loc == pytest.approx(np.nanmean(train))
    assert column.scale == pytest.approx(np.nanstd(train))


def test_kinds_that_are_said():
    frame = pd.DataFrame({"a": RNG.poisson(3, 40), "b": RNG.integers(3, size=40), "c": range(40)})
    schema = {"a": {"kind": "real"}, "b": {"kind": "category"}, "c": {"drop": True}}
    data = make_data(frame, reading=Reading(schema=schema))
    assert [(c.name, c.kind, c.categories) for c in data.columns] == [
        ("a", "real", ()),
        ("b", "category", ("0", "1", "2")),
    ]
    array = make_data(frame.to_numpy(), reading=Reading(schema={"column 0": {"kind": "real"}}))
    assert array.columns[0].kind == "real"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"d": {"kind": "real"}}, "no column 'd'"),
        ({"a": {"kind": "positive"}}, "'a' of kind positive, but with the value"),
        ({"a": {"kind": "count"}}, "'a' of kind count"),
        ({"b": {"kind": "binary"}}, "'b' of kind binary"),
        ({"b": {"kind": "ordered", "categories": ["0", "1"]}}, "'2' in column 'b'"),
        ({"t": {"kind": "real"}}, "'t' that holds text"),
    ],
)
def test_kinds_that_cannot_be(schema, words):
    frame = pd.DataFrame({"a": RNG.normal(size=40), "b": [0, 1, 2, 2] * 10, "t": ["x", "y"] * 20})
    with pytest.raises(InputError, match=words):
        make_data(frame, reading=Reading(schema=schema))


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"separator": "ab"}, "separator"),
        ({"separator": "1"}, "separator"),
        ({"decimal": ";"}, "decimal"),
        ({"decimal": ",", "separator": ","}, "decimal"),
        ({"header": 1}, "header"),
        ({"index_column": 0}, "index_column"),
        ({"label": ""}, "label"),
        ({"levels": 256}, "levels"),
        ({"resize": (3,)}, "resize"),
        ({"resize": (3, 0)}, "resize"),
        ({"grey": "yes"}, "grey"),
        ({"schema": []}, "schema"),
        ({"schema": {"a": {"kind": "complex"}}}, "'a'"),
        ({"schema": {"a": {"drop": 1}}}, "'a'"),
        ({"schema": {"a": {"categories": ["x", "x"]}}}, "'a'"),
        ({"schema": {"a": {"name": "b"}}}, "'a'"),
    ],
)
def test_readings_that_cannot_be(given, culprit):
    with pytest.raises(InputError) as caught:
        Reading(**given)
    assert culprit in caught.value.culprit


def test_readings_are_kept_as_plain_data():
    reading = Reading(
        separator="tab", header=False, resize=(3, 4), schema={"a": {"categories": ("x", "y")}}
    )
    assert Reading.of(json.loads(json.dumps(reading.plain()))) == reading
    assert Reading().plain() == {}


def test_a_config_keeps_columns_and_refuses_what_is_none(tmp_path):
    frame = pd.DataFrame({"a": RNG.normal(size=40), "t": ["x", "y"] * 20})
    config = Config.of("ppl_vae.models:VAE", {}, make_data(frame))
    config.write(tmp_path)
    file = tmp_path / "config.json"
    read = Config.read(file)
    assert read.data == config.data
    assert [Column.of(c) for c in read.data["columns"]] == [*make_data(frame).columns]
    bad = [
        {"columns": 3},
        {"columns": [{"name": "a", "kind": "real"}]},
        {"columns": [{"name": "a", "kind": "real"}, {"name": "t", "kind": "complex"}]},
        {"columns": [{"name": "a", "kind": "real", "loc": "0"}] * 2},
        {"columns": [{"name": "a", "kind": "real", "scale": -1.0}] * 2},
        {"columns": [{"name": ["a"], "kind": "real"}] * 2},
        {"columns": [{"name": "a", "kind": ["real"]}] * 2},
        {"reading": 3},
        {"reading": {"what": 1}},
        {"reading": {"schema": {"a": 3}}},
        {"reading": {"separator": ["a"]}},
    ]
    for change in bad:
        fields = json.loads(file.read_text())
        fields["data"] |= change
        (tmp_path / "bad.json").write_text(json.dumps(fields))
        with pytest.raises(InputError) as caught:
            Config.read(tmp_path / "bad.json")
        assert caught.value.culprit.endswith("bad.json")
    fields = json.loads(file.read_text())
    del fields["data"]["columns"], fields["data"]["reading"]  # as older versions wrote it
    file.write_text(json.dumps(fields))
    assert Config.read(file).data["shape"] == [2]


def test_the_digest_covers_names():
    x = RNG.normal(size=(40, 2))
    names = [["a", "b"], ["a", "c"], ["b", "a"]]
    digests = [make_data(pd.DataFrame(x, columns=n)).digest for n in names]
    texts = [["x", "y"] * 20, ["x", "z"] * 20]
    digests += [make_data(pd.DataFrame({"a": x[:, 0], "t": text})).digest for text in texts]
    assert len({*digests, make_data(x).digest}) == 6


def test_constant_columns_are_named():
    columns = make_data(pd.DataFrame({"a": [1.5] * 40, "b": RNG.normal(size=40)})).columns
    assert columns[0].is_constant
    with pytest.raises(InputError, match="constant column 'a'"):
        refuse_constant(columns, "t.csv")
    rare = np.zeros(40)
    rare[make_data(rare[:, None] + np.arange(40)[:, None]).test.rows[0]] = 1
    refuse_constant(make_data(pd.DataFrame({"a": rare, "b": range(40)})).columns, "t.csv")


def test_troubles_name_columns():
    x = RNG.normal(size=(400, 4)) * [1, 1, 1e-3, 1e4]
    x[:, 1] = 3.0
    x[3:, 2] = 0.1
    said = troubles(summarize(make_data(x)))
    assert len(said) == 3
    assert said[0].startswith("column 'column 1' is constant")
    assert said[1].startswith("column 'column 2' is nearly constant")
    assert "'column 3' is " in said[2]
    assert not troubles(summarize(make_data(RNG.normal(size=(400, 4)))))


def test_summaries_are_those_of_all_rows():
    x = RNG.normal(size=(40, 2))
    x[3, 1] = np.nan
    summary = summarize(make_data(x))[1]
    assert (summary.missing, summary.low) == (1, np.nanmin(x[:, 1]))
    assert summary.sd == pytest.approx(np.nanstd(x[:, 1]))


@pytest.mark.parametrize("name", ["a.toml", "a.json"])
def test_schema_files(name, tmp_path):
    schema = {"a b": {"kind": "real"}, "ü": {"drop": True}, "c": {"categories": ["x", 'y"']}}
    text = json.dumps({"columns": schema})
    if name == "a.toml":
        text = '[columns."a b"]\nkind = "real"\n[columns."ü"]\ndrop = true\n'
        text += '[columns.c]\ncategories = ["x", "y\\""]\n'
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_schema(tmp_path / name) == schema


@pytest.mark.parametrize("text", ["", "[columns", "[column.a]", "columns = 3", "a = 1e999999"])
def test_schema_files_that_are_none(text, tmp_path):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_schema(tmp_path / "s.toml")
    assert caught.value.culprit.endswith("s.toml")


def test_a_schema_that_was_written_says_the_same(tmp_path):
    frame = pd.DataFrame({"a\n": RNG.normal(size=40), 't"': ["x", "y", "\u2028", "\x7f"] * 10})
    data = make_data(frame)
    (tmp_path / "s.toml").write_text(schema_text(data.columns), encoding="utf-8")
    again = make_data(frame, reading=Reading(schema=read_schema(tmp_path / "s.toml")))
    assert again.columns == data.columns


TABLE = pd.DataFrame(
    {
        "height": RNG.normal(size=60).round(3),
        "kids": RNG.poisson(3, size=60),
        "town": RNG.choice(["A", "B", "C"], size=60),
        "ok": RNG.random(60) < 0.5,
        "label": ["u", "v"] * 30,
    },
    index=[f"p{i}" for i in range(60)],
)


@pytest.fixture
def like(tmp_path):
    TABLE.to_csv(tmp_path / "t.csv")
    return Config.of("ppl_vae.models:VAE", {}, load_data(tmp_path / "t.csv")).data


def test_new_rows_are_those_of_the_table(like, tmp_path):
    data = load_data(tmp_path / "t.csv")
    expected = data.batch("test").x
    for name, frame in {
        "the same": TABLE,
        "in another order": TABLE[["ok", "label", "town", "kids", "height"]],
        "without labels": TABLE.drop(columns="label"),
    }.items():
        new = frame.iloc[data.test.rows.numpy()]
        new.to_csv(tmp_path / "new.csv")
        batch, names = read_rows(tmp_path / "new.csv", like)
        assert torch.equal(batch.x, expected), name
        assert names == tuple(new.index)
        new.to_parquet(tmp_path / "new.parquet")
        assert torch.equal(load_rows(tmp_path / "new.parquet", like).x, expected), name
    # Few rows, whose columns would seem to be something else.
    one = TABLE.iloc[:1]
    one.to_csv(tmp_path / "one.csv", sep=";")
    assert load_rows(tmp_path / "one.csv", like).x[0, :2].tolist() == one.iloc[0, :2].tolist()


def test_new_rows_with_gaps(like, tmp_path):
    TABLE.assign(town=None, height=[None, 1.5] * 30).to_csv(tmp_path / "new.csv")
    batch = load_rows(tmp_path / "new.csv", like)
    assert not batch["mask"][:, 2].any()
    assert batch["mask"][:, 0].float().mean() == 0.5
    assert batch["mask"][:, 1].all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop(columns="kids"), "no column 'kids'"),
        (lambda t: t.assign(weight=1.5), "'weight', which the program was not fitted to"),
        (lambda t: t.assign(town="D"), "'D' in column 'town'"),
        (lambda t: t.assign(height="tall"), "'height'"),
    ],
)
def test_new_rows_that_are_others(change, words, like, tmp_path):
    for suffix, write in ((".csv", "to_csv"), (".parquet", "to_parquet")):
        getattr(change(TABLE), write)(tmp_path / f"new{suffix}")
        with pytest.raises(InputError, match=words):
            load_rows(tmp_path / f"new{suffix}", like)


def test_a_table_comes_back_as_a_table():
    data = make_data(TABLE)
    x = torch.cat([data.train.x, data.validation.x, data.test.x]).numpy()
    rows = torch.cat([data.train.rows, data.validation.rows, data.test.rows]).argsort().numpy()
    back = pd.DataFrame(as_columns(data.columns, x[rows]), index=TABLE.index)
    pd.testing.assert_frame_equal(back, TABLE.drop(columns="label"), check_dtype=False)
    between = as_columns(data.columns, x[rows] + 0.25)  # what a normal density draws of codes
    assert between["town"].dtype == np.float64


def test_a_gap_in_training_rows_alone_is_named():
    values = np.full(40, np.nan)
    values[make_data(np.arange(40.0)[:, None]).test.rows.numpy()] = 1.5
    with pytest.raises(InputError, match="'a' without values to train on"):
        make_data(pd.DataFrame({"a": values, "b": range(40)}))


def test_skewness_is_that_of_scipy():
    from ppl_vae.data.schema import _skewness

    values = RNG.lognormal(size=100)
    assert _skewness(values) == pytest.approx(stats.skew(values))
