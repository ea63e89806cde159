"""``make versions``: the fast tests on every Python, with the lowest and the newest versions of what is installed.

    python tests/versions/matrix.py [CELL ...] [FOLDER ...]

A cell is 3.10-lowest, 3.13-newest, ...; without any, all of them. A folder is one of tests; without any, all of it.

Pythons are found as ``python3.12`` on the path or below ~/.pyenv/versions. Each cell is an environment of its own in
build/versions, 7 GB, which is deleted afterwards; the result is added to build/versions.csv.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "versions"
TABLE = ROOT / "build" / "versions.csv"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
WHICH = ("lowest", "newest")
VARIED = ("ray", "optuna", "torch", "torchvision", "pandas", "numpy")
"""Packages that a cell has in their lowest versions; the others are as new as these allow."""
SECONDS = 3600


def python_of(version: str) -> str:
    """Return the interpreter of a version."""
    found = shutil.which(f"python{version}")
    known = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    if not known and found is None:
        raise SystemExit(f"no Python {version}: neither python{version} on the path nor below ~/.pyenv/versions")
    return str(known[-1]) if known else str(found)


def lowest() -> list[str]:
    """Return ``torch==2.6`` and so on, the lower bounds of setup.cfg."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found = []
    for requirement in setup["options"]["install_requires"].split():
        name, version = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement).groups()  # type: ignore[union-attr]
        if name in VARIED:
            found.append(f"{name}=={version}.*" if version.count(".") < 2 else f"{name}=={version}")
    return found


def run(cell: str, tests: list[str]) -> dict[str, str]:
    """Install and test one cell; return its row."""
    folder, started = FOLDER / cell, time.monotonic()
    try:
        why_not = install(folder, *cell.split("-"))
        found = {"result": why_not} if why_not else {**test(folder, tests), "tests": " ".join(tests)}
        return {"cell": cell, **found, "seconds": f"{time.monotonic() - started:.0f}"}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def install(folder: Path, version: str, which: str) -> str:
    """Make the environment of a cell; return why that cannot be, or nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([python_of(version), "-m", "venv", folder], check=True)
    constraints = folder / "lowest.txt"
    constraints.write_text("\n".join(lowest() if which == "lowest" else []) + "\n")
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["--constraint", constraints, "--only-binary", ",".join(VARIED), "--editable", f"{ROOT}[dev]"]
    for words in (["--upgrade", "pip"], wanted):
        done = subprocess.run([*pip, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            why = [line for line in done.stderr.splitlines() if re.match("ERROR: (?!Ignored)", line)]
            return f"cannot be installed: {why[0] if why else done.stderr.strip()[-200:]}"
    return ""


def test(folder: Path, tests: list[str]) -> dict[str, str]:
    """Run the fast tests in an environment; return the last line and the versions that it has."""
    command = [folder / "bin" / "python", "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    (FOLDER / f"{folder.name}.log").write_text(done.stdout + done.stderr)
    command = [folder / "bin" / "python", "-m", "pip", "list", "--format=freeze"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    versions = dict(line.split("==") for line in listed.split() if "==" in line)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-200:]
    return {"result": last, **{name: versions.get(name, "") for name in VARIED}}


def main() -> None:
    """Run the cells that are asked for."""
    known = [f"{version}-{which}" for version in PYTHONS for which in WHICH]
    tests = [word for word in sys.argv[1:] if (ROOT / word).exists()]
    cells = [word for word in sys.argv[1:] if word not in tests] or known
    for cell in cells:
        if cell not in known:
            raise SystemExit(f"no cell '{cell}' (valid: {', '.join(known)})")
    failed = False
    for cell in cells:
        row = run(cell, tests)
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        failed |= " passed" not in row["result"] or " failed" in row["result"]
        is_new = not TABLE.exists()
        with TABLE.open("a", newline="") as file:
            writer = csv.DictWriter(file, ["cell", "result", "tests", "seconds", *VARIED])
            if is_new:
                writer.writeheader()
            writer.writerow(row)
    sys.exit(failed)


if __name__ == "__main__":
    main()
