"""Configuration of ``routing zeroshot``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from routing.config.explain import explain_run, unknown_first
from routing.config.overrides import parse_overrides
from routing.config.registry import DATASETS
from routing.config.run import Dataset, DeviceName, valid_keys
from routing.config.section import Section, nested
from routing.errors import InputError, nearest
from routing.models.vit.clip import DEFAULT_WEIGHTS
from routing.models.vit.section import PruningSection
from routing.models.vit.token_pruning import Pruning


class ZeroshotConfig(Section):
    """What is classified, by what."""

    model: str = Field(
        description="open_clip's name of a model (ViT-B-32, hf-hub:ORGANISATION/NAME), or a .json model configuration."
    )
    pretrained: str = Field(
        default=DEFAULT_WEIGHTS,
        description="open_clip's tag of weights (openai), a file of weights, or random; hf-hub: names bring their own.",
    )
    dataset: Dataset = Field(default_factory=lambda: DATASETS.get("digits")())
    split: Literal["val", "test", "train"] = Field(default="val", description="Images that are classified.")
    templates: Path | None = Field(default=None, description="Prompts, {} for the class: one a line, or JSON.")
    class_names: Path | None = Field(
        default=None, description="Names of the classes, by their numbers: one a line, or JSON as of clip_benchmark."
    )
    batch_size: int = Field(default=64, ge=1, le=65536, description="Images per forward pass.")
    limit: int | None = Field(default=None, ge=1, description="At most this many images, from the start of the split.")
    device: DeviceName = Field(default="auto", description="auto, cpu, cuda[:N], mps.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Of weights and images of the tower.")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of random weights.")
    pruning: PruningSection = PruningSection()

    @classmethod
    def from_overrides(cls, overrides: Sequence[str]) -> ZeroshotConfig:
        """Read ``["--model", "ViT-B-32", "--pruning.k_anchors", "10", ...]``; a pruning key switches pruning on."""
        changes = parse_overrides(overrides, cls)
        if any(key.startswith("pruning.") for key in changes):
            changes.setdefault("pruning.method", "importance_diversity")
        tree = nested(changes)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            first = unknown_first(error)[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                raise InputError(f"unknown key '{key}'{nearest(key, _keys(tree))}") from None
            raise InputError(explain_run(error, tree, valid_keys(tree))) from None

    def setting(self) -> Pruning | None:
        """Return the pruning setting, or None."""
        return Pruning.of(self.pruning)


def _keys(tree: dict[str, Any]) -> list[str]:
    dataset = [key for key in valid_keys(tree) if key.startswith("dataset.")]
    return [*ZeroshotConfig.model_fields, *dataset, *(f"pruning.{key}" for key in PruningSection.model_fields)]
