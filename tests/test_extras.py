"""The core does without the extras, and an installation has all that it needs and no more."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = [
    "compiled",
    "data",
    "evidence",
    "inference",
    "objectives",
    "programs",
    "runs",
    "storage",
    "training",
]
# It reads HDF5, for diagnostics alone; the code below would fail if the core imported it.
NEEDS_AN_EXTRA = {"ppl_vae.storage.hdf5"}
MODULES = {"pillow": "PIL", "pyro-ppl": "pyro", "scikit-learn": "sklearn"}  # of distributions

HIDE = """
import importlib, pkgutil, sys

HIDDEN = {hidden!r}


class Hide:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in HIDDEN:
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):  # find_distributions, which tells versions
        return getattr(self.finder, name)


sys.meta_path[:] = map(Hide, sys.meta_path)
"""

USE_THE_CORE = """
import pyro, torch
import ppl_vae
from ppl_vae.models import VAE

for package in {core!r}:
    package = importlib.import_module(f"ppl_vae.{{package}}")
    for module in pkgutil.walk_packages(package.__path__, f"{{package.__name__}}."):
        if module.name not in {needs_an_extra!r}:
            importlib.import_module(module.name)

pyro.set_rng_seed(0)
data = ppl_vae.make_data(torch.rand(50, 5).round())
vae = VAE(data.shape, latent_dim=2, hidden=(8,))
optim, loss = pyro.optim.Adam({{"lr": 1e-3}}), pyro.infer.Trace_ELBO()
svi = ppl_vae.CompiledSVI(vae.model, vae.guide, optim, loss)
for _ in range(3):
    assert svi.step(**data.batch("train")) > 0

config = ppl_vae.Config.of("ppl_vae.models:VAE", {{"latent_dim": 2, "hidden": [8]}}, data)
run = ppl_vae.Run.create("run", config)
ppl_vae.fit(vae, data, ppl_vae.Settings(epochs=2, batch_size=20), run=run)
vae, x = ppl_vae.load("run"), data.fixed("test")
assert ppl_vae.evaluate(vae, x)["elbo"].mean < 0
ppl_vae.anneal(vae, x, ppl_vae.Annealing(chains=2, temperatures=10))
ppl_vae.compare_gradients(vae, x, repeats=10)
assert HIDDEN.isdisjoint(sys.modules)
"""


def names(requirements):
    """Distributions named by requirements such as ``"pandas>=2.1"``, but for this one."""
    return {re.match(r"[\w-]+", requirement)[0] for requirement in requirements} - {"ppl-vae"}


def modules(requirements):
    return {MODULES.get(name, name) for name in names(requirements)}


USED = ("data", "diagnose", "flows", "tensorboard", "anndata")
OPTIONAL = modules([requirement for extra in USED for requirement in EXTRAS[extra]])


def python_without_extras(code, folder):
    code = HIDE.format(hidden=OPTIONAL) + code
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_core_does_without_the_extras(tmp_path):
    code = USE_THE_CORE.format(core=CORE, needs_an_extra=NEEDS_AN_EXTRA)
    done = python_without_extras(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_command_line_says_what_to_install(tmp_path):
    code = """
from ppl_vae import cli
sys.argv = ["ppl-vae", "train", "--data", "digits", "--output", "run"]
cli.main()
"""
    done = python_without_extras(code, tmp_path)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        r"error: \w+ is not installed: pip install 'ppl-vae\[(data|diagnose)\]'\n", done.stderr
    )
    assert not list(tmp_path.iterdir())


def test_every_import_is_declared():
    imported = set()
    for folder in ("ppl_vae", "models"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(node.module.partition(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"ppl_vae"}
    assert outside <= modules(PROJECT["dependencies"]) | OPTIONAL


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The contents of a wheel, unpacked as pip would."""
    source, folder = (tmp_path_factory.mktemp(name) for name in ("source", "installed"))
    for name in ("ppl_vae", "models"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = "-m pip wheel --quiet --no-deps --no-build-isolation --disable-pip-version-check -w"
    subprocess.run([sys.executable, *words.split(), source, source], check=True)
    (wheel,) = source.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder)
    return folder


def test_a_wheel_has_every_file(installed):
    def files(folder):
        return {
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*")
            if file.suffix in (".py", ".pyi", ".typed", ".html", ".css")
        }

    ours = {name for name in files(ROOT / "ppl_vae") if not name.startswith("models/")}
    models = {f"models/{name}" for name in files(ROOT / "models")}
    assert files(installed / "ppl_vae") == ours | models


@pytest.mark.parametrize("start", ["elsewhere", "the repository's root"])
def test_an_installation_works_from_any_folder(installed, tmp_path, start):
    # In the root Python finds the checkout's ppl_vae/ first, in which models is a link.
    done = subprocess.run(
        [sys.executable, "-c", "import ppl_vae.models; print(ppl_vae.models.__file__)"],
        cwd=ROOT if start == "the repository's root" else tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ROOT if start == "the repository's root" else installed
    assert Path(done.stdout.strip()) == expected / "ppl_vae" / "models" / "__init__.py"
