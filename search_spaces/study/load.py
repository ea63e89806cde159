"""Study files: from YAML to a checked ``Study``; every error is one line: file, line, key, nearest valid key."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from routing.config.names import is_of_script
from routing.config.plugins import import_plugins
from routing.config.registry import METRICS
from routing.config.run import RunConfig, is_key, valid_keys
from routing.config.section import dotted, merge, nested, one_value
from routing.errors import InputError, choices, nearest
from routing.files.yaml_io import Lines, load_file
from routing.quantities import OUR_TASKS, find, reported_by
from search_spaces.study.messages import Places, first_problem, why_unknown
from search_spaces.study.overrides import with_base
from search_spaces.study.parameters import at_quantile, contains, is_constant
from search_spaces.study.registry import SAMPLERS
from search_spaces.study.schema import AblationStudy, Parameter, Study, SweepStudy, constraints_of
from search_spaces.study.script import ScriptAblationStudy, ScriptStudy, ScriptSweepStudy
from search_spaces.study.script_check import check_script
from search_spaces.study.shipped import found, shipped
from search_spaces.study.space import Space

KINDS: dict[str, type[SweepStudy] | type[AblationStudy]] = {"sweep": SweepStudy, "ablation": AblationStudy}
SCRIPT_KINDS: dict[str, type[SweepStudy] | type[AblationStudy]] = {
    "sweep": ScriptSweepStudy,
    "ablation": ScriptAblationStudy,
}
"""Studies of a training script of the user's."""


def studies() -> list[dict[str, Any]]:
    """Return name, kind, question, trials and cost of every shipped study."""
    from search_spaces.study.ablation import planned_trials

    rows = []
    for name, path in shipped().items():
        study = load_study(path)
        rows.append(
            {
                "name": name,
                "kind": study.kind,
                "question": study.question,
                "trials": planned_trials(study),
                "cost": study.cost,
            }
        )
    return rows


def load_study(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> Study:
    """Read a study from a file, a results folder, or a shipped one by its name (``digits``).

    A bare name that is shipped means that, also beside a results folder of the same name: ``./digits`` is the folder.

    Args:
        overrides: ``["--base.training.num_epochs", "1"]`` is laid over the base of the file.
        base: the same as values by dotted key.

    Raises:
        InputError: one line with file, line, key and what would be valid.
    """
    file = found(path)
    values, lines = load_file(file)
    if isinstance(values, dict) and (overrides or base):
        declared = values.get("base")
        import_plugins(declared.get("plugins") if isinstance(declared, dict) else None, file)
        values = with_base(values, overrides, base or {})
    return parse_study(values, str(path) if Path(path).exists() else file.name, lines, source=file)


def parse_study(values: Any, where: str = "study", lines: Lines | None = None, source: Path | None = None) -> Study:
    """Check the content of a study file, by default one of our own making; see ``load_study``."""
    place = Places(where, lines or {})
    if not isinstance(values, dict):
        found = "empty" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{where}: a study is a mapping with kind, name, base, space, ...; this is {found}")
    base = values.get("base")
    import_plugins(base.get("plugins") if isinstance(base, dict) else None, source)
    try:
        values = _text_keys(values, place)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    kind = values.get("kind")
    if (
        kind is None
        and source is not None
        and {"model", "dataset", "training"} & {str(k).split(".")[0] for k in values}
    ):
        raise InputError(f"{where}: this is a run, not a study; write routing train --config {where}")
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind), KINDS) if kind is not None else "; the key is missing"
        raise InputError(f"{place('kind')}: unknown kind {kind!r}{hint} (valid: {choices(KINDS)})")
    declared = (SCRIPT_KINDS if is_of_script(values) else KINDS)[kind]
    try:
        study: Study = declared.model_validate(values)
    except ValidationError as error:
        raise InputError(first_problem(error, declared, place)) from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply") from None
    if isinstance(study, ScriptStudy):
        check_script(study, place, source)
    elif isinstance(study, SweepStudy):
        _check_sweep(study, place)
    else:
        _check_ablation(study, place)
    return study


def _text_keys(value: Any, place: Places, path: tuple[Any, ...] = ()) -> Any:
    """Return a value with every key as text: YAML reads a bare ``1:`` or ``null:`` as something else.

    A schedule of token reduction, whose keys are blocks, becomes one value (see ``one_value``).
    """
    if isinstance(value, list):
        return [_text_keys(inner, place, (*path, index)) for index, inner in enumerate(value)]
    if not isinstance(value, dict):
        return value
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{place(*path)}: key {key!r} is not text; write it in quotes")
    found = {}
    for key, inner in value.items():
        name = str(path[-1]) if key in ("choice", "value") and path else key
        schedules = [one_value(name, each) for each in (inner if isinstance(inner, list) else [inner])]
        found[key] = _text_keys(schedules if isinstance(inner, list) else schedules[0], place, (*path, key))
    return found


