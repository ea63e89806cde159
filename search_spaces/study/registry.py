"""Names of samplers and stopping rules that a study may use; a plugin adds its own under ``base.plugins``."""

from __future__ import annotations

from routing.config.registry import Registry

SAMPLERS = Registry(
    "sampler",
    {
        "auto": "search_spaces.search.samplers.auto:Auto",
        "gp": "search_spaces.search.samplers.gp:GaussianProcess",
        "tpe": "search_spaces.search.samplers.tpe:Tpe",
        "nsga2": "search_spaces.search.samplers.nsga2:Nsga2",
        "random": "search_spaces.search.samplers.random:Random",
        "qmc": "search_spaces.search.samplers.qmc:QuasiMonteCarlo",
        "grid": "search_spaces.search.samplers.grid:Grid",
    },
)

RULES = Registry(
    "stopping rule",
    {
        "moasha": "search_spaces.search.rules:Moasha",
        "dominance": "search_spaces.search.rules:Dominance",
        "similar_cost": "search_spaces.search.rules:SimilarCost",
        "asha": "search_spaces.search.rules:Asha",
        "none": "search_spaces.search.rules:NoStopping",
    },
)
