"""What is known to be wrong with a study of a script before its first trial."""

from __future__ import annotations

from pathlib import Path

from routing.config.script import ScriptRun, check_command, function, imported
from routing.config.section import dotted
from routing.errors import InputError
from search_spaces.study.ablation import declared_arms
from search_spaces.study.messages import Places
from search_spaces.study.parameters import contains
from search_spaces.study.registry import SAMPLERS
from search_spaces.study.schema import AblationStudy, SweepStudy
from search_spaces.study.script import ScriptStudy, space_of


def check_script(study: ScriptStudy, place: Places, source: Path | None) -> None:
    """Raise ``InputError`` for a script that cannot be called, or keys that its class does not take."""
    try:
        for path, what in ((study.run, "run"), (study.evaluate, "evaluate")):
            if path is not None:
                function(path, what, ("seed", "out") if what == "evaluate" else ("report", "seed", "out"), source)
        if study.config is not None:
            imported(study.config, "config", source)
        settings = _settings(study, place)
        for run in settings:
            if study.command is not None:
                check_command(study.command, dotted(run.config))
            if isinstance(study.steps, str) and run.steps is None:
                raise InputError(f"steps: no key '{study.steps}' (valid: a whole number, or a key of base or space)")
    except InputError as error:
        where = place()
        raise error if str(error).startswith(where) else InputError(f"{where}: {error}") from None


def _settings(study: ScriptStudy, place: Places) -> list[ScriptRun]:
    if not isinstance(study, SweepStudy):
        assert isinstance(study, AblationStudy)
        return [arm.config(study, study.seeds[0]) for arm in declared_arms(study)]  # type: ignore[misc]
    space = space_of(study)
    for index, setting in enumerate(study.enqueue):
        for key, value in setting.items():
            if key not in space.parameters or not contains(space.parameters[key], value):
                raise InputError(f"{place('enqueue', index)}: enqueue: {key} is never {value!r} in this space")
    SAMPLERS.get(study.sampler.name).of(study.sampler, space, study.objectives)
    return [space.config(setting) for setting in space.corners()]  # type: ignore[misc]
