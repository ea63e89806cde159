"""Nodes of a cluster that are not fit for trials of a study: they are left out, and what they had runs elsewhere."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import ray
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial

from routing.config.run import RunConfig
from routing.config.script import AnyRun
from search_spaces.on_ray.private import STATE
from search_spaces.on_ray.session import has_room
from search_spaces.study.schema import ResourcesSection

NODE = "node"
"""What every trial asks for: the results folder, this package in one version, the function that trains."""
_ID_LABEL = "ray.io/node-id"
_WORKER_LACKS = re.compile(r"\b(?:ModuleNotFound|Import)Error: (.+)")


class Nodes:
    """Remembers what each node lacks; ``resources`` are those of a trial."""

    def __init__(self, resources: ResourcesSection) -> None:
        self._resources = resources
        self._lacking: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)

    def leave_out(self, node_id: str, lacks: str, config: AnyRun, reason: str) -> str | None:
        """Keep trials with this need off a node; return a line where that is news.

        Args:
            lacks: of the run, as ``routing.errors.NodeFault.of``.
        """
        nodes = self._lacking[lacks, _needs(config)[lacks]]
        if node_id in nodes:
            return None
        nodes[node_id] = reason
        return f"node {_name(node_id)} is left out{'' if lacks == NODE else f' for trials with this {lacks}'}: {reason}"

    def left_out(self, config: AnyRun) -> dict[str, str]:
        """Return the nodes on which a run cannot be trained, with the reason."""
        return {
            node_id: reason
            for need in _needs(config).items()
            for node_id, reason in self._lacking.get(need, {}).items()
        }

    def why_nowhere(self, config: AnyRun) -> str | None:
        """Return the reason where no node is left that a run could be trained on."""
        left_out = self.left_out(config)
        return next(iter(left_out.values())) if left_out and not has_room(self._resources, left_out) else None

    def is_closed(self) -> str | None:
        """Return the reason where no node is left that any run could be trained on."""
        left_out = self._lacking.get((NODE, ""), {})
        return next(iter(left_out.values())) if left_out and not has_room(self._resources, left_out) else None

    def place(self, trial: Trial, config: AnyRun) -> None:
        """Have Ray Tune place a trial that does not run yet on none of the nodes that are left out for it."""
        left_out = self.left_out(config)
        if not left_out:
            return
        request = trial.placement_group_factory
        label = {_ID_LABEL: f"!in({','.join(sorted(left_out))})"}
        placed = PlacementGroupFactory(request.bundles, strategy=request.strategy, bundle_label_selector=[label])
        if placed != request:
            trial.update_resources(placed)


def _needs(config: AnyRun) -> dict[str, str]:
    if not isinstance(config, RunConfig):
        return {NODE: "", "dataset": "", "device": "", "model": ""}
    dataset = config.dataset.model_dump_json()
    return {NODE: "", "dataset": dataset, "device": config.device, "model": config.model.name}


def lost_at_start(error: Any) -> tuple[str, str] | None:
    """Return node and reason where a worker could not even be created because an import fails there.

    A node without this package fails so: its workers do not know the class that trains.
    """
    if not getattr(error, "actor_init_failed", False):
        return None
    found = _WORKER_LACKS.findall(str(error))
    state = STATE.get()
    address = state.actors(error.actor_id).get("Address", {}) if found and error.actor_id and state else {}
    return (address["NodeID"], found[-1]) if address.get("NodeID") else None


def _name(node_id: str) -> str:
    """Return the address of a node by which a person knows it."""
    known = (node["NodeManagerAddress"] for node in ray.nodes() if node["NodeID"] == node_id)
    return next(known, node_id[:8])
