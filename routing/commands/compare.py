"""A routed model beside its baselines and controls: same data, same seeds, one table.

Every number is of the validation split; the test split is left to ``routing evaluate --split test``.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from routing.config.registry import MODELS, ROUTERS
from routing.config.run import RunConfig
from routing.config.section import ModelSection
from routing.errors import InputError, choices, nearest
from routing.evaluation.compute import expected_flops
from routing.evaluation.latency import measure_latency
from routing.evaluation.tasks import task_of
from routing.files.atomic import write_text
from routing.files.names import safe_cell
from routing.files.record import read_metrics
from routing.files.results_folder import COMPUTE_CHECK, CONFIG_FILE, METRICS_FILE
from routing.quantities import count, find, heading, ordered, split_of
from routing.runner import make_evaluator, run
from routing.saved import load
from routing.training.seeding import pick_device, prepare_process

TABLE_FILE, RUNS_FILE = "compare.csv", "compare_runs.csv"
SD = "_sd"
"""Ending of a column with the standard deviation over seeds."""
LATENCY_ROUNDS = 3


@dataclass(frozen=True)
class ModelComparison:
    """One row per model in ``rows`` (mean over seeds), one per run in ``runs``; ``metric`` is the task's column."""

    title: str
    metric: str
    rows: list[dict[str, Any]]
    runs: list[dict[str, Any]]


def columns(compared: ModelComparison) -> dict[str, str]:
    """Return the columns of the table to print, each with its heading: every metric, of the task with its sd."""
    measured = ordered(name for row in compared.rows for name in row if not name.endswith(SD))
    headings = {"name": "model"}
    for name in measured:
        headings[name] = heading(name)
        if split_of(name) is not None:
            headings[name + SD] = "sd"
    counted = {COMPUTE_CHECK: "multiply-adds are"} if any(COMPUTE_CHECK in row for row in compared.rows) else {}
    return {**headings, "router_state": "router", **counted, "seeds": "seeds"}


def compared_runs(config: RunConfig, names: Sequence[str] = ()) -> dict[str, RunConfig]:
    """Return what is compared, by name: the configuration itself first unless ``names`` say otherwise.

    Args:
        names: of models or router modes; by default those that the model's section says (``compared_with``).

    Raises:
        InputError: an unknown name, or one whose settings cannot be met.
    """
    first = config.model.label
    names = names or [first, *config.model.compared_with()]
    return {name: config if name == first else _arm(config, name) for name in dict.fromkeys(names)}


def _arm(config: RunConfig, name: str) -> RunConfig:
    """Return the configuration with another model or mode; what belongs to the first one's threshold stays with it."""
    config = config.replace(**{"evaluation.knob_value": None})
    if name in ROUTERS:
        changes: dict[str, Any] = {"model.name": config.model.routed_model, "model.router.mode": name}
        if ROUTERS.get(name).knob != "threshold":  # there is none to jitter
            changes["model.router.threshold_jitter"] = 0.0
        return config.replace(**changes)
    if name not in MODELS:
        known = [*MODELS, *ROUTERS]
        raise InputError(
            f"--models: unknown model or router mode '{name}'{nearest(name, known)} (models: {choices(MODELS)}; "
            f"router modes: {choices(ROUTERS)})"
        )
    changes = {"model.name": name}
    section: type[ModelSection] = MODELS.get(name)
    if section.budget_key is not None and section.full_compute is not None:  # the same compute, spent evenly
        full = expected_flops(config.replace(**{"model.name": section.full_compute}))
        changes[f"model.{section.budget_key}"] = min(1.0, expected_flops(config) / full)
    return config.replace(**changes)


