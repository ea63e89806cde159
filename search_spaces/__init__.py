"""Many runs: a study file, its trials on Ray Tune, the ledger of what ran, the results folder.

    study = search_spaces.load_study("digits")
    results = search_spaces.sweep(study, "results/digits")

Imports are lazy: listing or checking a study needs neither Ray nor Optuna nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.confirmation import confirm
    from search_spaces.load import load_study, studies, study_text
    from search_spaces.plan import dry_run
    from search_spaces.schema import Study
    from search_spaces.tune import sweep

_HOMES = {
    "Study": "search_spaces.schema",
    "load_study": "search_spaces.load",
    "studies": "search_spaces.load",
    "study_text": "search_spaces.load",
    "dry_run": "search_spaces.plan",
    "sweep": "search_spaces.tune",
    "confirm": "search_spaces.confirmation",
}
__all__ = ["Study", "confirm", "dry_run", "load_study", "studies", "study_text", "sweep"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'search_spaces' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)
