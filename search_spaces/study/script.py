"""Studies of a training script of the user's: free keys, metrics that the study names itself.

The free keys of a study file are those below ``config`` of a run: ``lr`` there is ``config.lr`` in every table.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from routing.config.names import SCRIPT_HEADS
from routing.config.script import CONFIG, AnyRun, ScriptRun
from routing.config.section import dotted, nested
from routing.objectives import Objective
from routing.quantities import declare_measured, quantity, split_of
from search_spaces.study.schema import AblationStudy, Parameter, SchedulerSection, StudyBase, SweepStudy, levels
from search_spaces.study.space import Space

SCRIPT_KEYS = {*SCRIPT_HEADS, "result", "evaluate", "config", "steps"}
"""What a study of a script has that others do not."""


class MeasuredObjective(Objective):
    """A metric that the script gives."""

    reference: float = Field(description="Reference point of the hypervolume: worse than this counts as nothing.")
    cost: bool = Field(default=False, description="Above 0, on a logarithmic axis; default: what comes second.")

    @model_validator(mode="after")
    def _is_known_from_now_on(self) -> MeasuredObjective:
        if split_of(self.metric) == "test":
            raise ValueError(f"{self.metric}: the test split is read by confirm only, through evaluate")
        declare_measured(self.metric, self.goal, self.cost)
        if quantity(self.metric).goal != self.goal:
            raise ValueError(f"{self.metric} is better the other way: goal: {quantity(self.metric).goal}")
        return self


class ScriptStudy(StudyBase):
    """What every study of a script declares."""

    run: str | None = Field(default=None, description="module:function that trains, called with a dict of its keys.")
    command: str | None = Field(default=None, description="Or a command: python train.py --lr {lr} --out {out}")
    result: str = Field(default="result.json", description="File below {out} that a command writes its metrics to.")
    evaluate: str | None = Field(default=None, description="module:function that reads the test split, for confirm.")
    config: str | None = Field(default=None, description="module:Class, pydantic or dataclass: names and ranges.")
    steps: int | str | None = Field(
        default=None, description="Steps a run reports, or the key that says so; without it nothing is stopped early."
    )
    objectives: tuple[MeasuredObjective, ...] = Field(  # type: ignore[assignment]
        min_length=1, max_length=3, description="Metrics of the script that are optimised."
    )

    @model_validator(mode="before")
    @classmethod
    def _keys_are_below_config(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if isinstance(values.get("base"), dict):
            values["base"] = {_key(key): value for key, value in dotted(nested(values["base"])).items()}
        if isinstance(values.get("space"), dict):
            values["space"] = {_key(key): _parameter(value) for key, value in values["space"].items()}
        if isinstance(values.get("enqueue"), (list, tuple)):
            values["enqueue"] = [_keys(setting) for setting in values["enqueue"]]
        if isinstance(values.get("factors"), dict):
            values["factors"] = {
                factor: {level: _keys(changes) for level, changes in found.items()}
                if isinstance(found, dict)
                else found
                for factor, found in levels(values["factors"]).items()
            }
        if isinstance(values.get("objectives"), (list, tuple)):
            values["objectives"] = [
                {"cost": place > 0 and o.get("goal") == "minimize", **o} if isinstance(o, dict) else o
                for place, o in enumerate(values["objectives"])
            ]
        return values

    @model_validator(mode="after")
    def _one_script(self) -> ScriptStudy:
        if (self.run is None) == (self.command is None):
            raise ValueError("a study of a script has either run or command")
        if self.steps is None and "scheduler" in self.model_fields_set and self.scheduler.name != "none":
            raise ValueError("scheduler: early stopping needs steps, how many a run reports (or the key that says so)")
        return self

    def run_of(self, values: dict[str, Any]) -> ScriptRun:
        """Return the run of these values, ``config.lr`` and ``seed``."""
        steps = values.get(f"{CONFIG}.{self.steps}") if isinstance(self.steps, str) else self.steps
        head: dict[str, Any] = {
            "run": self.run,
            "command": self.command,
            "result": self.result,
            "evaluate": self.evaluate,
        }
        head |= {"checked_by": self.config, "steps": steps, "metrics": [o.metric for o in self.objectives]}
        return ScriptRun.from_dict({**head, **values})


class ScriptSweepStudy(ScriptStudy, SweepStudy):
    """A search of the keys of a script."""

    @model_validator(mode="after")
    def _readable_constraints(self) -> ScriptSweepStudy:
        if self.constraints:
            raise ValueError("constraints are not for studies of a script: what it costs is not known before it runs")
        return self


class ScriptAblationStudy(ScriptStudy, AblationStudy):
    """A comparison of declared changes of the keys of a script."""

    scheduler: SchedulerSection = SchedulerSection(name="none")


class ScriptSpace(Space):
    """A space of free keys."""

    def __init__(self, parameters: dict[str, Parameter], study: ScriptStudy) -> None:
        super().__init__(parameters, study.base)
        self.study = study

    def config(self, values: dict[str, Any]) -> AnyRun:  # type: ignore[override]
        """Return the run of a setting, checked by the class of the study where it names one."""
        return self.study.run_of({**self.base, **values})


def space_of(study: StudyBase, parameters: dict[str, Parameter] | None = None) -> Space:
    """Return the space of a study, by default over the parameters that it searches."""
    if parameters is None:
        parameters = study.space if isinstance(study, SweepStudy) else {}
    return ScriptSpace(parameters, study) if isinstance(study, ScriptStudy) else Space(parameters, study.base)


def _key(key: Any) -> str:
    return str(key) if key == "seed" or str(key).startswith(f"{CONFIG}.") else f"{CONFIG}.{key}"


def _keys(changes: Any) -> Any:
    return (
        {_key(key): value for key, value in dotted(nested(changes)).items()} if isinstance(changes, dict) else changes
    )


def _parameter(value: Any) -> Any:
    if isinstance(value, dict) and isinstance(value.get("when"), dict):
        return {**value, "when": {_key(key): accepted for key, accepted in value["when"].items()}}
    return value
