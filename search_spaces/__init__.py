"""Many runs: a study file, its trials on Ray Tune, the ledger of what ran, the results folder.

    study = search_spaces.load_study("digits")
    results = search_spaces.sweep(study, "results/digits")

Imports are lazy: listing or checking a study needs neither Ray nor Optuna nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from routing.face import public_face

if TYPE_CHECKING:
    from search_spaces.confirmation import confirm
    from search_spaces.on_ray.session import check_machine
    from search_spaces.plan import dry_run
    from search_spaces.study.load import load_study, studies
    from search_spaces.study.schema import Study
    from search_spaces.study.shipped import study_text
    from search_spaces.timing import how_long
    from search_spaces.tune import sweep
    from search_spaces.wishes import enqueue, finish, stop

__all__ = [
    "Study",
    "check_machine",
    "confirm",
    "dry_run",
    "enqueue",
    "finish",
    "how_long",
    "load_study",
    "stop",
    "studies",
    "study_text",
    "sweep",
]

_HOMES = {
    "Study": "search_spaces.study.schema",
    "check_machine": "search_spaces.on_ray.session",
    "confirm": "search_spaces.confirmation",
    "dry_run": "search_spaces.plan",
    "how_long": "search_spaces.timing",
    "load_study": "search_spaces.study.load",
    "studies": "search_spaces.study.load",
    "study_text": "search_spaces.study.shipped",
    "sweep": "search_spaces.tune",
    "enqueue": "search_spaces.wishes",
    "finish": "search_spaces.wishes",
    "stop": "search_spaces.wishes",
}
__getattr__, __dir__ = public_face(__name__, _HOMES)
