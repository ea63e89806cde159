"""Every measured number: direction, label, unit, range. All other modules look them up here.

``quantity("val_accuracy")`` and ``quantity("test_accuracy")`` are one quantity on two splits. A plugin's metric or task
declares its own when it is registered (``routing.config.declared``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from routing.errors import InputError, choices, nearest

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from routing.intervals import Interval

Goal = Literal["maximize", "minimize"]
SPLITS = {"train": "training", "val": "validation", "test": "test", "cross": "cross-dataset"}
"""Prefix of a column that is measured on a split, and the word for it in a label."""

MULTIPLY_ADDS = "multiply-adds per image"
SHARE: dict[str, Any] = {"unit": "%", "factor": 100.0, "digits": ".2f", "low": 0.0, "high": 1.0}
"""Fields of a share that is stored in [0, 1] and shown in percent."""


@dataclass(frozen=True)
class Quantity:
    """One measured number, the same on every split.

    Attributes:
        name: its column, without the prefix of a split.
        goal: where it is better; None where neither direction is.
        kind: ``task`` (measured on a split, its columns have the split as prefix), ``cost``, or ``diagnostic``.
        label: its name in text and on axes; default: ``name`` in words.
        heading: its name at the head of a table on a terminal; default: ``label``.
        unit: of the shown value, empty where there is none.
        factor: from the stored to the shown value; 100 for a share shown in percent.
        digits: format of the shown value.
        scale: of its axis, and of an objective that declares none.
        low: lowest possible stored value, itself possible unless ``above_low``.
        high: highest possible stored value, itself possible where finite.
        is_count: shown with three digits and a prefix: 1.40 M.
        is_share_of_images: a mean of zeros and ones over the images of a split, so that its error is binomial.
        can_be_objective: known for every operating point, so that a study may optimise it.
        tasks: those it is defined for; empty: every task.
        on_request: reported only where ``evaluation.metrics``, of a cost ``evaluation.costs``, names it.
    """

    name: str
    goal: Goal | None
    kind: Literal["task", "cost", "diagnostic"] = "task"
    label: str = ""
    heading: str = ""
    unit: str = ""
    factor: float = 1.0
    digits: str = ".4g"
    scale: Literal["linear", "log"] = "linear"
    low: float = -math.inf
    high: float = math.inf
    above_low: bool = False
    is_count: bool = False
    is_share_of_images: bool = False
    can_be_objective: bool = False
    tasks: tuple[str, ...] = ()
    on_request: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name.replace("_", " "))
        object.__setattr__(self, "heading", self.heading or self.label)
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"factor {self.factor} is not above 0")
        format(1.0, self.digits)  # raises for what is no format

    @property
    def is_cost(self) -> bool:
        """Whether it measures what a model costs."""
        return self.kind == "cost"

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is better."""
        return self.goal == "maximize"

    def shown(self, value: float) -> str:
        """Return a stored value as it is shown, without its unit: ``95.80`` of an accuracy of 0.958."""
        return format(value * self.factor, self.digits)

    def can_be(self, value: float) -> bool:
        """Return whether a measurement can have this (stored) value."""
        return (
            math.isfinite(value) and (self.low < value if self.above_low else self.low <= value) and value <= self.high
        )

    def why_not(self, value: float) -> str:
        """Return why no measurement can have this value, with one that was perhaps meant; empty where one can."""
        if self.can_be(value):
            return ""
        if self.unit == "%" and self.can_be(value / self.factor):
            plural = f"{self.label[:-1]}ies" if self.label.endswith("y") else f"{self.label}s"
            return f"{plural} are shares: {value / self.factor:g}"
        if math.isfinite(self.low) and math.isfinite(self.high):
            return f"{self.label} is from {self.low:g} to {self.high:g}"
        if math.isfinite(self.high):
            return f"{self.label} is at most {self.high:g}"
        return f"{self.label} is {'above' if self.above_low else 'at least'} {self.low:g}"


def _task(name: str, goal: Goal, *tasks: str, **more: Any) -> Quantity:
    return Quantity(name, goal, tasks=tasks, can_be_objective=True, **more)


def _cost(name: str, goal: Goal | None = "minimize", **more: Any) -> Quantity:
    return Quantity(name, goal, "cost", **{"low": 0.0, "scale": "log", "can_be_objective": True, **more})


def _diagnostic(name: str, goal: Goal | None = None, **more: Any) -> Quantity:
    return Quantity(name, goal, "diagnostic", **more)


