"""``vit``, ``torchvision_vit`` and ``timm_vit``: how the networks are built, entered and left.

Shapes: B images, T tokens (those before the patches first), N patches, D width.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.pretrained import (
    check_channels,
    keep_own_statistics,
    load_pretrained,
    load_run,
    one_line,
    renormalised,
)
from routing.models.timm_library import timm_state, timm_with
from routing.models.torchvision_library import keep_statistics, torchvision_state
from routing.models.vit.classifier import TransformerClassifier
from routing.models.vit.hosts import host_of
from routing.models.vit.network import VisionTransformer
from routing.models.vit.section import TimmVitSection, TorchvisionVitSection, VitSection, VitShape
from routing.models.vit.timm_hosts import TimmHost

_TIMM_NAMES = "a plain vision transformer of timm, such as vit_small_patch16_224"


class Vit(TransformerClassifier):
    """This project's ``VisionTransformer``."""

    core: VisionTransformer

    def __init__(self, section: VitSection, info: DataInfo) -> None:
        core = own_transformer(section, info)
        super().__init__(core, section.pruning, (info.channels, info.input_size, info.input_size))

    def initialise(self, section: VitSection) -> None:  # type: ignore[override]
        """Load ``model.weights``."""
        if section.weights is not None:
            load_run(self, section.weights)

    def embed(self, images: Tensor) -> Tensor:
        """The core's."""
        return self.core.embed(images)

    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """The core's."""
        return self.core.classify(tokens_BTD)

    def ends(self) -> tuple[nn.Module, nn.Module]:
        """The core's."""
        return self.core.embedding, self.core.head


