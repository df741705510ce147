"""What is installed: no version with a known advisory, wheels of small publishers by hash, lower bounds to be run."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
ADVISORIES = tomllib.loads((Path(__file__).parent / "advisories.toml").read_text())["advisory"]
WHEELS = sorted((ROOT / "scripts/wheels").glob("*.txt"))


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"scripts/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lower_bounds = load_script("lower_bounds")
REQUIREMENTS = {item.name: item for item in lower_bounds.requirements()}


def allowed(requirement: Requirement, advisory: dict) -> list[str]:
    """Versions with the advisory that the requirement lets in."""
    if "versions" in advisory:
        return [version for version in advisory["versions"] if requirement.specifier.contains(version)]
    lowest = lower_bounds.lower_bound(requirement)
    return [lowest] if Version(lowest) < Version(advisory["fixed"]) else []


@pytest.mark.parametrize("advisory", ADVISORIES, ids=lambda advisory: advisory["id"])
def test_no_version_with_a_known_advisory_is_allowed(advisory):
    assert not allowed(REQUIREMENTS[advisory["package"]], advisory), advisory["what"]


@pytest.mark.parametrize(
    ("line", "advisory", "found"),
    [
        ("a>=1.9", {"fixed": "1.10"}, ["1.9"]),
        ("a>=1.10", {"fixed": "1.10"}, []),
        ("a>=1,!=1.2", {"versions": ["1.2", "1.3"]}, ["1.3"]),
    ],
)
def test_an_allowed_one_would_be_found(line, advisory, found):
    assert allowed(Requirement(line), advisory) == found


def test_every_requirement_has_one_lower_bound_that_it_allows():
    assert len(REQUIREMENTS) > 20
    for name, requirement in REQUIREMENTS.items():
        if name not in lower_bounds.UNBOUND:
            assert requirement.specifier.contains(lower_bounds.lower_bound(requirement)), name


def test_constraints_name_exactly_one_version():
    assert lower_bounds.constraint(Requirement("peft>=0.20,<0.22")) == "peft==0.20"
    # A CPU build of the same number ("2.13.0+cpu") is not that version.
    assert not Requirement(lower_bounds.constraint(Requirement("torch>=2.13.0"))).specifier.contains("2.13.0+cpu")
    with pytest.raises(ValueError, match="expected one lower bound"):
        lower_bounds.constraint(Requirement("peft<1"))


@pytest.mark.parametrize("path", WHEELS, ids=lambda path: path.name)
def test_third_party_wheels_are_named_by_version_and_hash(path):
    text = re.sub(r"#.*", "", path.read_text()).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[\w-]+==[\w.]+(\s+--hash=sha256:[0-9a-f]{64})+", line.strip()), line


@pytest.mark.parametrize("script", ["setup_cpu_vllm.sh", "fetch_reasoner.py"])
def test_set_up_scripts_take_those_wheels_by_hash_alone(script):
    text = (ROOT / "scripts" / script).read_text()
    assert "--require-hashes" in text
    assert "--no-deps" in text
    (name,) = [path.name for path in WHEELS if path.name in text]
    packages = re.findall(r"^([\w-]+)==", (ROOT / "scripts/wheels" / name).read_text(), re.MULTILINE)
    # Any other line that names one of them finds it installed, at the version that the hash was taken of.
    for package in packages:
        for pinned in re.findall(rf"\b{package}==([\w.$]+)", text):
            assert pinned == "$vllm_version"
