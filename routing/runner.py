"""``run``: the whole of one trial. Configuration in, trial record out; no Ray, no search."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from routing.config.preprocessing import preprocessing_line
from routing.config.registry import METRICS
from routing.config.run import RunConfig
from routing.data import ImageData
from routing.errors import InputError, NodeFault, choices
from routing.evaluation.certificate import certify
from routing.evaluation.compute import measure
from routing.evaluation.control_certificate import certify_against_controls
from routing.evaluation.costs import REFERENCE, check_costs, measured_costs
from routing.evaluation.evaluate import Evaluation, Evaluator, drawn
from routing.evaluation.exit_certificate import certify_exits
from routing.evaluation.latency import measure_latency
from routing.evaluation.metrics import Metric
from routing.evaluation.operating_points import knob_values, operating_points
from routing.evaluation.tasks import task_of
from routing.files.atomic import write_text
from routing.files.record import TrialRecord, write_history
from routing.files.results_folder import CHECKPOINT_FILE, COMPUTE_CHECK, CONFIG_FILE, EXECUTED_ALONE
from routing.files.tensors import DATA, save_models
from routing.models import build_model
from routing.models.base import VisionModel
from routing.models.kept_library import keep_library
from routing.quantities import quantity
from routing.training.averaging import WeightAverage
from routing.training.checkpoint import Progress, identity, restore_checkpoint, save_checkpoint
from routing.training.checks import check_settings, check_untrained
from routing.training.distillation import build_teacher
from routing.training.events import EventLog
from routing.training.loop import train_epoch
from routing.training.optimizer import make_optimizer
from routing.training.phases import Schedule, make_schedule
from routing.training.pictures import Pictures
from routing.training.reuse import keep_training, load_training, reusable
from routing.training.seeding import pick_device, prepare_process

Report = Callable[[dict[str, Any]], None]
CERTIFIED = ("gap_closed", "gap_closed_oracle", "recall")  # numbers of the certificate that every table shows


def run(
    config: RunConfig,
    report: Report | None = None,
    out: str | Path | None = None,
    *,
    before_record: Callable[[TrialRecord], None] | None = None,
    say: Callable[[str], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> TrialRecord:
    """Train and evaluate one configuration.

    Args:
        config: the run.
        report: called after every epoch with its history row, and with the last one once more where a run goes on after
            it; an exception it raises ends the run.
        out: folder for config.yaml, history.csv, a checkpoint per epoch, and at the end model.safetensors and
            metrics.json. A checkpoint of the same training found there is continued.
        before_record: called with the result when the trained weights are in ``out`` and metrics.json, which says that
            the run is whole, is not.
        say: called with one line on the data before training begins.
        on_step: called after every update of the weights, see ``train_epoch``.

    Raises:
        TrialFailed: the loss is not a number.
        InputError: the configuration cannot be met by this data or machine.
    """
    out = None if out is None else Path(out)
    started = time.perf_counter()
    prepare_process(config.seed, config.threads)
    device = pick_device(config.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        data = config.dataset.load()
    except InputError as error:
        raise NodeFault(str(error), "dataset") from None
    model = build_model(config.model, data.info).to(device)
    evaluator = make_evaluator(config, data, "val", device)
    schedule = make_schedule(config.training, model, evaluator.task)
    check_settings(config, model)
    check_costs(config.evaluation.costs, device)
    teacher = build_teacher(config.training.distil, config.model, data.info, device)
    model.initialise(config.model)
    check_untrained(config, model, data.info, say)
    pictures = Pictures(out, config, model, evaluator)
    if out is not None:  # only now: bad input must not leave a folder behind that blocks the corrected command
        write_text(out / CONFIG_FILE, config.to_yaml())
    if say is not None:
        for line in filter(None, (config.dataset.describe(), preprocessing_line(config.model, config.dataset))):
            say(line)
    best: dict[str, Tensor] = {}
    with reusable(config, data, model, teacher) as kept:
        history = load_training(kept, model)
        if say is not None and (line := pictures.missing(0 if history else config.training.num_epochs)):
            say(line)
        if history is None:
            trained = _train(config, model, data, evaluator, schedule, pictures, report, out, teacher, on_step)
            history, best = trained.history, trained.best
            keep_training(kept, model, history)
    if not history or "flops" not in history[-1]:
        history = _without_training(history, model, evaluator, report, out)
    if config.evaluation.knob_value is not None:
        model.set_knob(config.evaluation.knob_value)
    record = evaluate_trained(config, model, evaluator, history)
    if "cross" in data.splits:
        crossed = make_evaluator(config, data, "cross", device).run(model)
        record.metrics |= {f"cross_{name}": value for name, value in crossed.metrics.items()}
    record.metrics["seconds"] = time.perf_counter() - started
    if out is not None:
        keep_library(out, model)
        save_models(out, model, best, {DATA: data.info.to_json()})  # one key: of several the order on disk varies
        if before_record is not None:
            before_record(record)
        record.write(out)
        (out / CHECKPOINT_FILE).unlink(missing_ok=True)
    return record


def make_evaluator(config: RunConfig, data: ImageData, split: str, device: torch.device) -> Evaluator:
    """Return the evaluator of one split as the configuration asks for it."""
    found = data[split]
    if split == "val" and config.evaluation.limit is not None:
        found = drawn(found, config.evaluation.limit, config.dataset.seed)
    return Evaluator(
        split=found.to(device),
        info=data.info,
        task=task_of(data.info.task, config.training.loss),
        batch_size=config.evaluation.batch_size,
        autocast=autocast(config, device),
        metrics=_further_metrics(config),
    )


def _further_metrics(config: RunConfig) -> dict[str, Metric]:
    for name in config.evaluation.metrics:
        tasks = quantity(name).tasks
        if tasks and config.dataset.task not in tasks:
            raise InputError(
                f"evaluation.metrics: '{name}' is not defined for the task {config.dataset.task} of dataset.name "
                f"'{config.dataset.name}' (it is for: {choices(tasks)})"
            )
    return {name: METRICS.get(name)() for name in config.evaluation.metrics}


def autocast(config: RunConfig, device: torch.device) -> torch.autocast:
    """Return the context of the run's precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _train(
    config: RunConfig,
    model: VisionModel,
    data: ImageData,
    evaluator: Evaluator,
    schedule: Schedule,
    pictures: Pictures,
    report: Report | None,
    out: Path | None,
    teacher: VisionModel | None,
    on_step: Callable[[int, int, int], None] | None,
) -> Progress:
    """Train phase by phase to the end, from the checkpoint in ``out`` where there is one."""
    device, task = evaluator.split.targets.device, evaluator.task
    if config.training.channels_last:
        model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config.training)
    training = identity(config, data) if out is not None else ""
    average = WeightAverage(model, config.training.ema_decay)
    progress = restore_checkpoint(out, training, model, optimizer, average) if out is not None else None
    if progress is None:
        progress = Progress(0, [])
    elif report is not None and progress.history:  # again: a caller that was killed may not have received it
        report(progress.history[-1])
    train_split = data["train"].to(device)
    with EventLog(out, progress.epoch + 1) as events:
        while (turn := schedule.turn(progress.history)) is not None:
            losses = train_epoch(
                model,
                train_split,
                data.info,
                task,
                optimizer,
                config.training,
                turn=turn,
                seed=config.seed,
                autocast=evaluator.autocast,
                average=average,
                teacher=teacher,
                on_step=on_step,
            )
            before = progress.history[-1]["train_seconds"] if progress.history else 0.0
            row: dict[str, Any] = {"epoch": turn.epoch, "phase": turn.phase.name, **losses}
            with average.in_place(model):
                row |= {"train_seconds": before + losses["epoch_seconds"], **_evaluated(model, evaluator)}
                progress = progress.after(row, model, f"val_{task.metric}", quantity(task.metric).higher_is_better)
                pictures.take(turn.epoch, events)
            if out is not None:
                write_history(out, progress.history)
                save_checkpoint(out, training, model, optimizer, progress, average)
            events.add(row)
            if report is not None:
                report(row)
        if progress.history:
            events.add_settings(config.dotted(), progress.history[-1])
    average.write_to(model)
    model.to(memory_format=torch.contiguous_format)
    return progress


