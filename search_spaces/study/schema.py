"""The study file as checked data: space or factors, objectives, sampler, scheduler, resources.

``SweepStudy`` samples a space; ``AblationStudy`` runs declared changes. Reading a file: ``search_spaces.load_study``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)

from routing.config.explain import unknown_first
from routing.config.section import Section, registered
from routing.constraints import Constraint
from routing.errors import choices, nearest
from routing.objectives import Objective
from routing.quantities import objectives, quantity
from search_spaces.study.registry import RULES, SAMPLERS

Scalar = bool | int | float | str | None

MAX_NAME = 80
"""Characters of a study's name."""

MAX_GRID = 1_000_000
"""Combinations a grid may have."""

_DURATION = re.compile(r"^(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?$")


def parse_duration(value: Any) -> float:
    """Return seconds of ``90``, ``"90s"``, ``"10m"``, ``"1h30m"``; ``ValueError`` for anything else."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"a duration is written 90s, 10m or 1h30m, not {value!r}")
    text = str(value).replace(" ", "")
    if isinstance(value, (int, float)) or re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        match = _DURATION.match(text)
        if not text or match is None:
            raise ValueError(f"a duration is written 90s, 10m or 1h30m, not {value!r}")
        hours, minutes, rest = (float(part) if part else 0.0 for part in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    if not 0 < seconds < 1e9:
        raise ValueError(f"a duration must be above zero, not {value!r}")
    return seconds


def _file_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"{name!r} cannot name a folder (valid: letters, digits, '_', '.', '-'; no '_.-' in front)")
    return name


def _one_or_more(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


REPEATS = "dataset.split.repeats"
"""Key of an ablation's base: how often the data are cut anew, each time under a seed of its own."""


def without_key(base: dict[str, Any], key: str) -> tuple[dict[str, Any], Any]:
    """Return keys of a run, nested or dotted, without one of them, and its value (None: it is not there)."""
    if key in base:
        return {name: value for name, value in base.items() if name != key}, base[key]
    for name, value in base.items():
        if key.startswith(f"{name}.") and isinstance(value, dict):
            inside, found = without_key(value, key[len(name) + 1 :])
            if found is not None:
                return {**base, name: inside}, found
    return base, None


def levels(value: Any) -> Any:
    """``dataset.patch_grid_size: [4, 8]`` is short for one level per value of that key."""
    if not isinstance(value, dict):
        return value
    for factor, levels in value.items():
        names = [str(level) for level in levels] if isinstance(levels, list) else []
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"factors.{factor}: the level {twice[0]} is given twice in {levels}")
    return {
        factor: {str(level): {factor: level} for level in levels} if isinstance(levels, list) else levels
        for factor, levels in value.items()
    }


def _known_metric(name: str) -> str:
    known = objectives()
    if name not in known:
        raise ValueError(f"unknown objective '{name}'{nearest(name, known)} (valid: {choices(known)})")
    return name


_IN_EDITORS: dict[str, Any] = {"anyOf": [{"enum": objectives()}, {"pattern": "^val_"}]}
Duration = Annotated[float, BeforeValidator(parse_duration)]
Condition = Annotated[tuple[Scalar, ...], BeforeValidator(_one_or_more), Field(min_length=1)]
Metric = Annotated[str, AfterValidator(_known_metric), Field(json_schema_extra=_IN_EDITORS)]