def _at(where: str, error: InputError) -> InputError:
    """Return the error with its place in front."""
    return InputError(f"{where}: {error}")


def _flat_base(study: Study, place: Places) -> dict[str, Any]:
    try:
        return dotted(nested(study.base))
    except InputError as error:
        raise _at(place("base"), error) from None


def _check_keys(study: Study, names: dict[str, list[str]], keys: dict[str, str]) -> None:
    """Every key must exist for at least one of the models and data sets the study uses."""
    known: dict[str, None] = {}
    for model in names["model.name"]:
        for dataset in names["dataset.name"]:
            known |= dict.fromkeys(valid_keys({"model": {"name": model}, "dataset": {"name": dataset}}))
    for key, where in keys.items():
        if not is_key(key, known):
            raise InputError(f"{where}: {why_unknown(key, list(known), names)}")


def _names_used(base: dict[str, Any], space: dict[str, Parameter]) -> dict[str, list[str]]:
    """Return the models and data sets a study can come upon."""
    used = {}
    for key, default in (("model.name", "attention_routing"), ("dataset.name", "digits")):
        parameter = space.get(key)
        if parameter is None:
            used[key] = [str(base.get(key, default))]
        else:
            used[key] = [str(value) for value in (parameter.choice or [parameter.value])]
    return used


def _check_names(names: dict[str, list[str]], place: Places, owner: dict[str, tuple[str, str]]) -> None:
    from routing.config.registry import DATASETS, MODELS

    for key, registry in (("model.name", MODELS), ("dataset.name", DATASETS)):
        for name in names[key]:
            try:
                registry.check(name)
            except InputError as error:
                raise _at(place(*owner.get(key, ("base", key))), error) from None


def _check_sweep(study: SweepStudy, place: Places) -> None:
    base = _flat_base(study, place)
    names = _names_used(base, study.space)
    _check_names(names, place, {key: ("space", key) for key in study.space})
    keys = {key: place("base", key) for key in base} | {key: place("space", key) for key in study.space}
    _check_keys(study, names, keys)
    try:
        space = Space(study.space, study.base)
    except InputError as error:
        raise _at(place("space", str(error).split(":")[0]), error) from None
    _check_runs(space, study, place)
    used = [
        {"model.name": model, "dataset.name": data} for model in names["model.name"] for data in names["dataset.name"]
    ]
    _check_base(space, used, place)
    for index, setting in enumerate(study.enqueue):
        _check_enqueued(space, setting, place("enqueue", index))
    _check_sampler(study, space, place)


def _check_runs(space: Space, study: Study, place: Places) -> None:
    """Build the runs at the corners of the space; the error names the parameter where it can."""
    seen: dict[str, dict[str, Any]] = {}
    for setting in space.corners():
        names = {key: [str(value)] for key, value in space.names(setting).items()}
        known = valid_keys(nested({key: used[0] for key, used in names.items()}))
        for key in setting:
            if not is_key(key, known):
                why = why_unknown(key, known, names)
                raise InputError(f"{place('space', key)}: {why}; give '{key}' a when")
        try:
            config = space.config(setting)
        except InputError as error:
            text = str(error).removeprefix("config: ")
            named = next((key for key in [*setting, *space.base] if key in text), None)
            where = place("space", named) if named in setting else place("base", *([named] if named else []))
            raise InputError(f"{where}: {text}") from None
        _check_reported(study, config, place)
        _check_values(space, setting, config, seen, place)


def _check_values(
    space: Space, setting: dict[str, Any], config: RunConfig, seen: dict[str, dict[str, Any]], place: Places
) -> None:
    """Values are compared by the run they make: 64 and 64.0 are one choice; a whole number has no float range.

    Args:
        seen: of every parameter, a value in the run -> the choice that made it; what is found is added.
    """
    run = config.dotted()
    for key, value in setting.items():
        parameter, found = space.parameters[key], run.get(key)
        if parameter.float_range is not None and isinstance(found, int):
            low, high = parameter.float_range
            raise InputError(
                f"{place('space', key)}: {key} is a whole number; write int: [{math.ceil(low)}, {math.floor(high)}]"
            )
        if parameter.choice is not None and key in run:
            first = seen.setdefault(key, {}).setdefault(repr(found), value)
            if repr(first) != repr(value):
                raise InputError(f"{place('space', key)}: {key}: the choices {first!r} and {value!r} are the same run")


