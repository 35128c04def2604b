"""A diagnosis from a stranger: it opens no other file, takes no memory, and is not markup."""

import contextlib
import json

import h5py
import numpy as np
import pytest
import xarray
from h5py import h5d, h5p, h5s, h5t

from ppl_vae import InputError
from ppl_vae.diagnostics.diagnosis import Diagnosis, read_diagnosis
from ppl_vae.diagnostics.report import render
from ppl_vae.storage.arviz_io import as_inference_data

from .strangers import refuses, sign, some_diagnosis
from .test_report import Page

HUGE = 10**12


# HDF5


def external_link(h5, outside):
    h5["diagnostics/y"] = h5py.ExternalLink(str(outside / "secret.h5"), "/x")


def soft_link(h5, outside):
    h5["diagnostics/y"] = h5py.SoftLink("/calibration/rank")


def external_storage(h5, outside):
    secret = outside / "secret.txt"
    size = len(secret.read_bytes())
    values = h5.create_dataset("diagnostics/y", (size,), "u1", external=[(str(secret), 0, size)])
    assert bytes(values[()]) == secret.read_bytes()  # the attack is live


def virtual(h5, outside):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "x", (3,))
    assert h5.create_virtual_dataset("diagnostics/y", layout)[0] == 7.0


def lists(h5, outside):
    h5.create_dataset("diagnostics/y", (3,), h5py.vlen_dtype(np.float64))


def references(h5, outside):
    h5.create_dataset("diagnostics/y", (3,), h5py.ref_dtype)


def reference_in_attribute(h5, outside):
    h5["diagnostics"].attrs["y"] = h5["calibration"].ref


def records(h5, outside):
    h5.create_dataset("diagnostics/y", (3,), [("a", "f8"), ("b", h5py.ref_dtype)])


def opaque(h5, outside):
    h5.create_dataset("diagnostics/y", data=np.void(b"x" * 10))


def unknown_filter(h5, outside):
    stored = h5p.create(h5p.DATASET_CREATE)
    stored.set_chunk((3,))
    stored.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, ())
    h5d.create(h5.id, b"/diagnostics/y", h5t.NATIVE_DOUBLE, h5s.create_simple((3,)), stored)


def large(h5, outside):
    h5.create_dataset("diagnostics/y", (HUGE,), "f8")


def large_chunked(h5, outside):
    h5.create_dataset("diagnostics/y", (HUGE,), "u1", chunks=(1000,), compression="gzip")


def large_by_many(h5, outside):
    for i in range(100):
        h5.create_dataset(f"diagnostics/y{i}", (10**9,), "f8")


def many_texts(h5, outside):
    h5.create_dataset("diagnostics/y", (10**6,), h5py.string_dtype(), chunks=(1000,))


def long_texts(h5, outside):
    h5.create_dataset("diagnostics/y", data=["x" * 2**20] * 20, dtype=h5py.string_dtype())


def own_ancestor(h5, outside):
    h5["diagnostics/y"] = h5["/"]


def named_type(h5, outside):
    h5["diagnostics/y"] = np.dtype("f8")


# What must be named.
HDF5 = {
    **dict.fromkeys((external_link, soft_link, external_storage, virtual), "/diagnostics/y"),
    **dict.fromkeys((lists, references, records, opaque, unknown_filter), "/diagnostics/y"),
    **dict.fromkeys((many_texts, long_texts, own_ancestor, named_type), "/diagnostics/y"),
    reference_in_attribute: "/diagnostics, y",
    **dict.fromkeys((large, large_chunked), "8.0 TB"),
    large_by_many: "800.0 GB",
}


@pytest.mark.parametrize("attack", HDF5, ids=lambda attack: attack.__name__)
def test_hdf5_that_leads_elsewhere_or_is_too_large(attack, strangers_run, shell, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("the secret")
    with h5py.File(outside / "secret.h5", "w") as h5:
        h5["x"] = np.full(3, 7.0)
    file = strangers_run / "results" / "diagnosis.nc"
    with h5py.File(file, "a") as h5:
        attack(h5, outside)
    assert file.stat().st_size < 2**25
    sign(strangers_run)
    refuses(shell, ["report", "run"], "diagnosis.nc", HDF5[attack])
    assert not (strangers_run / "report.html").exists()


def test_ranks_that_would_be_counted_in_a_large_array(strangers_run, shell):
    file = strangers_run / "results" / "diagnosis.nc"
    for spoil in (
        lambda group: group["rank"].__setitem__((0, 0), HUGE),
        lambda group: group["rank"].__setitem__((0, 0), -1),
        lambda group: group.attrs.__setitem__("draws", HUGE),
    ):
        with h5py.File(file, "a") as h5:
            spoil(h5["calibration"])
        sign(strangers_run)
        refuses(shell, ["report", "run"], "the diagnosis")
        with h5py.File(file, "a") as h5:
            h5["calibration/rank"][0, 0] = 0


def test_a_flipped_byte_does_not_reach_hdf5(strangers_run):
    file = strangers_run / "results" / "diagnosis.nc"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(whole), 300, replace=False):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << rng.integers(8)
        file.write_bytes(spoiled)
        with pytest.raises(InputError, match=r"diagnosis\.nc"):
            read_diagnosis(file.parent)
    file.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"diagnosis\.nc"):
        read_diagnosis(file.parent)


