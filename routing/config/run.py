"""``RunConfig``: the one schema of a run.

    config = RunConfig.from_yaml("run.yaml", ["--model.router.mode", "top_k"])

Dotted keys, defaults, ranges and sentences of every key: ``routing schema run``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from routing.config.explain import explain_run
from routing.config.names import is_of_script
from routing.config.overrides import parse_overrides, split_overrides, switch_names
from routing.config.plugins import import_plugins
from routing.config.preprocessing import resolve_auto
from routing.config.recipe import fill
from routing.config.registry import DATASETS, METRICS, MODELS
from routing.config.section import DatasetSection, ModelSection, Section, by_name, dotted, merge, nested
from routing.config.training import TrainingSection
from routing.errors import InputError, choices
from routing.files.yaml_io import dump, load_file, parse_scalar

TASK_LOSSES = {"classification": ("cross_entropy",), "quality": ("l1", "mse")}
"""Losses of every task; the first is its default. A task of a plugin has its own only."""

FOR_CLASSES = {"label_smoothing": 0, "class_balance": "none", "augment.mixup": 0, "augment.cutmix": 0}
"""Keys below ``training`` that only classes have a meaning for, each with the value that other tasks need."""

Dataset = Annotated[SerializeAsAny[DatasetSection], BeforeValidator(by_name(DATASETS, "digits"))]
Model = Annotated[SerializeAsAny[ModelSection], BeforeValidator(by_name(MODELS, "attention_routing"))]


def _known_device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError(f"no device is called '{name}' (valid: auto, cpu, mps, cuda, cuda:0, cuda:1, ...)")
    return name


MetricName = Annotated[str, AfterValidator(METRICS.check)]
DeviceName = Annotated[str, AfterValidator(_known_device)]


class EvaluationSection(Section):
    """How a trained model is evaluated."""

    batch_size: int = Field(default=256, ge=1, le=65536, description="Images per forward pass.")
    operating_points: bool = Field(default=True, description="Evaluate the trained model along its compute knob.")
    limit: int | None = Field(
        default=None,
        ge=1,
        description="Validate on this many images, drawn by dataset.seed; null: all. The test split is always whole.",
    )
    metrics: tuple[MetricName, ...] = Field(
        default=(),
        description=f"Further metrics, each reported as val_<name>: {choices(METRICS)}, or one of a plugin.",
    )
    costs: tuple[Literal["latency_ms", "latency_ratio", "peak_memory_mb", "energy_j"], ...] = Field(
        default=(),
        description="Costs that are measured at every operating point after training, while no other run of the "
        "machine measures: ms of a pass, its ratio to a fixed reference, peak MB, joules of a pass.",
    )
    costs_batch_size: int = Field(default=1, ge=1, le=65536, description="Images of a pass whose costs are measured.")
    knob_value: float | str | None = Field(
        default=None, description="Evaluate the trained model at this value of its knob instead of the trained one."
    )


class RunConfig(Section):
    """One run: data, model, training, evaluation. Frozen; an unknown key is an error."""

    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of initial weights, batches and random routers.")
    device: DeviceName = Field(default="auto", description="auto, cpu, cuda[:N], mps.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast; the router stays fp32.")
    plugins: tuple[str, ...] = Field(default=(), description="Modules imported first; they register their own names.")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of the run; results are exact per count.")
    dataset: Dataset = Field(default_factory=lambda: DATASETS.get("digits")())
    model: Model = Field(default_factory=lambda: MODELS.get("attention_routing")())
    training: TrainingSection = Field(default=TrainingSection(), validate_default=True)
    evaluation: EvaluationSection = EvaluationSection()

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, value: Any) -> Any:
        if not isinstance(value, (dict, RunConfig)):
            raise ValueError(f"a run is a mapping of keys to values, not {type(value).__name__}")
        if isinstance(value, dict):
            import_plugins(value.get("plugins"))
            value = resolve_auto(value)
        return value

    @field_validator("training", mode="wrap")
    @classmethod
    def _as_the_model_is_trained(
        cls, value: Any, check: Callable[[Any], TrainingSection], info: ValidationInfo
    ) -> TrainingSection:
        return fill(value, info.data.get("model"), info.data.get("dataset"), check)

    @model_validator(mode="after")
    def _model_fits_the_task(self) -> RunConfig:
        task = self.dataset.task
        if task not in self.model.tasks:
            fitting = [name for name in DATASETS if DATASETS.get(name).task in self.model.tasks]
            raise ValueError(
                f"model.name '{self.model.name}' is not made for dataset.name '{self.dataset.name}', whose task is "
                f"{task} (valid data sets: {choices(fitting)})"
            )
        if self.training.loss not in ("auto", *TASK_LOSSES.get(task, ())):
            raise ValueError(
                f"training.loss '{self.training.loss}' is not a loss of the task {task} of dataset.name "
                f"'{self.dataset.name}' (valid: auto, {choices(TASK_LOSSES.get(task, ()))})"
            )
        for key, off in FOR_CLASSES.items() if task != "classification" else ():
            value = dotted(self.training)[key]
            if value != off:
                raise ValueError(
                    f"training.{key} {value} is for classes, and the task of dataset.name '{self.dataset.name}' is "
                    f"{task} (valid: {off})"
                )
        return self

    @model_validator(mode="after")
    def _frozen_needs_weights(self) -> RunConfig:
        if self.training.num_epochs == 0 and getattr(self.model, "weights", None) is None:
            raise ValueError("training.num_epochs 0 evaluates given weights, but there are no model.weights")
        return self

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> RunConfig:
        """Check nested or dotted values.

        Raises:
            InputError: one line naming the key, the value and what would be valid.
        """
        if not isinstance(values, dict):
            raise InputError(f"{where}: a run is a mapping of keys to values, not {type(values).__name__}")
        if not all(isinstance(key, str) for key in values):
            bad = next(key for key in values if not isinstance(key, str))
            raise InputError(f"{where}: key {bad!r} is not a string")
        tree = nested(values)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise InputError(f"{where}: {explain_run(error, tree, valid_keys(tree))}") from None

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> RunConfig:
        """Read a run from a YAML file (``None``: all defaults), then lay overrides over it.

        Args:
            path: YAML file of nested or dotted keys.
            overrides: ``["--seed", "1"]``, ``["--seed=1"]`` or ``["seed=1"]``; hyphens in keys count as underscores.
        """
        return cls.from_loaded(path, {} if path is None else load_file(path)[0], overrides)

    @classmethod
    def from_loaded(cls, path: str | os.PathLike[str] | None, values: Any, overrides: Sequence[str] = ()) -> RunConfig:
        """Return a run from what a YAML file holds that has been read; see ``from_yaml``."""
        values = {} if values is None else values
        if path is not None:
            if not isinstance(values, dict):
                raise InputError(f"{path}: a run is a mapping of keys to values, not {type(values).__name__}")
            if is_of_script(values):
                raise InputError(f"{path}: a run of a training script, which only sweep, confirm and analyze know")
            if values.get("kind") in ("sweep", "ablation"):
                raise InputError(f"{path}: this is a study, not a run; write routing sweep {path}")
        plugins = split_overrides(overrides).get("plugins")
        if plugins is not None or path is None:
            import_plugins(None if plugins is None else parse_scalar(plugins[1], f"value of {plugins[0]}"))
        else:
            import_plugins(values.get("plugins"), Path(path))
        where = str(path) if path is not None else "command line"
        own = nested(_string_keys(values, where))
        changes = parse_overrides(overrides, cls, own)
        tree = switch_names(own, changes)
        return cls.from_dict(merge(tree, nested(changes)), where)

    @property
    def num_epochs(self) -> int:
        """Epochs of the training when nothing stops it."""
        return self.training.num_epochs

    def is_same_run(self, other: Any) -> bool:
        """Return whether both are one run, wherever it is computed: ``device`` does not count."""
        return isinstance(other, RunConfig) and self.model_copy(update={"device": other.device}) == other

    def dotted(self) -> dict[str, Any]:
        """Return ``{"dataset.name": "digits", "seed": 0, ...}``, JSON-ready."""
        return dotted(self)

    def to_yaml(self) -> str:
        """Return the complete run as YAML; reading it back gives an equal ``RunConfig``."""
        return dump(self.model_dump(mode="json"))

    def replace(self, **dotted_changes: Any) -> RunConfig:
        """Return a checked copy with dotted keys changed: ``config.replace(**{"training.num_epochs": 1})``.

        Another model brings its own recipe for what the user did not set of the training; images stay as they are
        prepared, also where ``dataset.resize: auto`` took that from the model.
        """
        training = self.training.model_dump(mode="json", exclude_unset=True)
        tree = switch_names({**self.model_dump(mode="json"), "training": training}, dotted_changes)
        return RunConfig.from_dict(merge(tree, nested(dotted_changes)))


def _string_keys(values: dict[Any, Any], where: str) -> dict[str, Any]:
    for key in values:
        if not isinstance(key, str):
            raise InputError(f"{where}: key {key!r} is not a string")
    return values


def valid_keys(values: dict[str, Any] | None = None) -> list[str]:
    """Return every dotted key that is valid beside these values' ``model.name`` and ``dataset.name``."""
    values = values or {}
    keys = [*_keys_of(RunConfig)]
    for name, registry, default in (("model", MODELS, "attention_routing"), ("dataset", DATASETS, "digits")):
        chosen = values.get(name, {})
        chosen = chosen.get("name", default) if isinstance(chosen, dict) else default
        keys += _keys_of(registry.get(chosen if chosen in registry else default), f"{name}.")
    return keys