def compare(
    config: RunConfig, names: Sequence[str], num_seeds: int, out: Path, say: Callable[[str], None]
) -> ModelComparison:
    """Train what is missing in ``out/<name>/seed<k>``, then put all side by side; writes compare.csv.

    Args:
        names: see ``compared_runs``.
        num_seeds: number of seeds that every model is trained with, from ``seed`` upwards.

    Raises:
        InputError: a folder in ``out`` holds another configuration.
    """
    compared = compared_runs(config, names)
    for arm in compared.values():
        expected_flops(arm)  # builds the model: what cannot be met is said before anything is trained
    seeds = range(config.seed, config.seed + num_seeds)
    planned = {
        (name, seed): (arm.replace(seed=seed), out / name / f"seed{seed}")
        for name, arm in compared.items()
        for seed in seeds
    }
    for arm, folder in planned.values():
        _check_folder(arm, folder)
    if line := config.dataset.describe():
        say(line)
    runs, metric = [], _metric(config)
    for index, ((name, seed), (arm, folder)) in enumerate(planned.items(), start=1):
        metrics = _metrics(arm, folder)
        runs.append({"name": name, "seed": seed, **arm.dotted(), **metrics})
        cost = f"{count(metrics['flops'])} multiply-adds"
        say(f"{index}/{len(planned)}  {name}, seed {seed}: {metric} {metrics[metric]:.4f}, {cost}")
    first_seed = {name: out / name / f"seed{config.seed}" for name in compared}
    rows = _rows(config, compared, runs, _latencies(config, first_seed))
    _write_csv(out / TABLE_FILE, rows)
    _write_csv(out / RUNS_FILE, runs)
    title = f"{config.dataset.name}, {num_seeds} seed{'s' if num_seeds > 1 else ''}"
    return ModelComparison(title, metric, rows, runs)


def _metric(config: RunConfig) -> str:
    return f"val_{task_of(config.dataset.task).metric}"


def _check_folder(config: RunConfig, folder: Path) -> None:
    if (folder / CONFIG_FILE).is_file() and RunConfig.from_yaml(folder / CONFIG_FILE) != config:
        raise InputError(f"{folder}: holds a run of another configuration; give another --out, or remove it")


def _metrics(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Return the metrics of a run, trained now unless it is there already."""
    if not (folder / METRICS_FILE).is_file():
        run(config, out=folder)
    metrics: dict[str, Any] = read_metrics(folder)["metrics"]
    return metrics


def _rows(
    config: RunConfig, compared: dict[str, RunConfig], runs: list[dict[str, Any]], latencies: dict[str, float]
) -> list[dict[str, Any]]:
    metric = _metric(config)
    if config.model.full_compute is not None:
        full = expected_flops(config.replace(**{"model.name": config.model.full_compute}))
    else:
        full = statistics.fmean(row["flops_dense"] for row in runs if row["name"] == runs[0]["name"])
    rows = []
    for name, arm in compared.items():
        own = [row for row in runs if row["name"] == name]
        rows.append(
            {
                "name": name,
                "model.name": arm.model.name,
                **_means(own, metric),
                "share_of_full": statistics.fmean(row["flops"] for row in own) / full,
                "params": own[0]["params"],
                "ms_per_image": latencies[name],
                "router_state": ", ".join(dict.fromkeys(row["router_state"] for row in own if "router_state" in row)),
                **({COMPUTE_CHECK: own[0][COMPUTE_CHECK]} if COMPUTE_CHECK in own[0] else {}),
                "seeds": len(own),
            }
        )
    return rows


def _means(runs: list[dict[str, Any]], metric: str) -> dict[str, Any]:
    """Return the mean over seeds of every objective-like metric, the task's one first; of the task also the sd."""
    names = [name for name in ordered(name for row in runs for name in row) if _is_compared(name)]
    row: dict[str, Any] = {}
    for name in dict.fromkeys([metric, *names, "routing_ratio"]):
        values = [run[name] for run in runs if run.get(name) is not None]
        row[name] = statistics.fmean(values) if values else None
        if split_of(name) is not None:
            row[name + SD] = statistics.stdev(values) if len(values) > 1 else None
    return row


def _is_compared(name: str) -> bool:
    known = find(name)
    return split_of(name) in ("val", "cross") if known is None or not known.is_cost else known.can_be_objective


def _latencies(config: RunConfig, folders: dict[str, Path]) -> dict[str, float]:
    """Return milliseconds per image, all models taking turns, so that a busy moment of the machine hits all alike."""
    prepare_process(config.seed, config.threads)
    data = config.dataset.load()
    evaluator = make_evaluator(config, data, "val", pick_device(config.device))
    models = {name: load(folder).model for name, folder in folders.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(LATENCY_ROUNDS):
        for name, model in models.items():
            times[name].append(measure_latency(model, evaluator).ms_per_image)
    return {name: statistics.median(values) for name, values in times.items()}


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: safe_cell(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())
