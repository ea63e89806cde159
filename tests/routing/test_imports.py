"""What a command need not wait for, it does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = ["torch", "sklearn", "ray", "pandas"]


def heavy_imports(program: str) -> list[str]:
    """Return what of ``HEAVY`` a fresh interpreter has imported after ``program``."""
    probe = f"{program}\nimport json, sys\nprint(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def test_checking_a_configuration() -> None:
    assert heavy_imports("from routing.config.run import RunConfig\nRunConfig.from_dict({'model.name': 'vit'})") == []


def test_reading_a_study() -> None:
    assert heavy_imports("import search_spaces\nsearch_spaces.load_study('digits')") == []


def test_any_module_of_a_study_can_be_imported_first() -> None:
    """Samplers and rules read the schema: it must not look them up while it is being imported."""
    program = """
import importlib, pkgutil, sys
import search_spaces.study, search_spaces.search, search_spaces.search.samplers

def modules(package):
    return [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]

for first in map(modules, (search_spaces.study, search_spaces.search, search_spaces.search.samplers)):
    for name in first:
        for known in [module for module in sys.modules if module.startswith("search_spaces.")]:
            del sys.modules[known]
        importlib.import_module(name)
"""
    heavy_imports(program)


def test_the_package_itself() -> None:
    """Every public name is there, and none is imported before it is asked for."""
    assert heavy_imports("import routing\nassert set(routing.__all__) <= set(dir(routing))") == []
    light = "import routing, sys\nassert not {'pydantic', 'numpy', 'search_spaces', 'analysis'} & set(sys.modules)"
    heavy_imports(light)
    import routing

    assert all(getattr(routing, name) is not None for name in routing.__all__)


def test_describing_the_embedded_data() -> None:
    assert heavy_imports("from routing.config.run import RunConfig\nRunConfig().dataset.info()") == []


def test_a_machine_that_only_trains_needs_torch_only(tmp_path: Path) -> None:
    """Without Ray, Optuna, pandas and matplotlib: train, compare and evaluate, and one line about the figures."""
    program = """
import sys

sys.modules |= dict.fromkeys(("ray", "optuna", "pandas", "matplotlib"))  # None: cannot be imported
from routing.cli import main

tiny = "dataset.num_train=64 dataset.num_val=32 dataset.num_test=32 training.num_epochs=1".split()
for words in (
    ["train", "--out", "run", *tiny],
    ["evaluate", "run", "--figures"],
    ["compare", "--models", "attention_routing,cheap_compute", "--out", "compared", *tiny],
):
    assert main(words) == 0, words
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no figures: ") == 3
    assert (tmp_path / "compared" / "compare.csv").is_file()
