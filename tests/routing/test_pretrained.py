"""Published weights whose names are older than the library's."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.models import densenet121

from routing.models.pretrained import pretrained_state


def test_densenets_are_read_by_their_published_names(tmp_path: Path) -> None:
    wanted = densenet121().state_dict()
    published = {}
    for name, tensor in wanted.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.") if "denselayer" in name else name
        published[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(published, tmp_path / "densenet121.pth")
    found = pretrained_state("densenet121", str(tmp_path / "densenet121.pth"), "model.backbone.weights")
    assert found.keys() == wanted.keys()
