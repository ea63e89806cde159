"""``vit`` and ``torchvision_vit``: how the two networks are built, entered and left.

Shapes: B images, T tokens (CLS is token 0), N patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from routing.data import DataInfo
from routing.errors import InputError
from routing.models.transformer_classifier import TransformerClassifier
from routing.models.vit import VisionTransformer
from routing.models.vit_section import TorchvisionVitSection, VitSection


class Vit(TransformerClassifier):
    """This project's ``VisionTransformer``."""

    core: VisionTransformer

    def __init__(self, section: VitSection, info: DataInfo) -> None:
        core = VisionTransformer(
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
        super().__init__(core, section.pruning, (info.channels, info.input_size, info.input_size))

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
    """A ``torchvision.models.VisionTransformer``; grey images are given to it three times."""

    def __init__(self, section: TorchvisionVitSection, info: DataInfo) -> None:
        from torchvision.models import get_model
        from torchvision.models.vision_transformer import VisionTransformer as TorchvisionTransformer

        side = int(section.architecture.rsplit("_", 1)[1])
        if info.input_size % side:
            raise InputError(
                f"model.architecture {section.architecture}: its patches of {side} pixels do not divide "
                f"dataset.input_size {info.input_size} (valid: multiples of {side}; pretrained weights are for 224)"
            )
        core = get_model(section.architecture, image_size=info.input_size, num_classes=info.num_outputs)
        assert isinstance(core, TorchvisionTransformer)
        super().__init__(core, section.pruning, (3, info.input_size, info.input_size))

    def embed(self, images: Tensor) -> Tensor:
        """Patches, CLS, positions."""
        core = self.core
        patches_BND = core._process_input(images.expand(-1, 3, -1, -1))
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


def default_patch_size(image_size: int, wanted: int = 7) -> int:
    """Return 7 where it divides the image, else its largest divisor below; an image without one is an error."""
    for size in range(wanted, 1, -1):
        if image_size % size == 0:
            return size
    raise InputError(f"model.patch_size: no default for dataset.input_size {image_size}; give one that divides it")
