"""Blocks and head of a transformer as links of a chain, so that images can leave it early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from routing.models.vit.classifier import TransformerClassifier


class Block(nn.Module):
    """One block as a link of a chain; the first embeds the images."""

    def __init__(self, model: TransformerClassifier, index: int) -> None:
        super().__init__()
        self.model, self.index = model, index
        self.training = model.training

    def forward(self, features: Tensor) -> Tensor:
        """Return tokens (B, T, D) from images (B, C, S, S) or tokens."""
        tokens_BTD = features if self.index else self.model.embed(features)
        host = self.model.host
        return host.run(host.blocks[self.index], tokens_BTD, host.positions()[self.index])


class Ending(nn.Module):
    """What follows the last block as a link of a chain."""

    def __init__(self, model: TransformerClassifier) -> None:
        super().__init__()
        self.model = model
        self.training = model.training

    def forward(self, tokens_BTD: Tensor) -> Tensor:
        """Return logits (B, classes)."""
        return self.model.classify(tokens_BTD)
