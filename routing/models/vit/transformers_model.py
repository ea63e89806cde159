"""``transformers_vit``: Hugging Face's image classifiers on a plain vision transformer (extra ``transformers``).

Shapes: B images, T tokens (class and register tokens first), D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError, MissingPackage, choices
from routing.models.pretrained import (
    LIBRARY_CONFIG,
    check_channels,
    fitting,
    is_run,
    keep_own_statistics,
    load_run,
    load_state,
    one_line,
    renormalised,
)
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.host import Host
from routing.models.vit.model import check_patches
from routing.models.vit.section import TransformersVitSection
from routing.models.weight_files import FILE_TYPES, is_weights_file, read_state

_CLASSIFIERS = {
    "vit": "ViTForImageClassification",
    "dinov2": "Dinov2ForImageClassification",
    "dinov2_with_registers": "Dinov2WithRegistersForImageClassification",
    "clip": "CLIPForImageClassification",
    "clip_vision_model": "CLIPForImageClassification",
}
"""Kinds of model (``model_type`` of a configuration) and their classifiers, which read tokens each in its own way."""


class TransformersVit(TransformerClassifier):
    """An image classifier of transformers; grey images are repeated to three channels.

    Images are normalised as the ``preprocessor_config.json`` beside its weights says, where there is one.
    """

    def __init__(self, section: TransformersVitSection, info: DataInfo) -> None:
        check_channels(info)
        core = _classifier(section.architecture, info, section.config)
        self.kind = core.config.model_type
        super().__init__(core, section.pruning, (3, info.input_size, info.input_size))
        own = section.preprocessing() if section.config is None else None  # a run restores what it kept
        keep_own_statistics(self, info, None if own is None else (own.values["mean"], own.values["std"]))

    def initialise(self, section: TransformersVitSection) -> None:  # type: ignore[override]
        """Load ``model.weights``; positions are interpolated, a classifier of other classes is left as it is."""
        source = section.weights
        if source is None:
            return
        if is_run(source) and not (Path(source) / LIBRARY_CONFIG).is_file():
            load_run(self, source)
            return
        core = self.core
        assert isinstance(core, nn.Module)
        state = _pretrained(type(core), section.architecture, source)
        with fitting(section.name, section.architecture, f"model.weights {source}", state, "classifier."):
            load_state(self, core, _resampled(state, core.state_dict(), self.host), "classifier.")

    def library_config(self) -> dict[str, Any]:
        """The configuration as JSON has it."""
        found: dict[str, Any] = json.loads(self.core.config.to_json_string(use_diff=False))
        return found

    @property
    def tower(self) -> Any:
        """The network without its classifier."""
        return next(module for name, module in self.core.named_children() if name != "classifier")

    def embed(self, images: Tensor) -> Tensor:
        """The tower's embeddings; CLIP has a norm behind them."""
        tokens_BTD: Tensor = self.tower.embeddings(renormalised(self, images).expand(-1, 3, -1, -1))
        return self.tower.pre_layrnorm(tokens_BTD) if self.kind == "clip" else tokens_BTD

    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """As the library: of CLS (ViT), of CLS and the mean of patches (DINOv2), of the mean of patches (CLIP)."""
        first = self.host.prefix.count
        if self.kind == "clip":
            features_BD = tokens_BTD[:, first:].mean(dim=1)
        else:
            normed_BTD = self.tower.layernorm(tokens_BTD)
            features_BD = normed_BTD[:, 0]
            if self.kind != "vit":
                features_BD = torch.cat([features_BD, normed_BTD[:, first:].mean(dim=1)], dim=1)
        logits: Tensor = self.core.classifier(features_BD)
        return logits

    @property
    def reads_patches(self) -> bool:
        """Of all but ViT (see ``classify``)."""
        return bool(self.kind != "vit")

    def ends(self) -> tuple[nn.Module, nn.Module]:
        """Patch embedding and classifier."""
        embeddings = self.tower.embeddings
        patches = embeddings.patch_embedding if self.kind == "clip" else embeddings.patch_embeddings
        head = self.core.classifier
        assert isinstance(head, nn.Linear)
        return patches, OfTwo(head) if head.in_features == 2 * self.host.width else head


