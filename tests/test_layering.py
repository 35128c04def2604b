"""Imports run one way, files and functions stay small, and importing changes nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = [f for f in ROOT.glob("ppl_vae/**/*.py") if "models" not in f.parts]  # a link in a checkout
MODELS = sorted(ROOT.glob("models/**/*.py"))
FILES = sorted([*OURS, *MODELS])
# What each package, or file at the top, may import: all that stands in lines above its own.
LAYERS = [
    {"errors"},
    {"choices", "labels", "progress", "runtime", "signals"},
    {"storage"},
    {"compiled", "data"},
    {"programs"},
    {"objectives", "evidence"},
    {"inference", "runs"},
    {"training"},
    {"plots"},
    {"diagnostics"},
    {"experiments", "sklearn"},
    {"cli"},
    {"__main__"},
]

COMPOSE = {"experiments", "sklearn", "cli"}  # models with the rest

# A method that is built on what it is a method of: imported when it is called.
DOORS = {"programs.posterior": {"inference"}}


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "ppl_vae").with_suffix("").parts)


def imports(file: Path) -> set[str]:
    """What a file imports; of this package, the names of files with a dot in front."""
    found = set()
    above = name_of(file).split(".")[:-1] if file.is_relative_to(ROOT / "ppl_vae") else []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = above[: len(above) + 1 - node.level] if node.level else []
            if node.level and not node.module:
                found |= {"." + ".".join([*package, alias.name]) for alias in node.names}
            else:
                found.add("." * bool(node.level) + ".".join([*package, node.module]))
    return found


def package_of(name: str) -> str:
    return name.partition(".")[0]


def test_every_package_has_a_layer():
    packages = {package_of(name_of(file)) for file in OURS} - {"__init__"}
    assert packages == set().union(*LAYERS)


@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_imports_run_one_way_between_packages(layer):
    below = set().union(*LAYERS[:layer])
    for package in LAYERS[layer]:
        files = [file for file in OURS if package_of(name_of(file)) == package]
        allowed = below | {package} | ({"models"} if package in COMPOSE else set())
        for file in files:
            found = {package_of(i[1:]) for i in imports(file) if i.startswith(".")} - {
                "__version__"
            }
            found -= DOORS.get(name_of(file), set())
            assert found <= allowed, f"{name_of(file)} imports {found - allowed}"


def test_one_file_faces_arviz():
    assert [name_of(file) for file in FILES if "arviz" in imports(file)] == ["storage.arviz_io"]


EXTRA = {"spline": {"zuko"}}  # an extra, asked for when such a guide is made


@pytest.mark.parametrize("file", MODELS, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_models_import_torch_and_pyro_only(file):
    outside = {i.partition(".")[0] for i in imports(file) if not i.startswith(".")}
    assert outside - set(sys.stdlib_module_names) <= {"torch", "pyro", *EXTRA.get(file.stem, ())}


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_one_job_each(file):
    text = file.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 150, f"{node.name} is too long"
        if isinstance(node, ast.FunctionDef):
            # A signature of options, and a docstring, are no work.
            documented = ast.get_docstring(node) is not None
            body = node.body[documented:] or node.body
            length = body[-1].end_lineno - body[0].lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"


def test_importing_changes_nothing(tmp_path):
    script = """
import os, torch, pyro

def state():
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state().tolist(),
            torch.get_num_threads(), pyro.settings.get(), len(pyro.get_param_store()))

before = state()
import ppl_vae, ppl_vae.models
for name in ppl_vae.__all__:
    getattr(ppl_vae, name)
import ppl_vae.cli.opening, ppl_vae.cli.tables
import ppl_vae.plots.pictures, ppl_vae.diagnostics.report
assert state() == before
assert os.listdir() == []
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("", "")
