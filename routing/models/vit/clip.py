"""open_clip models (optional extra ``clip``): loading, preparing images, and class embeddings from prompts.

Shapes: B images, C classes, P prompts per class, E width of the joint embedding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from routing.data.view import View
from routing.errors import InputError, MissingPackage, nearest
from routing.models.preprocessing import open_clip_view
from routing.models.pretrained import one_line

RANDOM_WEIGHTS, DEFAULT_WEIGHTS = "random", "default"
_BRING_WEIGHTS = ("hf-hub:", "local-dir:")
"""Names of open_clip whose weights come along."""
_TOKENIZER_PACKAGES = ("sentencepiece", "tiktoken", "protobuf", "tokenizers", "transformers")
CLASSES_AT_ONCE = 16


@dataclass(frozen=True)
class ClipModel:
    """A loaded model. mean and std are per channel, of pixels in [0, 1]; view: how it takes image files."""

    model: nn.Module
    tokenizer: Any
    view: View
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.view.height, self.view.width

    @property
    def tower(self) -> nn.Module:
        """The vision tower."""
        visual = self.model.visual
        assert isinstance(visual, nn.Module)
        return visual

    def prepare(self, images: Tensor) -> Tensor:
        """Turn uint8 images (B, 1 or 3, H, W) into what the tower takes; those of another size are resized, bicubic."""
        pixels = images.float().expand(-1, 3, -1, -1) / 255
        if pixels.shape[2:] != self.image_size:
            pixels = F.interpolate(pixels, self.image_size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (pixels - mean) / std

    @torch.no_grad()
    def class_embeddings(self, class_names: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return one unit vector per class (E, C): the mean of its prompts' unit vectors, made unit again."""
        device = next(self.model.parameters()).device
        columns = []
        for start in range(0, len(class_names), CLASSES_AT_ONCE):
            names = [name.replace("_", " ") for name in class_names[start : start + CLASSES_AT_ONCE]]
            prompts = [fill(template, name) for name in names for template in templates]
            embedded = self.model.encode_text(self.tokenizer(prompts).to(device), normalize=True)
            columns.append(F.normalize(embedded.view(len(names), len(templates), -1).mean(dim=1), dim=1).T)
        return torch.cat(columns, dim=1)

    def logits(self, images: Tensor, classes_EC: Tensor) -> Tensor:
        """Return 100 x cosine between prepared images and classes (B, C)."""
        found = self.tower(images)
        features_BE = found[0] if isinstance(found, tuple) else found  # some towers return their tokens too
        return 100 * F.normalize(features_BE.float(), dim=1) @ classes_EC.float()


def fill(template: str, name: str) -> str:
    """Put a class name into a prompt, at ``{}`` or ``{c}``."""
    return template.replace("{c}", name).replace("{}", name)


def load_clip(name: str, pretrained: str, device: torch.device, seed: int = 0) -> ClipModel:
    """Load an open_clip model.

    Args:
        name: open_clip's name (``ViT-B-32``, ``hf-hub:ORGANISATION/NAME``, ``local-dir:FOLDER``), or a .json file with
            an open_clip model configuration.
        pretrained: open_clip's tag (``openai``), a file of weights, or ``random`` for untrained weights; ``default``
            for those that a ``hf-hub:`` or ``local-dir:`` name brings.

    Raises:
        InputError: open_clip is not installed, no such model or weights, or the weights cannot be had.
    """
    try:
        import open_clip
    except ImportError:
        raise InputError("open_clip is not installed; pip install 'routing-sweeps[clip]'") from None
    name = _known_name(open_clip, name)
    weights = _known_weights(open_clip, name, pretrained)
    tokenizer = _tokenizer(open_clip, name)
    torch.manual_seed(seed)
    logging.disable(logging.ERROR)  # open_clip repeats on the root logger what is said below
    try:
        # OpenAI's and others' weights were trained with another GELU than the model of that name now has
        quick = bool(weights and open_clip.get_pretrained_cfg(name, weights).get("quick_gelu"))
        model = open_clip.create_model(
            name,
            pretrained=weights,
            load_weights=pretrained != RANDOM_WEIGHTS,
            device=device,
            force_quick_gelu=quick,
        )
    except Exception as error:  # its loaders raise whatever their downloaders and unpicklers raise
        raise InputError(
            f"--pretrained {pretrained}: weights of {name} cannot be loaded: {one_line(error)}; give a file of "
            f"weights, or {RANDOM_WEIGHTS}"
        ) from None
    finally:
        logging.disable(logging.NOTSET)
    settings = open_clip.get_model_preprocess_cfg(model)
    return ClipModel(
        model.eval(),
        tokenizer,
        View(**open_clip_view(settings)),
        tuple(settings.get("mean", open_clip.OPENAI_DATASET_MEAN)),
        tuple(settings.get("std", open_clip.OPENAI_DATASET_STD)),
    )


def _tokenizer(open_clip: Any, name: str) -> Any:
    """Return the tokenizer; asked for before the weights, which take longer to fail."""
    logging.disable(logging.ERROR)
    try:
        return open_clip.get_tokenizer(name)
    except Exception as error:  # transformers raises whatever its converters and downloaders raise
        text = f"{getattr(error, 'name', '')} {error}".lower()
        package = next((package for package in _TOKENIZER_PACKAGES if package in text), None)
        if isinstance(error, (ImportError, ValueError)) and package is not None:
            raise MissingPackage(
                f"--model {name}: its tokenizer needs the package {package}; pip install {package}"
            ) from None
        raise InputError(f"--model {name}: its tokenizer cannot be loaded: {one_line(error)[:200]}") from None
    finally:
        logging.disable(logging.NOTSET)


def _known_name(open_clip: Any, name: str) -> str:
    if name.startswith(_BRING_WEIGHTS):
        return name
    if name.endswith(".json"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"--model {name}: no such file")
        try:
            open_clip.add_model_config(path)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"--model {name}: not a readable JSON file: {one_line(error)}") from None
        if open_clip.get_model_config(path.stem) is None:
            raise InputError(f"--model {name}: not an open_clip model configuration (embed_dim, vision_cfg, text_cfg)")
        return path.stem
    known = open_clip.list_models()
    if name not in known:
        raise InputError(
            f"--model '{name}': open_clip has no such model{nearest(name, known)} ({len(known)} models, as "
            "ViT-B-32; or a .json configuration)"
        )
    return name


def _known_weights(open_clip: Any, name: str, pretrained: str) -> str | None:
    if pretrained == RANDOM_WEIGHTS or (pretrained == DEFAULT_WEIGHTS and name.startswith(_BRING_WEIGHTS)):
        return None
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags and not Path(pretrained).is_file():
        own = [DEFAULT_WEIGHTS] if name.startswith(_BRING_WEIGHTS) else tags
        valid = ", ".join([*own, "a file of weights", RANDOM_WEIGHTS])
        raise InputError(
            f"--pretrained '{pretrained}': no such weights of {name}{nearest(pretrained, tags)} (valid: {valid})"
        )
    return pretrained