class Parameter(Section):
    """One searched key: exactly one of ``choice``, ``float``, ``int`` or ``value``."""

    choice: tuple[Any, ...] | None = Field(default=None, min_length=1, description="One of these values.")
    float_range: tuple[float, float] | None = Field(
        default=None, alias="float", description="A real number between low and high, both included."
    )
    int_range: tuple[int, int] | None = Field(
        default=None, alias="int", description="A whole number between low and high, both included."
    )
    value: Any = Field(default=None, description="A constant; with `when`, one that only some trials have.")
    log: bool = Field(default=False, description="Sample the range on a logarithmic scale; low must be above 0.")
    step: float | None = Field(default=None, gt=0, description="Distance between neighbouring values of the range.")
    when: dict[str, Condition] = Field(
        default_factory=dict,
        description="Only where each named parameter has the value, or one of the values, given here.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        """A bare list is a choice, a bare scalar a constant."""
        if isinstance(value, list):
            return {"choice": value}
        return value if isinstance(value, (dict, Parameter)) else {"value": value}

    @model_validator(mode="after")
    def _one_kind(self) -> Parameter:
        kinds = [name for name in ("choice", "float", "int", "value") if self._given(name)]
        if len(kinds) != 1:
            found = f"it has {' and '.join(kinds)}" if kinds else "it has none of them"
            raise ValueError(f"needs exactly one of choice, float, int or value; {found}")
        if self.choice is not None and len({repr(item) for item in self.choice}) < len(self.choice):
            raise ValueError(f"the same choice is given twice in {list(self.choice)}")
        bounds = self.float_range or self.int_range
        if bounds is None:
            if self.log or self.step is not None:
                raise ValueError("log and step belong to a float or int range")
            return self
        low, high = bounds
        if low > high:
            raise ValueError(f"empty range: low {low} is above high {high}")
        if self.log and low <= 0:
            raise ValueError(f"a log range starts above 0, not at {low}")
        if self.log and self.step is not None:
            raise ValueError("log and step cannot be combined")
        if self.step is not None and self.int_range and self.step != int(self.step):
            raise ValueError(f"the step of an int range is a whole number, not {self.step}")
        return self

    def _given(self, name: str) -> bool:
        return {"float": "float_range", "int": "int_range"}.get(name, name) in self.model_fields_set

    def dump(self) -> dict[str, Any]:
        """Return the parameter in the words of a study file, defaults left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class DeclaredObjective(Objective):
    """A metric to optimise, and its reference: a trial beyond it adds nothing to the hypervolume."""

    metric: Metric = Field(description="A scalar of the trial record.")
    reference: float = Field(description="Reference point of the hypervolume: worse than this counts as nothing.")

    @model_validator(mode="after")
    def _fits_the_quantity(self) -> DeclaredObjective:
        measured = quantity(self.metric)
        if self.goal != measured.goal:
            raise ValueError(f"{self.metric} is better the other way: goal: {measured.goal}")
        why = measured.why_not(self.reference)
        if why:
            raise ValueError(f"reference of {self.metric}: no value can be {self.reference:g}; {why}")
        return self


SamplerName = Annotated[str, registered(SAMPLERS), Field(json_schema_extra={"enum": list(SAMPLERS)})]
RuleName = Annotated[str, registered(RULES), Field(json_schema_extra={"enum": list(RULES)})]


class SamplerSection(Section):
    """How trials are chosen."""

    name: SamplerName = Field(
        default="auto", description="auto: a Gaussian process while trials are few, then TPE; or one of a plugin."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the sampler.")
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of this sampler.")

    @model_validator(mode="after")
    def _known_options(self) -> SamplerSection:
        declared = SAMPLERS.get(self.name).options_type
        try:
            declared.model_validate(self.options)
        except ValidationError as error:
            raise ValueError(_why_no_options(self.name, list(declared.model_fields), error)) from None
        return self


def _why_no_options(sampler: str, known: list[str], error: ValidationError) -> str:
    """Return what is wrong with a sampler's options and what would be valid."""
    first = unknown_first(error)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"sampler {sampler} has no option '{key}'{nearest(key, known)} (valid: {choices(known) or 'none'})"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    return f"sampler option {key}: {first['msg'][:1].lower()}{first['msg'][1:]}, not {first['input']!r}"


class SchedulerSection(Section):
    """How unpromising trials are stopped early."""

    name: RuleName = Field(
        default="moasha",
        description="moasha ranks by non-domination, then crowding; dominance by how many dominate a trial; "
        "similar_cost and asha by the task metric, among trials of similar FLOPs or all; or one of a plugin.",
    )
    grace_period: int = Field(default=1, ge=1, le=100_000, description="Epochs before the first rung.")
    reduction_factor: float = Field(default=3, ge=1.1, le=100, description="One of this many goes on at a rung (eta).")


class ResourcesSection(Section):
    """What one trial needs; fractions share a device."""

    cpu: float = Field(default=1, ge=0, le=4096, description="CPUs of one trial.")
    gpu: float = Field(default=0, ge=0, le=64, description="GPUs of one trial; 0.25 puts four trials on one.")
    custom: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="Custom Ray resources of one trial."
    )

    @model_validator(mode="after")
    def _whole_above_one(self) -> ResourcesSection:
        """Ray shares a device among trials, and gives a trial several whole ones."""
        for name, count in {"cpu": self.cpu, "gpu": self.gpu, **self.custom}.items():
            if count > 1 and count != int(count):
                raise ValueError(
                    f"resources.{name} {count:g}: above 1 it is whole (valid: {int(count)}, {int(count) + 1}, "
                    "or a share of at most 1)"
                )
        return self

    def placed(self, device: str) -> str:
        """Return the device of a trial: ``auto`` takes a GPU wherever it sees one; without a share, it is the CPU."""
        return "cpu" if device == "auto" and not self.gpu else device


class StopSection(Section):
    """When a search ends before its trials are over."""

    hypervolume_gain: float = Field(
        gt=0, lt=1, description="Share of the hypervolume: it must grow by more than this over `over` trials."
    )
    over: int = Field(ge=1, le=100_000, description="Ended trials over which the hypervolume must grow.")


class StudyBase(Section):
    """What every study declares."""

    name: Annotated[str, AfterValidator(_file_name)] = Field(max_length=MAX_NAME, description="Name of the study.")
    question: str = Field(default="", description="The question this study answers, in one sentence.")
    cost: str = Field(default="", description="What it costs, in words: about 5 minutes on 2 cores.")
    base: dict[str, Any] = Field(default_factory=dict, description="Keys of the run that all trials share.")
    objectives: tuple[DeclaredObjective, ...] = Field(min_length=1, max_length=3, description="What is optimised.")
    scheduler: SchedulerSection = Field(default_factory=SchedulerSection)
    resources: ResourcesSection = ResourcesSection()
    trial_timeout: Duration | None = Field(default=None, description="A trial that takes longer fails: 90s, 10m, 1h.")
    keep_models: Literal["all", "front", "none"] = Field(
        default="all", description="Which trained models stay on disk when the study ends."
    )

    @model_validator(mode="after")
    def _distinct_objectives(self) -> StudyBase:
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives: the same metric is given twice in {', '.join(names)}")
        if quantity(names[0]).is_cost and not all(quantity(name).is_cost for name in names):
            raise ValueError(f"objectives: the task's metric comes first, and '{names[0]}' is a cost")
        return self


class SweepStudy(StudyBase):
    """A search: trials are sampled from a space."""

    kind: Literal["sweep"]
    space: dict[str, Parameter] = Field(min_length=1, description="Searched keys of the run.")
    enqueue: tuple[dict[str, Any], ...] = Field(
        default=(), description="Settings of the space that run first, and to the end."
    )
    sampler: SamplerSection = Field(default_factory=SamplerSection)
    trials: int = Field(ge=1, le=1_000_000, description="Trials to run in all.")
    stop: StopSection | None = Field(
        default=None, description="End before, when nothing is gained: {hypervolume_gain: 0.005, over: 20}."
    )
    constraints: tuple[str, ...] = Field(
        default=(),
        max_length=5,
        description="What every point of the front keeps to, as in `flops <= 1.0e6` or `val_accuracy >= 0.9`; "
        "a setting whose expected flops or params break one is refused before training.",
    )

    @model_validator(mode="after")
    def _readable_constraints(self) -> SweepStudy:
        for text in self.constraints:
            Constraint.of(text)
        return self


def constraints_of(study: StudyBase) -> list[Constraint]:
    """Return the constraints of a search, none of an ablation."""
    return [Constraint.of(text) for text in study.constraints] if isinstance(study, SweepStudy) else []


class AblationStudy(StudyBase):
    """A comparison: a baseline and declared changes of it, each under the same seeds."""

    kind: Literal["ablation"]
    design: Literal["one_at_a_time", "leave_one_out", "grid", "arms"] = Field(
        default="one_at_a_time",
        description="one_at_a_time: baseline with one factor changed; leave_one_out: all factors on, one taken back "
        "to the baseline; grid: every combination; arms: the declared levels alone, the first is the baseline.",
    )
    factors: Annotated[
        dict[str, Annotated[dict[str, dict[str, Any]], Field(min_length=1)]], BeforeValidator(levels)
    ] = Field(min_length=1, description="factor -> level -> the keys it changes; or key of the run -> list of values.")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32, strict=True)], ...] = Field(
        min_length=1,
        description="Every arm is trained once under each of these seeds; dataset.split.repeats: N in the base is "
        "short for N of them and split_by_seed.",
    )
    seeds_per_arm: dict[str, Annotated[int, Field(ge=1, strict=True)]] = Field(
        default={}, description="arm -> it is trained under that many of the seeds, the first ones, instead of all."
    )
    split_by_seed: bool = Field(
        default=False,
        description="Each seed also cuts the data anew: dataset.seed is the seed, the same for every arm.",
    )
    scheduler: SchedulerSection = SchedulerSection(name="none")

    @model_validator(mode="before")
    @classmethod
    def _repeats_are_seeds(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("base"), dict):
            return values
        base, repeats = without_key(values["base"], REPEATS)
        if repeats is None:
            return values
        if not isinstance(repeats, int) or isinstance(repeats, bool) or not 2 <= repeats <= 10_000:
            raise ValueError(f"base: {REPEATS} is {repeats!r} (valid: whole numbers from 2 to 10000)")
        if "seeds" in values or "split_by_seed" in values:
            raise ValueError(
                f"base: {REPEATS}: {repeats} is short for split_by_seed: true and seeds 0 to {repeats - 1}; give one "
                "or the other"
            )
        return {**values, "base": base, "split_by_seed": True, "seeds": list(range(repeats))}

    @model_validator(mode="after")
    def _distinct_seeds(self) -> AblationStudy:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: the same seed is given twice in {list(self.seeds)}")
        return self


Study = SweepStudy | AblationStudy