_FLOPS: dict[str, Any] = {"unit": MULTIPLY_ADDS, "above_low": True, "is_count": True}
_AFTERWARDS: dict[str, Any] = {"can_be_objective": False}  # of a trial, not of each of its points
_CORRELATION: dict[str, Any] = {"low": -1.0, "high": 1.0}
_RATIO: dict[str, Any] = {"low": 0.0, "high": 1.0}
_OURS = (
    _task("accuracy", "maximize", "classification", is_share_of_images=True, **SHARE),
    _task("srcc", "maximize", "quality", label="SRCC", **_CORRELATION),
    _task("plcc", "maximize", "quality", label="PLCC", **_CORRELATION),
    _task("krcc", "maximize", "quality", label="KRCC", **_CORRELATION),
    _task("plcc_logistic", "maximize", "quality", label="PLCC after a logistic mapping", heading="PLCC logistic",
          **_CORRELATION),
    _task("rmse", "minimize", "quality", label="RMSE", low=0.0),
    _task("loss", "minimize", "classification", low=0.0),
    _task("top5_accuracy", "maximize", "classification", label="top-5 accuracy", is_share_of_images=True,
          on_request=True, **SHARE),
    _task("balanced_accuracy", "maximize", "classification", on_request=True, **SHARE),
    _task("calibration_error", "minimize", "classification", on_request=True, **SHARE),
    _cost("flops", label="compute", heading="multiply-adds", **_FLOPS),
    _cost("flops_p5", label="compute, 5th percentile", heading="multiply-adds p5", **_FLOPS),
    _cost("flops_p95", label="compute, 95th percentile", heading="multiply-adds p95", **_FLOPS),
    _cost("flops_dense", label="compute of the dense model", heading="multiply-adds dense", **_FLOPS, **_AFTERWARDS),
    _cost("params", label="parameters", is_count=True),
    _cost("ms_per_image", label="inference time", unit="ms per image", heading="ms/image", **_AFTERWARDS),
    _cost("latency_ms", label="latency", unit="ms", above_low=True, on_request=True),
    _cost("latency_ratio", above_low=True, on_request=True),
    _cost("peak_memory_mb", label="peak memory", unit="MB", heading="peak memory, MB", above_low=True, on_request=True),
    _cost("energy_j", label="energy", unit="J", heading="energy, J", on_request=True),
    _cost("routing_ratio", scale="linear", **_RATIO),  # 0 where nothing is routed
    _cost("train_seconds", label="training", unit="s", heading="training, s"),
    _cost("gpu_memory_mb", label="peak GPU memory", unit="MB", heading="GPU memory, MB", above_low=True),
    _cost("share_of_full", label="share of full compute", heading="of full", scale="linear", **_AFTERWARDS),
    _diagnostic("gap_closed", "maximize"),
    _diagnostic("recall", "maximize", **_RATIO),
    _diagnostic("gap_closed_oracle", "maximize"),
    _diagnostic("rate", **_RATIO),
    _diagnostic("share_all_on", **_RATIO),
    _diagnostic("share_all_off", **_RATIO),
    _diagnostic("saturation", **_RATIO),
    _diagnostic("grad_norm_scores", low=0.0),
    _diagnostic("grad_norm_threshold", low=0.0),
    _diagnostic("epochs", low=0.0),
)  # fmt: skip
_known = {one.name: one for one in _OURS}
OUR_TASKS = tuple(dict.fromkeys(task for one in _OURS for task in one.tasks))
"""Tasks of which every reported metric is known; one of a plugin may report more than it declares."""


def quantity(name: str) -> Quantity:
    """Return what a column measures: ``val_accuracy``, ``test_accuracy`` and ``accuracy`` are one quantity.

    Raises:
        InputError: nothing of this name is measured.
    """
    found = find(name)
    if found is None:
        raise InputError(f"unknown quantity '{name}'{nearest(name, _known)} (valid: {choices(_known)})")
    return found


def find(name: str) -> Quantity | None:
    """Return what a column measures; None where it is no measured number, or one of a plugin that is not imported."""
    if name in _known:
        return _known[name]
    split, _, rest = name.partition("_")
    found = _known.get(rest) if split in SPLITS else None
    return found if found is not None and found.kind == "task" else None


