"""Modules in the working directory are not imported, unless their folder was named."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SHADOWED = ("arviz", "h5netcdf", "matplotlib", "pandas", "sklearn", "tqdm")
SCRIPT = Path(sysconfig.get_path("scripts")) / "ppl-vae"
QUICK = ["--data", "digits", "--epochs", "1", "--hidden", "4", "--latent-dim", "2"]
MINE = "from ppl_vae.models import VAE\nfrom beside import K\nclass Mine(VAE): pass\n"


@pytest.fixture
def beside(tmp_path):
    """A folder with modules that are named as libraries are, and with a package of the user's."""
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(f"open('ran', 'a').write({name!r})\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "mine.py").write_text(MINE)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("K = 1\n")
    return tmp_path


def say(folder, command, *words):
    hidden = ("PYTHONPATH", "PYTHONSAFEPATH")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        [*command, *words], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", [[str(SCRIPT)], [sys.executable, "-m", "ppl_vae"]], ids=len)
def test_no_module_of_the_working_directory_runs(command, beside):
    if "PYTHONPATH" in os.environ:
        pytest.skip("what is not installed is found by PYTHONPATH")
    for words in (
        ["train", *QUICK, "--model", "mine.py:Mine", "--output", "run"],
        ["evaluate", "run", "--draws", "2", "--model", "mine.py:Mine"],
    ):
        done = say(beside, command, *words)
        assert done.returncode == 0, done.stderr
    assert not (beside / "ran").exists()


def test_a_package_is_found_in_the_folder_that_is_named(beside, shell, monkeypatch):
    monkeypatch.chdir(beside)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = ["train", *QUICK, "--model", "package.mine:Mine", "--output", "run"]
    code, _, error = shell(*words)
    assert code == 2
    assert "--path ." in error
    assert shell("--path", ".", *words)[0] == 0
    code, _, error = shell("--path", "nowhere", *words)
    assert code == 2
    assert "nowhere" in error