class TorchvisionVit(TransformerClassifier):
    """A ``torchvision.models.VisionTransformer``; grey images are repeated to three channels.

    With pretrained weights images are normalised as those were.
    """

    def __init__(self, section: TorchvisionVitSection, info: DataInfo) -> None:
        from torchvision.models import get_model
        from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

        side = int(section.architecture.rsplit("_", 1)[1])
        check_patches(section.architecture, side, info.input_size, "; pretrained weights are for 224")
        check_channels(info)
        core = get_model(section.architecture, image_size=info.input_size, num_classes=info.num_outputs)
        assert isinstance(core, TorchvisionTransformer)
        super().__init__(core, section.pruning, (3, info.input_size, info.input_size))
        keep_statistics(self, section.architecture, section.weights, info)

    def initialise(self, section: TorchvisionVitSection) -> None:  # type: ignore[override]
        """Load ``model.weights``; positions are interpolated to the images, a head of other classes stays as it is."""
        load_pretrained(self, self.core, section, torchvision_state, "heads.", self._resampled)

    def _resampled(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        from torchvision.models.vision_transformer import interpolate_embeddings

        found: dict[str, Tensor] = interpolate_embeddings(int(self.core.image_size), int(self.core.patch_size), state)
        return found

    def embed(self, images: Tensor) -> Tensor:
        """Patches, CLS, positions."""
        core = self.core
        patches_BND = core._process_input(renormalised(self, images).expand(-1, 3, -1, -1))
        tokens_BTD = torch.cat([core.class_token.expand(images.shape[0], -1, -1), patches_BND], dim=1)
        embedded: Tensor = core.encoder.dropout(tokens_BTD + core.encoder.pos_embedding)
        return embedded

    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """Norm, CLS, heads."""
        logits: Tensor = self.core.heads(self.core.encoder.ln(tokens_BTD)[:, 0])
        return logits

    def ends(self) -> tuple[nn.Module, nn.Module]:
        """``conv_proj`` and ``heads``."""
        return self.core.conv_proj, self.core.heads


class TimmVit(TransformerClassifier):
    """A plain vision transformer of timm: its ``VisionTransformer``, ``Eva`` or ``Beit``.

    Grey images are repeated to three channels; all are normalised with the mean and deviation that timm gives for it.
    """

    def __init__(self, section: TimmVitSection, info: DataInfo) -> None:
        check_channels(info)
        core = _timm_model(section.architecture, num_classes=info.num_outputs, img_size=info.input_size)
        super().__init__(core, section.pruning, (3, info.input_size, info.input_size))
        keep_own_statistics(self, info, (core.pretrained_cfg["mean"], core.pretrained_cfg["std"]))

    def initialise(self, section: TimmVitSection) -> None:  # type: ignore[override]
        """Load ``model.weights``; timm resamples positions and patches, a head of other classes stays as it is."""
        load_pretrained(self, self.core, section, timm_state, ("head.", "head_dist."), self._resampled)

    def _resampled(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        found = sys.modules[type(self.core).__module__].checkpoint_filter_fn(state, self.core)
        return dict(found)

    def embed(self, images: Tensor) -> Tensor:
        """Patches, CLS, positions."""
        host = self.host
        assert isinstance(host, TimmHost)
        return host.embed(renormalised(self, images))

    def classify(self, tokens_BTD: Tensor) -> Tensor:
        """Norm, CLS, mean or attention pooling as the model has it, head."""
        logits: Tensor = self.core.forward_head(self.core.norm(tokens_BTD))
        return logits

    def ends(self) -> tuple[nn.Module, nn.Module]:
        """``patch_embed`` and ``head``; with a distillation token both heads, whose mean is the prediction."""
        distilled = getattr(self.core, "head_dist", None)
        head = self.core.head if distilled is None else MeanOfHeads(self.core.head, distilled)
        return self.core.patch_embed, head

    @property
    def reads_patches(self) -> bool:
        """Where timm pools them."""
        return bool(self.core.global_pool != "token")

    def pool(self) -> tuple[nn.Module, int] | None:
        """``attn_pool``."""
        pool = getattr(self.core, "attn_pool", None)
        if pool is None:
            return None
        return pool, 0 if getattr(self.core, "pool_include_prefix", True) else self.host.prefix.count


class MeanOfHeads(nn.Module):
    """The heads of a distilled transformer on one token each, averaged."""

    def __init__(self, *heads: nn.Module) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return torch.stack([head(features_BD) for head in self.heads]).mean(dim=0)


def _timm_model(name: str, **settings: Any) -> nn.Module:
    """Return timm's model, without pretrained weights.

    Raises:
        MissingPackage: timm is not installed.
        InputError: timm has no such model, or it cannot be pruned on these images.
    """
    timm = timm_with(name, "timm_vit", "*vit*", _TIMM_NAMES)
    from timm.layers import PatchEmbed

    try:
        core: nn.Module = timm.create_model(name, **settings)
        host_of(core)
    except TypeError:  # no img_size: a network for any size of image
        raise InputError(f"model.architecture {name}: not {_TIMM_NAMES}") from None
    except Exception as error:  # timm has no type of its own for a tag it does not know, or for a size it cannot take
        raise InputError(f"model.architecture {name}: {one_line(error)}") from None
    if not isinstance(core.patch_embed, PatchEmbed):
        raise InputError(f"model.architecture {name}: patches of another kind (valid: {_TIMM_NAMES})")
    check_patches(name, int(core.patch_embed.patch_size[0]), settings["img_size"])
    return core


def check_patches(architecture: str, side: int, image_size: int, further: str = "") -> None:
    """Raise ``InputError`` where patches of ``side`` pixels do not divide the image."""
    if image_size % side:
        raise InputError(
            f"model.architecture {architecture}: its patches of {side} pixels do not divide dataset.input_size "
            f"{image_size} (valid: multiples of {side}{further})"
        )


def default_patch_size(image_size: int, wanted: int = 7) -> int:
    """Return 7 where it divides the image, else its largest divisor below; an image without one is an error."""
    for size in range(wanted, 1, -1):
        if image_size % size == 0:
            return size
    raise InputError(f"model.patch_size: no default for dataset.input_size {image_size}; give one that divides it")


def own_transformer(section: VitShape, info: DataInfo) -> VisionTransformer:
    """Return this project's transformer in the sizes of a configuration, untrained."""
    return VisionTransformer(
        image_size=info.input_size,
        patch_size=section.patch_size or default_patch_size(info.input_size),
        channels=info.channels,
        width=section.width,
        heads=section.heads,
        depth=section.depth,
        mlp=section.mlp,
        num_outputs=info.num_outputs,
        dropout=section.dropout,
    )