def why_impossible(name: str, value: Any) -> str:
    """Return why a column cannot hold this value: no finite number, or outside its range; empty where it can."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "not a finite number"
    known = find(name)
    return "" if known is None else known.why_not(value)


def split_of(name: str) -> str | None:
    """Return the split a column is measured on by its prefix, also one of a plugin that is not imported here."""
    split, _, rest = name.partition("_")
    return split if split in SPLITS and rest and name not in _known else None


def on_split(name: str, split: str) -> str:
    """Return the column of the same quantity on another split; a cost has no split and stays."""
    own = split_of(name)
    if own is None and name in _measured and _known[name].kind == "task":
        return f"{split}_{name}"
    return name if own is None else f"{split}_{name[len(own) + 1 :]}"


def is_metric(name: str) -> bool:
    """Return whether a column is a metric of the task or a cost: what a table of points shows."""
    found = find(name)
    return split_of(name) is not None if found is None else found.kind != "diagnostic"


def label(name: str) -> str:
    """Return a column's name in text: ``validation top-5 accuracy``."""
    split, found = split_of(name), find(name)
    if found is None:
        return name.replace("_", " ")
    return found.label if split is None else f"{SPLITS[split]} {found.label}"


def heading(name: str) -> str:
    """Return a column's short name for a table on a terminal: ``val top-5 accuracy``."""
    split, found = split_of(name), find(name)
    if found is None:
        return name.replace("_", " ")
    return found.heading if split is None else f"{split} {found.heading}"


def count(value: float) -> str:
    """Return a count of multiply-adds or parameters with three digits: ``312 k``, ``1.40 M``, ``4.60 G``."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            digits = 0 if abs(scaled) >= 99.95 else 1 if abs(scaled) >= 9.995 else 2
            return f"{scaled:.{digits}f} {letter}"
    return f"{value:.0f}"


def in_words(name: str, value: float) -> str:
    """Return a stored value of a column with its unit: ``95.80 %``; a count has a prefix and none: ``944 k``."""
    known = find(name)
    if known is None:
        return f"{value:.4g}"
    if known.is_count:
        return count(value)
    return f"{known.shown(value)} {known.unit}".rstrip()


def interval_of(name: str, values: ArrayLike) -> Interval:
    """Return the mean of repeats of a column with a 95 % interval inside its range; see ``bounded_interval``."""
    from routing.intervals import bounded_interval  # imports scipy, which most users of this module can do without

    known = find(name)
    return bounded_interval(values, *((-math.inf, math.inf) if known is None else (known.low, known.high)))


def ordered(names: Iterable[str]) -> list[str]:
    """Return the measured columns among ``names``, once each: by split and quantity, then those of plugins."""
    measured = [name for name in dict.fromkeys(names) if find(name) is not None or split_of(name) is not None]
    splits, places = ["val", "test", "cross", "train"], {name: place for place, name in enumerate(_known)}

    def place(name: str) -> tuple[bool, int, int]:
        found, split = find(name), split_of(name)
        is_task = split is not None
        return not is_task, splits.index(split) if split else 0, places[found.name] if found else len(places)

    return sorted(measured, key=place)


def objectives() -> list[str]:
    """Return the columns that a study may optimise: of the task on the validation split, then costs."""
    able = [one for one in _known.values() if one.can_be_objective]
    return [f"val_{one.name}" for one in able if not one.is_cost] + [one.name for one in able if one.is_cost]


def reported_by(task: str) -> list[str]:
    """Return the metrics that every run of a task reports, without the prefix of the split."""
    return [one.name for one in _known.values() if task in one.tasks and not one.on_request]


def add_task(name: str, task: str) -> None:
    """Say that runs of a further task report the quantity, too."""
    _known[name] = replace(_known[name], tasks=tuple(dict.fromkeys((*_known[name].tasks, task))))


_measured: set[str] = set()


def declare_measured(column: str, goal: Goal, is_cost: bool) -> None:
    """Say what a column of a script of the user's is; a quantity that is known already stays what it is."""
    split, _, rest = column.partition("_")
    name = rest if split in SPLITS and rest else column
    if name in _known and name not in _measured:
        return
    more: dict[str, Any] = {"scale": "log", "low": 0.0, "above_low": True} if is_cost else {}
    _known[name] = Quantity(name, goal, "cost" if is_cost else "task", **more)
    _measured.add(name)


def declare(one: Quantity) -> None:
    """Add a quantity of a plugin.

    Raises:
        InputError: its name is taken, or reads like a column of a split.
    """
    if one.name in _known:
        raise InputError(f"metric '{one.name}' is measured already; give it another name")
    if one.name.partition("_")[0] in SPLITS:
        raise InputError(f"metric '{one.name}': a name must not begin like that of a split ({choices(SPLITS)})")
    _known[one.name] = one
