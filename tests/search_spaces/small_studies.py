"""Small studies as a study file would say them."""

from __future__ import annotations

from typing import Any


def sweep_values(**changes: Any) -> dict[str, Any]:
    """A small sweep over two numbers, as a study file would say it."""
    values = {
        "kind": "sweep",
        "name": "small",
        "base": {"training.num_epochs": 2, "dataset": {"num_train": 100}},
        "space": {
            "model.router.threshold_init": {"float": [-2.0, 2.0]},
            "model.router.temperature": {"float": [0.1, 3.0], "log": True},
        },
        "objectives": [
            {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
            {"metric": "flops", "goal": "minimize", "reference": 2.0e6},
        ],
        "sampler": {"name": "random", "seed": 3},
        "scheduler": {"name": "none"},
        "trials": 4,
        "resources": {"cpu": 1},
    }
    return {**values, **changes}


def ablation_values(**changes: Any) -> dict[str, Any]:
    """A small ablation of two factors."""
    values = {
        "kind": "ablation",
        "name": "parts",
        "design": "one_at_a_time",
        "base": {"training.num_epochs": 1},
        "factors": {
            "mode": {"random": {"model.router.mode": "random"}, "top_k": {"model.router.mode": "top_k"}},
            "dataset.patch_grid_size": [4, 8],
        },
        "seeds": [0, 1],
        "objectives": sweep_values()["objectives"],
    }
    return {**values, **changes}
