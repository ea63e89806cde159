"""HyperIQA on torchvision's Swin and ResNets: its head, learning rates, shapes, compute, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import measure
from routing.models import build_model
from routing.models.hyperiqa.model import HyperIqa
from routing.models.hyperiqa.section import HyperIqaSection
from routing.training.optimizer import make_optimizer, set_learning_rate


@pytest.fixture(scope="module")
def swin() -> HyperIqa:
    torch.manual_seed(0)
    section = HyperIqaSection.model_validate({"backbone": {"name": "swin_t"}})
    return HyperIqa(section, DataInfo("quality", 3, 224, 1, (0.5,) * 3, (0.2,) * 3)).eval()


class TestSwin:
    """torchvision's Swin: shapes, compute, weights."""

    @pytest.mark.parametrize("backbone", ["swin_t", "resnet50"])
    def test_its_head_is_that_of_the_paper_unless_told(self, backbone: str) -> None:
        keys = {"dataset.name": "quality", "model.name": "hyperiqa", "model.backbone.name": backbone}
        names = ("mode", "pool", "hyper_channels", "target_widths", "reductions")

        def head(**changes: Any) -> list[Any]:
            dotted = RunConfig.from_dict({**keys, **{f"model.head.{k}": v for k, v in changes.items()}}).dotted()
            return [dotted[f"model.head.{name}"] for name in names]

        reductions = [512, 256] if backbone == "swin_t" else [1024, 512]
        assert head() == ["hyperiqa", 7, 112, [224, 112, 56, 28, 14], reductions]
        assert head(pool=1) == ["hyperiqa", 1, 112, [224, 112, 56, 28, 14], reductions]
        assert head(mode="ours") == ["ours", 7, 112, [224, 112, 56], []]
        tiny = RunConfig.from_dict({**keys, "model.backbone.name": "tiny4"})
        assert (tiny.dotted()["model.head.mode"], tiny.dotted()["model.head.pool"]) == ("ours", 4)

    def test_the_hyper_network_learns_ten_times_as_fast_as_the_backbone(self) -> None:
        keys = {"dataset.name": "quality", "model.name": "hyperiqa", "model.backbone.name": "resnet18"}
        config = RunConfig.from_dict({**keys, "model.crop_size": 32})
        model = build_model(config.model, config.dataset.info())
        rates: dict[str, set[float]] = {}
        optimizer = make_optimizer(model, config.training)
        set_learning_rate(optimizer, config.training.learning_rate)
        for group in optimizer.param_groups:
            for name, part in model.named_children():
                ids = {id(parameter) for parameter in part.parameters()}
                rates.setdefault(name, set()).update(group["lr"] for p in group["params"] if id(p) in ids)
        assert {name: [round(rate, 9) for rate in found] for name, found in rates.items()} == {
            "backbone": [2e-5], "fusion": [2e-5], "head": [2e-4], "distortion": [2e-5],
        }  # fmt: skip

    def test_stages(self, swin: HyperIqa) -> None:
        with torch.no_grad():
            maps = swin.backbone(torch.zeros(1, 3, 224, 224), 4)
        assert [tuple(m.shape[1:]) for m in maps] == [(96, 56, 56), (192, 28, 28), (384, 14, 14), (768, 7, 7)]

    def test_multiply_adds_shifted_windows_included(self, swin: HyperIqa) -> None:
        costs = swin.backbone.multiply_adds
        classifier = 768 * 1000
        assert round((sum(costs) + classifier) / 1e9, 2) == 4.49
        report = measure(swin, torch.zeros(1, 3, 224, 224))
        assert torch.equal(report.executed_per_image, report.closed_form_per_image)

    def test_odd_sizes_pad_the_windows(self) -> None:
        section = HyperIqaSection.model_validate({"backbone": {"name": "swin_t"}, "fusion": {"scales": [1, 2]}})
        model = HyperIqa(section, DataInfo("quality", 3, 72, 1, (0.5,) * 3, (0.2,) * 3))
        report = measure(model, torch.zeros(1, 3, 72, 72))
        assert torch.equal(report.executed_per_image, report.closed_form_per_image)

    def test_weights_from_a_file(self, swin: HyperIqa, tmp_path: Path) -> None:
        from torchvision.models import swin_t

        network = swin_t()
        torch.save(network.state_dict(), tmp_path / "swin.pth")
        swin.backbone.load_pretrained(str(tmp_path / "swin.pth"))
        with torch.no_grad():
            image = torch.randn(1, 3, 224, 224)
            expected = network.eval().norm(network.features(image)).permute(0, 3, 1, 2)
            torch.testing.assert_close(swin.backbone(image, 4)[3], expected)

    def test_weights_of_another_model(self, swin: HyperIqa, tmp_path: Path) -> None:
        torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
        with pytest.raises(InputError, match=r"model.backbone.weights .*x.pth: do not fit swin_t"):
            swin.backbone.load_pretrained(str(tmp_path / "x.pth"))

    def test_no_network(self, swin: HyperIqa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **keys: Any) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
        monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
        with pytest.raises(InputError, match=r"'IMAGENET1K_V1' cannot be downloaded .* save https://.* into"):
            swin.backbone.load_pretrained("IMAGENET1K_V1")
