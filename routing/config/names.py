"""Names that several packages use: of models and router modes, and of the keys that a training script is named by.

Here, because tables and figures read them as well, which import no model.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from routing.config.registry import MODELS

FULL_COMPUTE = "full_compute"
DENSE_MATCHED = "dense_matched"
NO_ROUTING = "no_routing"
CHEAP_COMPUTE = "cheap_compute"
PATCH_BASELINES = (FULL_COMPUTE, DENSE_MATCHED, NO_ROUTING, CHEAP_COMPUTE)
"""Dense models of patch routing, in the order of tables."""

ROUTED_MODEL = "attention_routing"
"""The model that a router mode given without a model stands for."""

RANDOM = "random"
POST_HOC = "post_hoc"
ORACLE = "oracle"
"""The router mode that is told the answer's place: a bound on what a router can reach, no model to choose."""
ROUTER_MODE = "model.router.mode"


def is_told(keys: Mapping[str, object]) -> bool:
    """Return whether a run or a row of a table, by dotted key, is an oracle's: on no front, whatever it reaches."""
    return keys.get(ROUTER_MODE) == ORACLE


def is_baseline(model_name: object) -> bool:
    """Return whether a model of this name is a dense baseline; one of a plugin that is not imported is unknown."""
    return model_name in MODELS and MODELS.get(str(model_name)).is_baseline


SCRIPT_HEADS = ("run", "command")
"""Keys of which a run or a study of a training script has exactly one; other runs and studies have neither."""


def is_of_script(values: Container[str]) -> bool:
    """Return whether the content of a file is a run or a study of a training script, whose own keys are free."""
    return any(head in values for head in SCRIPT_HEADS)
