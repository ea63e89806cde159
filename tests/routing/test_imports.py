"""What a command need not wait for, it does not import."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ["torch", "sklearn", "ray", "pandas"]


def heavy_imports(program: str) -> list[str]:
    """Return what of ``HEAVY`` a fresh interpreter has imported after ``program``."""
    probe = f"{program}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_checking_a_configuration() -> None:
    assert heavy_imports("from routing.config import RunConfig\nRunConfig.from_dict({'model.name': 'vit'})") == []


def test_reading_a_study() -> None:
    assert heavy_imports("import search_spaces\nsearch_spaces.load_study('digits')") == []


def test_describing_the_embedded_data() -> None:
    assert heavy_imports("from routing.config import RunConfig\nRunConfig().dataset.info()") == []
