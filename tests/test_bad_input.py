"""Whatever is wrong with the input, one line names the culprit and the remedy, and nothing changes."""

import hashlib
import re
import shutil

import numpy as np
import pytest

from .bad_inputs import data_files

LINES = [*data_files.LINES]
# A remedy, or what would have been right.
REMEDY = re.compile(r": |; |, expected| must ")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with data and a run fitted to them, diagnosed, for each case to copy."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "t.npy", data_files.TABLE)
    return folder


def snapshot(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", LINES, ids=lambda case: f"{case.command}-{case.id}")
def test_a_bad_command_line_is_refused(case, shell, made, tmp_path):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    case.spoil(tmp_path)
    before = snapshot(tmp_path)
    code, out, err = shell(*case.words)
    assert code == 2, out + err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert re.search(case.message, err), err
    assert REMEDY.search(err.removeprefix("error: ")), err
    assert snapshot(tmp_path) == before
