"""After the runs: tables, fronts, figures, report, export.

found = analysis.analyze(["results/digits"])
analysis.is_on_front(losses)                      # losses (N, M): lower is better
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from routing.face import public_face

if TYPE_CHECKING:
    from analysis.exports.export import export
    from analysis.report import analyze
    from routing.pareto import hypervolume, is_on_front, non_domination_rank

__all__ = ["analyze", "export", "hypervolume", "is_on_front", "non_domination_rank"]

_HOMES = {
    "analyze": "analysis.report",
    "export": "analysis.exports.export",
    "hypervolume": "routing.pareto",
    "is_on_front": "routing.pareto",
    "non_domination_rank": "routing.pareto",
}
__getattr__, __dir__ = public_face(__name__, _HOMES)
