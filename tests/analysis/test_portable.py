"""Exported files predict what PyTorch predicts, for every kind of model, with any batch size; or say why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from analysis.exports.portable import ExportFailed, Verified, about, export_model, traceable
from analysis.exports.usage import _prepare, usage
from routing.config.run import RunConfig
from routing.data.view import View
from routing.errors import InputError
from routing.models import build_model
from routing.saved import SavedRun

SMALL = {"dataset.num_train": 64, "dataset.num_val": 64, "dataset.num_test": 64, "training.num_epochs": 1}


@pytest.fixture(scope="module")
def images():
    """Real validation images, uint8 (64, 1, 40, 40)."""
    return torch.as_tensor(RunConfig.from_dict(SMALL).dataset.load()["val"].images[:64])


def saved_run(**keys):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = RunConfig.from_dict({**SMALL, **keys})
    info = config.dataset.load().info
    return SavedRun(config, info, build_model(config.model, info).eval())


def routed(mode, **keys):
    return saved_run(**{"model.router.mode": mode, **keys})


@pytest.mark.parametrize("mode", ["learnable_threshold", "quantile_threshold", "top_k", "edge_energy", "post_hoc"])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_form_to_trace_equals_the_model(images, mode, share):
    saved = routed(mode)
    values = saved.model.knob_values([saved.preprocess(images)])
    saved.model.set_knob(values[min(int(share * len(values)), len(values) - 1)])
    module = traceable(saved)
    with torch.no_grad():
        torch.testing.assert_close(module(images), saved.predict(images).prediction, atol=1e-5, rtol=1e-5)


def test_nothing_routed_and_a_learned_aggregator(images):
    saved = routed("learnable_threshold", **{"model.aggregator": "attention"})
    for threshold in (1e9, -1e9):
        saved.model.set_knob(threshold)
        with torch.no_grad():
            torch.testing.assert_close(traceable(saved)(images), saved.predict(images).prediction, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
@pytest.mark.parametrize(
    "keys",
    [
        {"model.router.mode": "learnable_threshold"},
        {"model.router.mode": "top_k"},
        {"model.router.mode": "post_hoc"},
        {"model.name": "full_compute"},
        {"model.name": "no_routing"},
        {"model.name": "vit"},
        {
            "model.name": "vit",
            "model.pruning.method": "importance_diversity",
            "model.pruning.k_anchors": 2,
            "model.pruning.top_m": 5,
        },
        *(
            {"model.name": "vit", "model.pruning.method": method, "model.pruning.schedule": schedule}
            for method, schedule in (("tome", 2), ("evit", "0.5@2"), ("amod", "0.5@1"), ("dynamicvit", "0.5@2"))
        ),
        {"model.name": "aacn"},
    ],
    ids=lambda keys: "-".join(str(value) for value in keys.values()),
)
def test_exported_file_predicts_the_same(images, tmp_path, keys, kind):
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    verified = export_model(saved_run(**keys), images, kind, tmp_path)
    assert verified.path.is_file()
    assert verified.agreeing == verified.images == 64
    assert verified.largest < 1e-4


@pytest.mark.slow
def test_routing_stays_conditional_in_onnx(images, tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    verified = export_model(routed("learnable_threshold"), images, "onnx", tmp_path)
    found = onnx.load(verified.path)
    assert "NonZero" in {node.op_type for node in found.graph.node}
    for value in (found.graph.input[0], found.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {entry.key: entry.value for entry in found.metadata_props} == about(routed("learnable_threshold"))


@pytest.mark.slow
def test_a_file_that_predicts_otherwise_is_removed(images, tmp_path, monkeypatch):
    saved = saved_run(**{"model.name": "cheap_compute"})
    good = SavedRun.output

    def shifted(self, batch):
        output = good(self, batch)
        output.prediction = output.prediction + 1
        return output

    monkeypatch.setattr(SavedRun, "output", shifted)
    with pytest.raises(ExportFailed, match=r"model\.pt2 was removed: it predicts only 0 of 64"):
        export_model(saved, images, "torch_export", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["random", "permuted", "oracle"])
def test_controls_are_refused(mode):
    with pytest.raises(ExportFailed, match=f"'{mode}' .*: it is a control"):
        traceable(routed(mode))


def test_unknown_format(images, tmp_path):
    with pytest.raises(InputError, match=r"unknown export format 'tflite' \(valid: onnx, torch_export\)"):
        export_model(saved_run(), images, "tflite", tmp_path)


@pytest.mark.slow
def test_a_run_in_bf16_is_exported_in_fp32(images, tmp_path):
    saved = saved_run(precision="bf16")
    verified = export_model(saved, images, "torch_export", tmp_path)
    said = {"preprocessing.json": "", "class_names.json": "", "operating_point.json": ""}
    torch.export.load(verified.path, extra_files=said)
    assert said == {f"{name}.json": text for name, text in about(saved).items()}
    assert verified.agreeing == verified.images
    assert "both in fp32 (the run computed in bf16)" in verified.words()


def test_a_file_names_its_operating_point():
    said = about(routed("top_k", **{"evaluation.knob_value": 0.25}))
    found = json.loads(said["operating_point"])
    assert (found["knob_value"], found["knob"]) == (0.25, routed("top_k").model.knob)
    assert json.loads(about(saved_run(**{"model.name": "conv_net"}))["operating_point"])["knob_value"] is None


def test_a_file_says_how_an_image_becomes_its_pixels(tmp_path):
    said = json.loads(about(saved_run())["preprocessing"])
    assert (said["channels"], said["height"], said["width"], said["dtype"]) == (1, 40, 40, "uint8")
    assert "resize" not in said  # these images are drawn, not read
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    keys = {"name": "image_folder", "root": str(tmp_path), "resize": "shortest", "crop_pct": 0.8, "input_size": 48}
    config = RunConfig.from_dict({"dataset": keys, "model.name": "conv_net"})
    info = config.dataset.info()
    said = about(SavedRun(config, info, build_model(config.model, info)))
    found = json.loads(said["preprocessing"])
    assert (found["resize"], found["resized_to"], found["crop_pct"]) == ("shortest", [60, 60], 0.8)
    assert found["mean"] == [0.485, 0.456, 0.406]
    assert json.loads(said["class_names"]) == ["a", "b"]
    assert config.dataset.view().words() == (
        "An image, in RGB and upright, is resized until its shorter side fits 60 x 60 pixels (bilinear, antialiased), "
        "and the centre of 48 x 48 is cut out."
    )


def test_only_what_decides_can_decide_otherwise():
    path = Path("model.onnx")
    assert "goes the other way" in Verified(path, 64, 63, 1e-5, decides=True).words()
    assert "goes the other way" not in Verified(path, 64, 63, 1e-5).words()


@pytest.mark.slow
def test_the_code_on_the_card_reads_the_onnx_file(images, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    saved = saved_run(**{"model.name": "cheap_compute"})
    export_model(saved, images, "onnx", tmp_path)
    Image.fromarray(images[5, 0].numpy()).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    code = usage(saved.config, saved.info, has_onnx=True).split("```python")[2].split("```")[0]
    exec(compile(code, "card.md", "exec"), {})
    assert capsys.readouterr().out.strip() == saved.predict("photo.png").labels[0]


@pytest.mark.parametrize("size", [(50, 31), (31, 50), (24, 24), (300, 200)])
@pytest.mark.parametrize(
    "view",
    [
        View(24, 24),
        View(20, 24, interpolation="bicubic", crop_pct=0.9),
        View(24, 24, resize="shortest", crop_pct=0.875, interpolation="bicubic"),
        View(24, 24, resize="longest_pad", fill=(3, 2, 1)),
    ],
)
def test_the_code_on_the_card_resizes_as_the_data_does(view, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    names = {"image": Image.fromarray(pixels), "Image": Image, "ImageOps": ImageOps}
    exec(_prepare(view), names)
    assert np.array_equal(np.asarray(names["image"]).transpose(2, 0, 1), view.fit(Image.fromarray(pixels)))
