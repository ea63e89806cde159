"""What a user installs: the wheel's content, its names, its extras, and what the pages say of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"routing", "search_spaces", "analysis"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("build", reason="build is not installed")
    source = tmp_path_factory.mktemp("source")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (source / "dist").glob("*.whl")
    return zipfile.ZipFile(found)


def test_the_wheel_holds_the_packages_whole_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    """Three names at the top, each file of each package, no test."""
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    ours = {str(path.relative_to(ROOT)) for path in files if path.is_file() and "__pycache__" not in path.parts}
    assert names == ours


def test_the_wheel_says_what_it_needs_and_brings_the_command(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: MIT" in metadata or "License: MIT" in metadata
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    assert "Requires-Dist: torch>=2.6" in metadata
    assert "routing = routing.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()


def declared() -> ConfigParser:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup


def test_every_extra_is_said_by_what_it_enables() -> None:
    extras = set(declared()["options.extras_require"])
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text()
        missing = [extra for extra in extras if f"| `{extra}` |" not in text]
        assert not missing, f"{name}: {missing}"


def test_lower_bounds_on_the_page_are_those_declared() -> None:
    """The page says what pip changes in an environment of the user's."""
    text = (ROOT / "README.md").read_text()
    for requirement in declared()["options"]["install_requires"].split():
        name = requirement.partition(">")[0].partition("[")[0]
        if name in ("torch", "torchvision", "numpy", "pandas", "ray", "optuna", "pydantic", "scipy"):
            assert f"{name} {requirement.partition('>=')[2]}" in text, requirement


def test_a_sweep_needs_no_developers_tool() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target, needs in (("install", "STAMP"), ("sweep", "STAMP"), ("test", "DEV"), ("check", "DEV"), ("docs", "DEV")):
        assert f"\n{target}: $({needs})" in makefile
