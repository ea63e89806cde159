"""Published weights whose names are older than the library's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import densenet121

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.models import build_model
from routing.models.kept_library import build_kept, keep_library
from routing.models.pretrained import model_beside, renormalised
from routing.models.torchvision_library import keep_statistics, torchvision_state, trained_statistics


def test_densenets_are_read_by_their_published_names(tmp_path: Path) -> None:
    wanted = densenet121().state_dict()
    published = {}
    for name, tensor in wanted.items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.") if "denselayer" in name else name
        published[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save(published, tmp_path / "densenet121.pth")
    found = torchvision_state("densenet121", str(tmp_path / "densenet121.pth"), "model.backbone.weights")
    assert found.keys() == wanted.keys()


def test_images_are_normalised_as_the_weights_were() -> None:
    """A pretrained network sees pixels by its own statistics, one from scratch by those of the data."""
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = trained_statistics("resnet18", "IMAGENET1K_V1")
    assert mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    info = DataInfo("classification", 3, 32, 10, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1))
    given_mean, given_std = (torch.tensor(v).view(3, 1, 1) for v in (info.mean, info.std))
    given = (pixels - given_mean) / given_std
    for weights, expected in (("a file.pth", (pixels - mean) / std), (None, given)):
        model = nn.Identity()
        keep_statistics(model, "resnet18", weights, info)
        torch.testing.assert_close(renormalised(model, given), expected)
        assert model.state_dict() == {}


def test_a_torchvision_backbone_sees_them() -> None:
    keys = {"dataset.name": "quality", "model.name": "hyperiqa", "model.crop_size": 32}
    seen = []
    for weights in (None, "DEFAULT"):
        config = RunConfig.from_dict({**keys, "model.backbone": {"name": "resnet18", "weights": weights}})
        model = build_model(config.model, config.dataset.info()).eval()
        model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        model(torch.zeros(1, 3, 48, 48))
    mean, std = trained_statistics("resnet18", "DEFAULT")
    assert torch.equal(seen[0], torch.zeros(1, 3, 32, 32))
    expected = (torch.tensor(config.dataset.info().mean).view(3, 1, 1) - mean) / std
    torch.testing.assert_close(seen[1], expected.expand(1, 3, 32, 32))


@pytest.mark.parametrize("text", ["- model\n", "model: resnet18\n", "", "seed: 1\n"])
def test_a_config_beside_weights_that_is_of_no_run_lends_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    assert model_beside(tmp_path) == model_beside(tmp_path / "weights.pth") == {}


def test_a_run_keeps_the_statistics_it_saw_images_by(tmp_path: Path) -> None:
    """Weights of a run of a run may be gone where it is evaluated; the default ones' would then stand for them."""
    info = DataInfo("classification", 3, 32, 10, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1))
    for weights in ("DEFAULT", None):
        named = {"model.name": "aacn", "model.backbone.name": "resnet18", "model.backbone.weights": weights}
        config = RunConfig.from_dict({"dataset.name": "digits", **named})
        kept = build_model(config.model, info)
        keep_library(tmp_path, kept)
        elsewhere = config.replace(**{"model.backbone.weights": "gone" if weights is None else None})
        pixels = torch.rand(1, 3, 32, 32)
        found = build_kept(elsewhere.model, info, tmp_path)
        assert torch.equal(renormalised(found, pixels), renormalised(kept, pixels))
        assert found.state_dict().keys() == kept.state_dict().keys()
