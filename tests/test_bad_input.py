"""Whatever is wrong with the input, one line names the culprit and the remedy, and nothing changes."""

import hashlib
import re
import shutil
import sys

import numpy as np
import pytest

from ppl_vae import cli

from .bad_inputs import data_files, words

LINES = [*data_files.LINES, *words.LINES]
PREPARATION = [
    "train --data t.npy --likelihood gaussian --hidden 4 --latent-dim 2 --epochs 1 "
    "--batch-size 16 --engine eager --output run",
    "diagnose run --draws 20 --simulations 20 --gap-points 2 --nuts-points 1",
    "evaluate run --draws 2",
]
# A remedy, or what would have been right.
REMEDY = re.compile(r": |; |, expected| must ")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with data and a run fitted to them, diagnosed, for each case to copy."""
    folder = tmp_path_factory.mktemp("made")
    np.save(folder / "t.npy", data_files.TABLE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in PREPARATION:
            patch.setattr(sys, "argv", ["ppl-vae", *line.split()])
            with pytest.raises(SystemExit) as exit_:
                cli.main()
            assert not exit_.value.code
    config = folder / "run" / "config.json"
    text = config.read_text().replace(str(folder), "FOLDER")
    config.write_text(text)
    return folder


def copy(made, folder):
    shutil.copytree(made, folder, dirs_exist_ok=True)
    config = folder / "run" / "config.json"
    config.write_text(config.read_text().replace("FOLDER", str(folder)))


def snapshot(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("case", LINES, ids=lambda case: f"{case.command}-{case.id}")
def test_a_bad_command_line_is_refused(case, shell, made, tmp_path):
    copy(made, tmp_path)
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