class OfTwo(nn.Module):
    """A classifier that reads two vectors of one width."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        logits: Tensor = self.head(torch.cat([features_BD, features_BD], dim=1))
        return logits


def _classifier(name: str, info: DataInfo, known: dict[str, Any] | None) -> Any:
    """Return the classifier of a configuration for images and classes of these data, untrained.

    Args:
        known: the configuration; None: it is read.

    Raises:
        MissingPackage: transformers is not installed.
        InputError: no such configuration, another kind of model, or patches that do not divide the image.
    """
    try:
        import transformers
    except ImportError:
        raise MissingPackage(
            "model.name transformers_vit needs transformers: pip install 'routing-sweeps[transformers]'"
        ) from None
    try:
        read = transformers.AutoConfig.from_pretrained
        config: Any = read(name) if known is None else transformers.AutoConfig.for_model(**known)
    except Exception as error:  # a hub that does not answer, or a folder without a configuration, raises anything
        raise InputError(
            f"model.architecture '{name}': no configuration of a model can be had ({one_line(error)}); give a folder "
            "with its config.json"
        ) from None
    if config.model_type not in _CLASSIFIERS:
        raise InputError(
            f"model.architecture {name}: a model of the kind '{config.model_type}' (valid: {choices(_CLASSIFIERS)})"
        )
    if config.model_type == "clip_vision_model":
        config = transformers.CLIPConfig(vision_config=config.to_dict())
    vision = config.vision_config if config.model_type == "clip" else config
    side = vision.patch_size if isinstance(vision.patch_size, int) else vision.patch_size[0]
    check_patches(name, side, info.input_size)
    vision.image_size, config.num_labels = info.input_size, info.num_outputs
    return getattr(transformers, _CLASSIFIERS[config.model_type])(config)


def _pretrained(kind: Any, name: str, source: str) -> dict[str, Tensor]:
    """Return the tensors of pretrained weights by the library's present names, without what it would have to draw.

    Raises:
        InputError: no such weights.
    """
    from transformers import AutoConfig

    is_file = is_weights_file(source)
    if not is_file and source != "DEFAULT" and not Path(source).is_dir():
        raise InputError(
            f"model.weights '{source}' (valid: DEFAULT, a run, a folder with config.json, or a {choices(FILE_TYPES)} "
            "file)"
        )
    where = name if source == "DEFAULT" or is_file else source
    options = {"state_dict": read_state(Path(source), "model.weights")} if is_file else {}
    try:
        config: Any = AutoConfig.from_pretrained(where)
        if config.model_type == "clip_vision_model":
            config = kind.config_class(vision_config=config.to_dict())
        classifier = options.get("state_dict", {}).get("classifier.weight")
        if classifier is not None:
            config.num_labels = len(classifier)
        with _quiet():
            model, said = kind.from_pretrained(
                None if is_file else where, config=config, output_loading_info=True, **options
            )
    except InputError:
        raise
    except Exception as error:  # its loaders raise whatever their downloaders and readers raise
        raise InputError(
            f"model.weights {source}: weights of {where} cannot be loaded ({one_line(error)}); give a folder with "
            "config.json and model.safetensors"
        ) from None
    drawn = set(said["missing_keys"]) | {key[0] for key in said.get("mismatched_keys", ())}
    return {key: value for key, value in model.state_dict().items() if key not in drawn}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's report on keys and its bars off the terminal; what matters of it is said here."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _resampled(state: dict[str, Tensor], wanted: Mapping[str, Tensor], host: Host) -> dict[str, Tensor]:
    """Return weights with positions (1 + N, D) interpolated to another grid, as the library does it."""
    found = dict(state)
    for key, positions in state.items():
        if "position_embedding" not in key or key not in wanted or positions.shape == wanted[key].shape:
            continue
        first, patches = positions.reshape(-1, positions.shape[-1]).split([1, positions.shape[-2] - 1])
        side = round(len(patches) ** 0.5)
        grid = patches.T.reshape(1, -1, side, side)
        antialias = host.prefix.count > 1  # the models with registers
        grid = F.interpolate(grid, host.grid, mode="bicubic", align_corners=False, antialias=antialias)
        found[key] = torch.cat([first, grid.flatten(2)[0].T]).reshape(wanted[key].shape)
    return found
