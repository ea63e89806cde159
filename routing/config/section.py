"""The base of every configuration section: frozen, unknown keys are errors, every field has a description."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from routing.config.names import ROUTED_MODEL
from routing.config.registry import Registry, resolve
from routing.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from routing.config.preprocessing import Preprocessing
    from routing.data import DataInfo, ImageData
    from routing.models.base import VisionModel


class Section(BaseModel):
    """A frozen group of settings; a key it does not declare is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="after")
    @classmethod
    def _at_home(cls, value: Any) -> Any:
        """Expand ``~`` in paths: a shell does not do it inside ``key=~/data``, and a file never does."""
        if isinstance(value, Path):
            return Path(os.path.expanduser(value))
        return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~/") else value


def registered(names: Registry, *further: str) -> AfterValidator:
    """Return the check of a field that holds a name of a registry, or one of ``further``."""

    def check(name: str) -> str:
        try:
            return name if name in further else names.check(name)
        except InputError as error:
            raise ValueError(str(error)) from None

    return AfterValidator(check)


class DatasetSection(Section):
    """Base configuration of data sets; each one is a subclass with its own fields and a ``reader``.

    ``reader`` names the module whose ``load(section)`` and ``info(section)`` read it; a plugin may override ``load``
    and ``info`` instead. ``task`` is the task its targets are for. ``how`` names the fields that say how data are
    read: they do not tell one training from another.
    """

    task: ClassVar[str] = "classification"
    reader: ClassVar[str | None] = None
    how: ClassVar[tuple[str, ...]] = ()

    name: str = Field(description="Name of the data set.")
    input_size: int = Field(ge=4, le=4096, description="Height and width of an image in pixels.")
    patch_grid_size: int = Field(default=4, ge=1, le=256, description="Patches per side; must divide input_size.")
    patch_margin: int = Field(default=0, ge=0, le=256, description="Context around each patch in pixels, every side.")
    seed: int = Field(default=0, ge=0, description="Seed of what is drawn or split; apart from the run's seed.")

    @model_validator(mode="after")
    def _grid_divides_image(self) -> DatasetSection:
        if self.input_size % self.patch_grid_size:
            valid = [g for g in range(1, self.input_size + 1) if self.input_size % g == 0]
            raise ValueError(
                f"dataset.patch_grid_size {self.patch_grid_size} does not divide dataset.input_size "
                f"{self.input_size} (valid: {', '.join(map(str, valid))})"
            )
        return self

    def load(self) -> ImageData:
        """Return the data, every split as uint8; raises ``InputError`` where it cannot be found."""
        loaded: ImageData = self._read_by("load")(self)
        return loaded

    def info(self) -> DataInfo:
        """Return the properties of the data that a model needs (channels, classes, ...), without loading images."""
        described: DataInfo = self._read_by("info")(self)
        return described

    def describe(self) -> str:
        """Return one line on splits and where they come from, without loading images; "" where none is needed."""
        if self.reader is None:
            return ""
        line: str = getattr(import_module(self.reader), "describe", lambda section: "")(self)
        return line

    def check(self) -> None:
        """Raise ``InputError`` where the data cannot be found on this machine; by default where ``info`` does not."""
        self.info()

    def check_for_nodes(self) -> None:
        """Raise ``InputError`` where trials on any node would fail, before one is sent there."""
        self.info()

    def read_file(self, path: str) -> NDArray[np.uint8] | None:
        """Return the pixels (C, H, W) of an image file, as training reads such files; None where it reads none."""
        view = self.view()
        if view is None:
            return None
        if view.bit_depth is None:
            decode = import_module("routing.data.decode")
            if decode.brightest(path):
                raise decode.DamagedImage("more than 8 bits per value, and dataset.bit_depth is auto; convert it to 8")
        pixels: NDArray[np.uint8] = view.read(path)
        return pixels

    def fit(self, image: Image) -> NDArray[np.uint8] | None:
        """Return the pixels of a PIL image as those of a file; None where training reads no files."""
        view = self.view()
        if view is None:
            return None
        pixels: NDArray[np.uint8] = view.fit(image)
        return pixels

    def fit_array(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Return pixels (C, H, W) at the size of training, made so as training does; None where it resizes nothing."""
        return None

    def view(self) -> Any:
        """Return how a data set of image files reads them (``routing.data.view``); None where it reads none."""
        find = None if self.reader is None else getattr(import_module(self.reader), "view_of", None)
        return None if find is None else find(self)

    def _read_by(self, function: str) -> Callable[[DatasetSection], Any]:
        if self.reader is None:
            raise InputError(f"data set '{self.name}' has no reader and no '{function}' of its own")
        read: Callable[[DatasetSection], Any] = resolve(f"{self.reader}:{function}")
        return read


class ModelSection(Section):
    """Base configuration of models; each one is a subclass with its own fields that names the class it ``builds``.

    ``builds`` names a class that is called with the section and a ``DataInfo``; a plugin may override ``build``
    instead. ``tasks`` are those it can be trained for. ``after_training`` names the fields that act in evaluation only
    and are ignored when two trainings are compared. ``has_stages`` is True of a model that can be cut into stages
    (``VisionModel.chain``), so that images can leave it early. ``is_baseline`` is True of a dense model that routed
    ones are compared with; tables and figures set it apart.

    ``routing compare``: ``full_compute`` names the model whose cost counts as all of it (None: each model's own
    ``dense_flops``), ``routed_model`` the one that a router mode given without a model stands for,
    ``budget_key`` the key of a budget that is set to the cost of the model it is compared with.
    """

    builds: ClassVar[str | None] = None
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    after_training: ClassVar[tuple[str, ...]] = ()
    has_stages: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = False
    full_compute: ClassVar[str | None] = None
    routed_model: ClassVar[str] = ROUTED_MODEL
    budget_key: ClassVar[str | None] = None

    name: str = Field(description="Name of the model.")

    def recipe(self, task: str) -> dict[str, Any]:
        """Return the defaults of ``training`` for this model on a task; keys that the user sets override them.

        Keys may be dotted or nested (``{"optimizer": "sgd", "augment.crop": 2}``), and values may depend on the
        section's own. Keys left out have the defaults of ``TrainingSection``.
        """
        return {}

    @property
    def label(self) -> str:
        """Label of the model in a comparison: its name, or the setting that tells it apart from others of that name."""
        return self.name

    def preprocessing(self) -> Preprocessing | None:
        """Return how its pretrained weights were trained to see images; None for a model that has none elsewhere."""
        return None

    def with_library_config(self, config: dict[str, Any]) -> ModelSection:
        """Return the section of a run that kept what its library built the model from (``library_config`` of it)."""
        return self

    def compared_with(self) -> tuple[str, ...]:
        """Return the models and router modes that ``routing compare`` puts beside it by default."""
        return ()

    def check(self, info: DataInfo, plugins: Sequence[str]) -> None:
        """Raise ``InputError`` where a sweep of this model cannot work; asked before its first trial.

        Args:
            plugins: modules that its workers import.
        """

    def build(self, info: DataInfo) -> VisionModel:
        """Return the untrained module for data of this shape."""
        if self.builds is None:
            raise InputError(f"model '{self.name}' does not say what it builds")
        model: VisionModel = resolve(self.builds)(self, info)
        return model


class UnknownName(ValueError):
    """Carries a registry's one-line message through pydantic unchanged."""


def by_name(registry: Registry, default: str) -> Callable[[Any], Any]:
    """Return a validator that turns ``{"name": n, ...}`` into the section registered as ``n``."""

    def parse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        name = value.get("name", default)
        if not isinstance(name, str) or name not in registry:
            raise UnknownName(registry.unknown(name))
        return registry.get(name).model_validate(value)

    return parse


def dotted(section: BaseModel | dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a section to ``{"model.router.mode": "top_k", ...}``; lists stay values."""
    items = section.model_dump(mode="json") if isinstance(section, BaseModel) else section
    flat: dict[str, Any] = {}
    for key, value in items.items():
        if isinstance(value, dict):
            flat.update(dotted(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Inverse of ``dotted``: ``{"a.b": 1}`` to ``{"a": {"b": 1}}``; deeper keys win over shallower ones."""
    tree: dict[str, Any] = {}
    for key, value in sorted(((str(key), value) for key, value in flat.items()), key=lambda item: item[0].count(".")):
        node = tree
        *parents, leaf = key.split(".")
        value = one_value(leaf, value)
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise InputError(f"key '{key}' goes below '{parent}', which is a value: {child!r}")
            node = child
        if isinstance(value, dict) and isinstance(node.get(leaf), dict):
            node[leaf].update(nested(value))
        else:
            node[leaf] = nested(value) if isinstance(value, dict) else value
    return tree


def one_value(key: str, value: Any) -> Any:
    """Return a schedule of token reduction, ``{4: 0.7, 7: 0.7}``, as text: it is one value, and no section.

    Left as a mapping, a change of it would be laid over it block by block.
    """
    is_schedule = key.split(".")[-1] == "schedule" and isinstance(value, dict) and value
    if not is_schedule or not all(str(block).isdigit() for block in value):
        return value
    return "/".join(f"{stay}@{block}" for block, stay in value.items())


def merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``change`` laid over it, both nested; neither is modified."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
