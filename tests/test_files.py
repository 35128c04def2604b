"""Files are written whole or not at all, whoever else writes, and whatever the user has there."""

import os
import resource
import signal
import threading
import warnings

import numpy as np
import pytest
import xarray

from ppl_vae.errors import InputError
from ppl_vae.evidence.results import write_results
from ppl_vae.storage import files
from ppl_vae.storage.arviz_io import as_inference_data, write_inference_data
from ppl_vae.storage.files import DurabilityWarning, replacing

from .test_hostile_runs import FORKS, in_a_fork

DATASET = xarray.Dataset(
    {"a": (("datum", "unit"), np.random.default_rng(0).normal(size=(100, 90)))}
)


def test_two_writers_share_no_temporary_file(tmp_path):
    target = tmp_path / "a.txt"
    with replacing(target) as (one,), replacing(target) as (two,):
        one.write_text("one")
        two.write_text("two")
    assert target.read_text() == "one"  # which was renamed last
    assert os.listdir(tmp_path) == ["a.txt"]


def test_hidden_neighbours_are_the_users(tmp_path):
    (tmp_path / ".a.txt").write_text("mine")
    (tmp_path / ".b").mkdir()
    for name in ("a.txt", "b"):
        with replacing(tmp_path / name) as (temporary,):
            temporary.write_text("new")
    assert (tmp_path / ".a.txt").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == [".a.txt", ".b", "a.txt", "b"]


def test_names_as_long_as_a_file_system_allows(tmp_path):
    target = tmp_path / ("\u00e4" * 125 + ".txt")
    with replacing(target) as (temporary,):
        temporary.write_text("whole")
    assert target.read_text() == "whole"


def test_of_two_writers_of_a_pair_one_has_written_both(tmp_path):
    pair = [tmp_path / "a.nc", tmp_path / "a.json"]
    barrier = threading.Barrier(8)

    def write(letter):
        for _ in range(20):
            barrier.wait()
            with replacing(*pair) as temporary:
                for path in temporary:
                    path.write_text(letter)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcdefgh"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    first, second = (path.read_text() for path in pair)
    assert first == second


def test_a_file_system_that_syncs_no_folders_works_and_says_so_once(tmp_path, monkeypatch):
    def refusing(handle, sync=os.fsync):
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(22, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    monkeypatch.setattr(files, "_warned", set())
    with (
        pytest.warns(DurabilityWarning, match="does not sync folders"),
        replacing(tmp_path / "a") as (temporary,),
    ):
        temporary.write_text("a")
    with warnings.catch_warnings(), replacing(tmp_path / "b") as (temporary,):
        warnings.simplefilter("error")
        temporary.write_text("b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


@FORKS
@pytest.mark.parametrize("limit", [0, 300, 8_000, 20_000, 50_000, 66_000])
@pytest.mark.parametrize("kind", ["results", "diagnosis"])
def test_a_disk_that_fills_while_netcdf_is_written(kind, limit, tmp_path):
    def write():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            if kind == "results":
                write_results(tmp_path / "a.nc", DATASET, {})
            else:
                with replacing(tmp_path / "a.nc") as (temporary,):
                    groups = as_inference_data({"diagnostics": DATASET}, {})
                    write_inference_data(temporary, groups)
        except InputError:
            return 2
        return 0

    assert in_a_fork(write) == 2
    assert os.listdir(tmp_path) == []
