"""The recipe of a model: defaults of its training; and which keys of a training the user has set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from routing.config.registry import DATASETS, MODELS
from routing.config.section import DatasetSection, ModelSection, Section, merge, nested
from routing.config.training import TrainingSection
from routing.errors import InputError


def fill(
    given: Any,
    model: ModelSection | None,
    dataset: DatasetSection | None,
    check: Callable[[Any], TrainingSection],
) -> TrainingSection:
    """Return the training with every key that ``given`` leaves open as in the recipe of the model, else the default.

    ``model_fields_set`` of the result, and of its sections, names what the user set.

    Args:
        model, dataset: None where they are invalid themselves; their own errors are reported.
        check: turns a mapping into the section.
    """
    if isinstance(given, TrainingSection):
        given = given.model_dump(exclude_unset=True)
    if not isinstance(given, dict) or model is None or dataset is None:
        return check(given)
    recipe = nested(model.recipe(dataset.task))
    section = check(merge(recipe, given))
    _keep_marks(section, _asked(section, recipe, given))
    return section


def asked(tree: dict[str, Any]) -> Any:
    """Return the keys of a nested run's training that the user has set, without those of the model's recipe.

    Only a training that has every key, as in the config.yaml of a run, needs a comparison: a value equal to the
    model's default counts as not set.
    """
    given = tree.get("training")
    if not isinstance(given, dict) or not _is_complete(given):
        return given
    try:
        model = MODELS.get(tree["model"]["name"]).model_validate(tree["model"])
        recipe = nested(model.recipe(DATASETS.get(tree["dataset"]["name"]).task))
        return _asked(TrainingSection.model_validate(given), recipe, given)
    except (InputError, KeyError, TypeError, ValidationError):  # not a valid run: its own check reports why
        return given


def _is_complete(given: dict[str, Any]) -> bool:
    return given.keys() >= TrainingSection.model_fields.keys()


def _asked(section: TrainingSection, recipe: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    if not _is_complete(given):
        return given
    default = TrainingSection.model_validate(recipe)
    return _difference(section.model_dump(mode="json"), default.model_dump(mode="json"))


def _difference(values: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    changed = {}
    for key, value in values.items():
        old = default.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            value, old = _difference(value, old), {}
        if value != old:
            changed[key] = value
    return changed


def _keep_marks(section: Section, own: dict[str, Any]) -> None:
    for name in type(section).model_fields:
        if name not in own:
            section.model_fields_set.discard(name)
        elif isinstance(inner := getattr(section, name), Section) and isinstance(own[name], dict):
            _keep_marks(inner, own[name])