def _without_training(
    history: list[dict[str, Any]], model: VisionModel, evaluator: Evaluator, report: Report | None, out: Path | None
) -> list[dict[str, Any]]:
    """Evaluate weights that were not trained here, frozen or reused ones, and report that once."""
    *before, last = history or [{"epoch": 0, "train_seconds": 0.0}]
    row = {**last, **_evaluated(model, evaluator)}
    if out is not None:
        write_history(out, [*before, row])
    if report is not None:
        report(row)
    return [*before, row]


def _evaluated(model: VisionModel, evaluator: Evaluator) -> dict[str, float]:
    """Return the history's columns about the model in its present state."""
    return {**_headline(evaluator.run(model)), "params": model.num_parameters()}


def _headline(evaluation: Evaluation) -> dict[str, float]:
    """Return the scalars of an evaluation of the validation split."""
    row = {f"val_{name}": value for name, value in evaluation.metrics.items()}
    row |= evaluation.compute_summary()
    ratio = evaluation.mean_ratio()
    if ratio is not None:
        row["routing_ratio"] = ratio
    return row | evaluation.model_metrics


def evaluate_trained(
    config: RunConfig, model: VisionModel, evaluator: Evaluator, history: list[dict[str, Any]]
) -> TrialRecord:
    """Evaluate the trained model: headline, operating points, certificate, and the compute ledger's cross-check."""
    final = evaluator.run(model)
    metrics: dict[str, Any] = {
        **_headline(final),
        "flops_dense": model.dense_flops or final.compute_summary()["flops"],
        "params": model.num_parameters(),
        **({} if model.has_closed_form else {COMPUTE_CHECK: EXECUTED_ALONE}),
        "epochs": history[-1]["epoch"],
        "train_seconds": history[-1]["train_seconds"],
        "train_loss": history[-1].get("train_loss"),
    }
    device = evaluator.split.targets.device
    if device.type == "cuda":
        metrics["gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    batch = next(evaluator.batches(model.needs))
    with torch.no_grad():
        measure(model, batch.images, **batch.facts)
    metrics |= measure_latency(model, evaluator).row()
    certificate = None
    if model.routed is not None and model.routed.decides:
        certificate = certify(model.routed, evaluator, final)
    elif model.exiting is not None:
        certificate = certify_exits(model.exiting, evaluator, final)
    elif model.controls():
        certificate = certify_against_controls(model, evaluator, final)
    if certificate is not None:
        metrics["router_state"] = certificate["state"]
        metrics |= {name: certificate[name] for name in CERTIFIED if name in certificate}
    values = knob_values(model, evaluator) if config.evaluation.operating_points else []
    points = operating_points(model, evaluator, final, values)
    if wanted := config.evaluation.costs:
        rows = measured_costs(wanted, model, evaluator, values, config.evaluation.costs_batch_size)
        for point, costs in zip(points, rows, strict=True):
            point.metrics.update(costs)
        metrics |= {**rows[0], "latency_reference": REFERENCE}
    return TrialRecord(config, metrics, points, history, certificate)
