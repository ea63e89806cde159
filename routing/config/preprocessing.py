"""How a model was trained to see images, and ``dataset.resize: auto``, which prepares them in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from routing.config.registry import DATASETS, MODELS
from routing.config.section import DatasetSection, ModelSection, UnknownName, by_name
from routing.errors import InputError, choices
from routing.files.results_folder import BEST_FILE, CONFIG_FILE, MODEL_FILE
from routing.files.yaml_io import load_file

AUTO = "auto"
KEYS = ("input_size", "resize", "crop_pct", "interpolation", "mean", "std")
"""Keys of a data set of photographs that say how one becomes pixels."""

WITHOUT_OWN = {"resize": "shortest"}
"""What ``auto`` is for a model whose library or weights say nothing on images."""


@dataclass(frozen=True)
class Preprocessing:
    """``values`` of some of ``KEYS`` that a model was trained with; ``source`` says where they stand.

    ``is_renormalised``: the model itself undoes the data set's ``mean`` and ``std`` and applies its own.
    """

    source: str
    values: Mapping[str, Any]
    is_renormalised: bool = False


def own_preprocessing(model: ModelSection) -> Preprocessing | None:
    """Return how a model's weights were trained to see images: as the run they are from, or as its library says."""
    weights = getattr(model, "weights", None)
    return (None if weights is None else _of_run(Path(weights))) or model.preprocessing()


def resolve_auto(values: dict[str, Any]) -> dict[str, Any]:
    """Return a nested run with the model's own values for ``dataset.resize: auto``; other keys that are given stay.

    Raises:
        InputError: the model's library, which knows them, is not installed.
    """
    dataset = values.get("dataset")
    given = dataset.model_dump(exclude_unset=True) if isinstance(dataset, DatasetSection) else dataset
    if not isinstance(given, dict) or given.get("resize") != AUTO or not _is_prepared(given.get("name")):
        return values
    try:
        model = by_name(MODELS, "attention_routing")(values.get("model", {}))
    except (ValidationError, UnknownName):  # the check of the model itself reports it
        return values
    own = own_preprocessing(model) if isinstance(model, ModelSection) else None
    found = dict(WITHOUT_OWN if own is None else own.values)
    resolved = {**found, **given, "resize": found.get("resize", WITHOUT_OWN["resize"])}
    if "input_size" not in given and "input_size" in found and "patch_grid_size" not in given:
        most = DATASETS.get(given["name"]).model_fields["patch_grid_size"].default
        side = found["input_size"]
        resolved["patch_grid_size"] = next(grid for grid in range(most, 0, -1) if side % grid == 0)
    return {**values, "dataset": resolved}


def preprocessing_line(model: ModelSection, dataset: DatasetSection) -> str:
    """Return one line on images that weights are given otherwise than they were trained with; "" where there is none.

    A mean or deviation that the model replaces by its own is not named.
    """
    own = own_preprocessing(model) if _is_prepared(dataset.name) and has_weights(model) else None
    if own is None:
        return ""
    replaced = ("mean", "std") if own.is_renormalised else ()
    other = {
        key: own.values[key]
        for key in KEYS
        if key in own.values and key not in replaced and not _same(getattr(dataset, key), own.values[key])
    }
    if not other:
        return f"images: prepared as {own.source} says"
    shown = choices([f"dataset.{key} {_shown(getattr(dataset, key))} (its own: {_shown(other[key])})" for key in other])
    return f"images: not as {own.source} says: {shown}"


def has_weights(model: ModelSection) -> bool:
    """Return whether a model, or the network or backbone inside it, starts from weights."""
    inside = (getattr(model, name, None) for name in ("network", "backbone"))
    return any(getattr(section, "weights", None) is not None for section in (model, *inside))


def _is_prepared(name: Any) -> bool:
    """Return whether a data set of this name has all of ``KEYS``."""
    return name in DATASETS and set(KEYS) <= DATASETS.get(name).model_fields.keys()


def _of_run(weights: Path) -> Preprocessing | None:
    """Return how the run that weights are from saw its images; None where they are of no run on photographs."""
    folder = weights.parent if weights.name in (MODEL_FILE, BEST_FILE) else weights
    if not (folder / CONFIG_FILE).is_file():
        return None
    try:
        dataset = load_file(folder / CONFIG_FILE)[0]["dataset"]
        if not _is_prepared(dataset["name"]):
            return None
        return Preprocessing(f"the run {folder}", {key: dataset[key] for key in KEYS if key in dataset})
    except (InputError, KeyError, TypeError):  # no run: loading its weights reports that
        return None


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, (tuple, list)):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return ours == theirs or (isinstance(ours, float) and abs(ours - theirs) < 1e-6)


def _shown(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(f"{number:g}" for number in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)