def test_a_flipped_byte_of_the_verdicts_is_refused_or_changes_nothing(strangers_run):
    file = strangers_run / "results" / "diagnosis.json"
    whole, before = file.read_bytes(), read_diagnosis(file.parent)
    rng = np.random.default_rng(0)
    for at in range(0, len(whole), 2):
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << rng.integers(8)
        file.write_bytes(spoiled)
        with contextlib.suppress(InputError):
            read = read_diagnosis(file.parent)
            assert (read.verdicts, read.about) == (before.verdicts, before.about)


# JSON


DEEP = '{"verdicts": ' + "[" * 100_000
GARBLED = {
    "question": [None, 3, [], {}],
    "grade": [None, 1, "", "PASS", "pass ", 'x"><script>alert(1)</script>', ["pass"]],
    "meaning": [None, 3.5, {}],
    "value": ["1", True, [], float("nan"), float("inf"), {"a": 1}],
    "error": ["1", False, -1.0, float("nan"), float("-inf")],
    "unit": [None, 3],
    "remedy": [None, []],
    "another": ["x"],
}


@pytest.mark.parametrize("field", GARBLED)
def test_a_garbled_verdict_is_refused_in_one_line(field, strangers_run):
    file = strangers_run / "results" / "diagnosis.json"
    found = json.loads(file.read_text())
    for value in GARBLED[field]:
        garbled = json.loads(json.dumps(found))
        garbled["verdicts"]["coverage"][field] = value
        sign(strangers_run, garbled)
        with pytest.raises(InputError, match=r"diagnosis\.json") as caught:
            read_diagnosis(file.parent)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "3", "{}", '"x"', "{" * 100, DEEP, '{"a": ' + "9" * 5000 + "}", "\ufeff{}"],
    ids=lambda text: text[:12],
)
def test_json_that_is_not_a_diagnosis(text, strangers_run, shell):
    (strangers_run / "results" / "diagnosis.json").write_text(text, encoding="utf-8")
    refuses(shell, ["report", "run"], "diagnosis.json")


@pytest.mark.parametrize("verdicts", [None, [], "x", {"a": None}, {"a": []}, {"a": {}}, 3])
def test_verdicts_that_are_none(verdicts, strangers_run):
    found = json.loads((strangers_run / "results" / "diagnosis.json").read_text())
    sign(strangers_run, {**found, "verdicts": verdicts})
    with pytest.raises(InputError, match=r"diagnosis\.json"):
        read_diagnosis(strangers_run / "results")


# The report


EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    "</title></head><body onload=alert(1)>",
    "javascript:alert(1)",
    "<a href='javascript:alert(1)'>x</a>",
    "--><!--",
    "\x1b]0;owned\x07\x1b[2J",
    "\u202egnp.x\u2066",
    "\ud800",
    "\x00",
]


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_no_text_of_a_stranger_is_markup(evil, strangers_run, shell):
    found = json.loads((strangers_run / "results" / "diagnosis.json").read_text())
    texts = dict.fromkeys(("question", "meaning", "statistic", "unit", "threshold", "remedy"), evil)
    for verdict in (
        {"grade": "fail", "source": evil, "value": 1.0, "error": 0.1, **texts},
        {"grade": "pass", "source": evil, "value": 1.0, **texts},
    ):
        found["verdicts"][f"{evil}{verdict['grade']}"] = verdict
    found |= {"program": evil, "data": [evil], evil: {evil: evil}}
    sign(strangers_run, found)
    config = json.loads((strangers_run / "config.json").read_text())
    config["settings"] |= {evil: evil}
    config["arguments"] |= {evil: [evil]}
    (strangers_run / "config.json").write_text(json.dumps(config))
    code, _, err = shell("report", "run")
    assert code == 0, err
    page = (strangers_run / "report.html").read_text(encoding="utf-8")
    assert not set(page) & set("\x00\x07\x1b\u202e\u2066")
    tags = Page(page).tags
    assert {tag for tag, _ in tags} <= {
        *("html", "head", "meta", "link", "title", "style", "body", "h1", "h2", "p", "section"),
        *("span", "strong", "em", "figure", "img", "figcaption", "table", "tr", "td"),
    }
    for _, attributes in tags:
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in ("src", "href") or value.startswith("data:")
    assert [tag for tag, _ in tags].count("style") == 1


@pytest.mark.parametrize("evil", EVIL[:4], ids=range(4))
def test_names_inside_of_netcdf_are_only_drawn(evil):
    diagnosis = some_diagnosis()
    names = ["$" + evil + "$", evil]  # mathematics, as Matplotlib reads it
    calibration = diagnosis.inference_data["calibration"].assign_coords(quantity=names)
    calibration["rank"].attrs["units"] = evil
    groups = {
        "diagnostics": diagnosis.inference_data["diagnostics"].assign_attrs({"note": evil}),
        "calibration": calibration.assign_attrs({evil.replace("/", ""): evil}),
        "evil": xarray.Dataset({evil.replace("/", ""): ("x", [1.0])}),
    }
    hostile = Diagnosis(diagnosis.verdicts, as_inference_data(groups, {}), diagnosis.about)
    with contextlib.suppress(ValueError):  # which write_report turns into a line
        assert "alert" not in render(hostile)
