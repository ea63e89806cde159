"""From a configuration to a trained model, from a study to a front, and everything of it as objects.

config = routing.RunConfig.from_yaml("run.yaml", ["--seed", "1"])
record = routing.run(config, out=Path("runs/first"))
saved = routing.load("runs/first")
labels = saved.predict(["a.png", "b.png"]).labels
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from routing.face import public_face

if TYPE_CHECKING:
    from routing.api import Results, analyze, compare, confirm, count, export, sweep, train
    from routing.config.run import RunConfig
    from routing.evaluation.compute import count_module, measure
    from routing.models import build_model
    from routing.models.own.register import register_module
    from routing.models.vit.token_pruning import pruned
    from routing.models.vit.token_selection import select_tokens
    from routing.pareto import hypervolume, is_on_front, non_domination_rank
    from routing.runner import run
    from routing.saved import load
    from search_spaces import Study, dry_run, load_study, studies

__version__ = "0.2.0"
__all__ = [
    "Results",
    "RunConfig",
    "Study",
    "analyze",
    "build_model",
    "compare",
    "confirm",
    "count",
    "count_module",
    "dry_run",
    "export",
    "hypervolume",
    "is_on_front",
    "load",
    "load_study",
    "measure",
    "non_domination_rank",
    "pruned",
    "register_module",
    "run",
    "select_tokens",
    "studies",
    "sweep",
    "train",
]

_HOMES = {
    **dict.fromkeys(("Results", "analyze", "compare", "confirm", "count", "export", "sweep", "train"), "routing.api"),
    **dict.fromkeys(("Study", "dry_run", "load_study", "studies"), "search_spaces"),
    **dict.fromkeys(("hypervolume", "is_on_front", "non_domination_rank"), "routing.pareto"),
    "RunConfig": "routing.config.run",
    "build_model": "routing.models",
    "count_module": "routing.evaluation.compute",
    "load": "routing.saved",
    "measure": "routing.evaluation.compute",
    "pruned": "routing.models.vit.token_pruning",
    "register_module": "routing.models.own.register",
    "run": "routing.runner",
    "select_tokens": "routing.models.vit.token_selection",
}
__getattr__, __dir__ = public_face(__name__, _HOMES)
