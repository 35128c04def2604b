"""The lower bounds of dependencies: tested as they stand, and without known holes."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent


def lower_bounds() -> dict[str, Version]:
    """The lower bound of each dependency and of each optional one that users install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["data"], *extras["diagnose"]]
    wanted += extras["tensorboard"]
    bounds: dict[str, Version] = {}
    for requirement in map(Requirement, wanted):
        least = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
        assert len(least) == 1, f"{requirement} has no lower bound"
        name = requirement.name.replace("_", "-")
        assert bounds.setdefault(name, least[0]) == least[0], f"two lower bounds of {name}"
    return bounds


def test_the_lowest_versions_that_are_tested_are_the_lower_bounds() -> None:
    lines = (ROOT / "constraints" / "lowest.txt").read_text().splitlines()
    pins = {name: Version(pin) for name, pin in (line.split("==") for line in lines)}
    assert {name: pins[name] for name in lower_bounds()} == lower_bounds()


def advisories() -> list[dict[str, str]]:
    return tomllib.loads((ROOT / "constraints" / "advisories.toml").read_text())["advisory"]


@pytest.mark.parametrize("advisory", advisories(), ids=lambda a: a["package"])
def test_no_version_with_a_known_hole_is_allowed(advisory: dict[str, str]) -> None:
    package, fixed = advisory["package"], Version(advisory["fixed"])
    assert lower_bounds()[package] >= fixed
    assert Version(version(package)) >= fixed