def _check_reported(study: Study, config: RunConfig, place: Places) -> None:
    """A run must report what is optimised or limited; otherwise it would be trained to the end and fail then."""
    task, evaluation = config.dataset.task, config.evaluation
    reported = [f"val_{name}" for name in dict.fromkeys((*reported_by(task), *evaluation.metrics))]
    wanted = [(one.metric, place("objectives", index)) for index, one in enumerate(study.objectives)]
    wanted += [(one.metric, place("constraints", index)) for index, one in enumerate(constraints_of(study))]
    for name, where in wanted:
        known = find(name)
        if known is not None and known.is_cost:
            if known.on_request and name not in evaluation.costs:
                raise InputError(f"{where}: runs report no {name}; evaluation.costs: [{name}] in the base adds it")
            continue
        if name in reported or task not in OUR_TASKS:  # a task of a plugin reports what it likes
            continue
        further = name.removeprefix("val_")
        hint = f"; evaluation.metrics: [{further}] in the base adds it" if further in METRICS else ""
        raise InputError(
            f"{where}: runs on dataset.name '{config.dataset.name}', whose task is {task}, report "
            f"no {name} (valid: {choices(reported)}){hint}"
        )


def _check_base(space: Space, used: list[dict[str, Any]], place: Places) -> None:
    """Raise ``InputError`` for a value of the base that no model and data set of the study can have.

    Where the base itself is of another model than a run, what the run's cannot have is left out of it.

    Args:
        used: ``model.name`` and ``dataset.name`` of the runs.
    """
    trees = [space.tree(names) for names in used]
    flat = [dotted(tree) for tree in trees]
    lost = {
        key: value
        for key, value in space.base.items()
        if key.startswith(("model.", "dataset."))
        and key not in used[0]
        and not any(key in tree and tree[key] == value for tree in flat)
    }
    for names, tree in zip(used, trees, strict=True):
        own = {key: lost[key] for key in valid_keys(nested(names)) if key in lost}
        why = _why_not(merge(tree, nested(own))) if own else None
        if why is not None and why != _why_not(tree):
            named = next((key for key in own if key in why), next(iter(own)))
            raise InputError(f"{place('base', named)}: {why}")


def _why_not(tree: dict[str, Any]) -> str | None:
    """Return why this is no run, None where it is one."""
    try:
        RunConfig.from_dict(tree)
    except InputError as error:
        return str(error).removeprefix("config: ")
    return None


def _check_enqueued(space: Space, setting: dict[str, Any], where: str) -> None:
    for key, value in setting.items():
        if key not in space.parameters:
            known = choices(space.parameters)
            raise InputError(f"{where}: enqueue: '{key}' is not in the space{nearest(key, space.parameters)} ({known})")
        if not contains(space.parameters[key], value):
            raise InputError(f"{where}: enqueue: {key} is never {value!r} in this space")
        for parent in space.parameters[key].when:
            if parent not in setting and not is_constant(space.parameters[parent]):
                raise InputError(f"{where}: enqueue: {key} has a when; give {parent}, which decides about it, too")
    values = space.decide(lambda name, p: setting[name] if name in setting else at_quantile(p, 0.0))
    inactive = [key for key in setting if key not in values]
    if inactive:
        raise InputError(f"{where}: enqueue: '{inactive[0]}' is given, but its when does not hold in this setting")


def _check_sampler(study: SweepStudy, space: Space, place: Places) -> None:
    """Let the sampler refuse a space or objectives that it does not support: too many combinations of a grid, say."""
    try:
        SAMPLERS.get(study.sampler.name).of(study.sampler, space, study.objectives)
    except InputError as error:
        raise _at(place("sampler"), error) from None


def _check_ablation(study: AblationStudy, place: Places) -> None:
    from search_spaces.study.ablation import declared_arms

    base = _flat_base(study, place)
    try:
        declared = declared_arms(study)
    except InputError as error:
        raise _at(place("factors"), error) from None
    configs: dict[str, RunConfig] = {}
    used: list[dict[str, Any]] = []
    for arm in declared:
        where = place("factors", *arm.path) if arm.path else place("base")
        flat = dotted(nested({**base, **arm.changes}))
        names = _names_used(flat, {})
        _check_names(names, place, {"model.name": ("factors", *arm.path)} if arm.path else {})  # type: ignore[dict-item]
        known = set(valid_keys(nested({key: used[0] for key, used in names.items()})))
        for key in dotted(nested(arm.changes)):
            if not is_key(key, known):
                raise InputError(f"{where}: arm '{arm.name}': {why_unknown(key, list(known), names)}")
        try:
            config = arm.config(study, study.seeds[0])
        except InputError as error:
            text = str(error).removeprefix("config: ")
            raise InputError(f"{where}: arm '{arm.name}': {text}") from None
        _check_reported(study, config, place)
        same = next((name for name, other in configs.items() if other == config), None)
        if same is not None:
            raise InputError(f"{where}: duplicate arms: '{same}' and '{arm.name}' are the same run")
        configs[arm.name] = config
        own = {key: values[0] for key, values in names.items()}
        used += [own] if own not in used else []
    _check_base(Space({}, study.base), used, place)