FREE_NAMES = ("training.learning_rate_multipliers",)
"""Keys that hold a mapping of names which the model decides about."""


def is_key(key: str, known: Collection[str]) -> bool:
    """Return whether a dotted key is one of ``known``, or a name below one that holds free names."""
    above = key.rpartition(".")[0]
    return key in known or (above in FREE_NAMES and above in known)


def _keys_of(section: type[Section], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, (DatasetSection, ModelSection)):
            if prefix:  # a model inside a model: keys of any that fits there
                fitting = (MODELS.get(entry) for entry in MODELS)
                inside = (_keys_of(model, f"{prefix}{name}.") for model in fitting if model.has_stages)
                keys += dict.fromkeys(key for found in inside for key in found)
            continue
        if isinstance(inner, type) and issubclass(inner, Section):
            keys += _keys_of(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a run, with one alternative per data set and per model, for YAML editors."""
    schema = RunConfig.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for name, registry in (("dataset", DATASETS), ("model", MODELS)):
        options = []
        for entry in registry:
            section = registry.get(entry)
            inner = section.model_json_schema(ref_template="#/$defs/{model}")
            definitions.update(inner.pop("$defs", {}))
            definitions[section.__name__] = inner
            options.append({"$ref": f"#/$defs/{section.__name__}"})
        schema["properties"][name] = {"oneOf": options}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
