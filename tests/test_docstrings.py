"""Examples in docstrings and in the README run, and public names are documented."""

import doctest
import inspect
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import ppl_vae
import ppl_vae.models

ROOT = Path(__file__).parents[1]
MODULES = [
    module.name
    for package in (ppl_vae, ppl_vae.models)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith(("__main__", ".models"))
] + ["ppl_vae", "ppl_vae.models"]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_public_names_are_documented():
    for name in ppl_vae.__all__:
        thing = getattr(ppl_vae, name)
        text = inspect.getdoc(thing) or ""
        assert len(text) > 40, f"{name} has no docstring"
        if inspect.isfunction(thing):
            described = set(re.findall(r"^    (\w+): ", inspect.cleandoc(thing.__doc__), re.M))
            missing = inspect.signature(thing).parameters.keys() - described
            assert not missing or name == "load", f"{name} does not describe {missing}"


@pytest.mark.parametrize("name", ppl_vae.models.PROGRAMS)
def test_programs_describe_their_arguments(name):
    kind = ppl_vae.models.PROGRAMS[name]
    described = set(re.findall(r"^    (\w+): ", inspect.cleandoc(kind.__doc__), re.M))
    assert inspect.signature(kind).parameters.keys() <= described


PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in (ROOT / page).read_text()]
)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {})
