"""One run: configuration to data, model, training, evaluation, trial record.

config = routing.RunConfig.from_yaml("run.yaml", ["--seed", "1"])
record = routing.run(config, out=Path("runs/first"))
saved = routing.load("runs/first")
labels = saved.predict(["a.png", "b.png"]).labels
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from routing.face import public_face

if TYPE_CHECKING:
    from routing.config.run import RunConfig
    from routing.evaluation.compute import count_module, measure
    from routing.models import build_model
    from routing.models.own.register import register_module
    from routing.models.vit.token_pruning import pruned
    from routing.models.vit.token_selection import select_tokens
    from routing.runner import run
    from routing.saved import load

__version__ = "0.1.0"
__all__ = [
    "RunConfig",
    "build_model",
    "count_module",
    "load",
    "measure",
    "pruned",
    "register_module",
    "run",
    "select_tokens",
]

_HOMES = {
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
