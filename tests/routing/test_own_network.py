"""A network of the user's as a model: its keys, its counts, its knob, and what is refused before training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import routing
from routing.config.registry import MODELS
from routing.config.run import RunConfig, valid_keys
from routing.data import DataInfo
from routing.errors import InputError
from routing.evaluation.compute import expected_flops, measure
from routing.files.record import TrialRecord
from routing.runner import run

INFO = DataInfo("classification", 1, 40, 10, (0.5,), (0.2,))
DATA = 40 * 40


@pytest.fixture(autouse=True)
def _no_model_stays() -> Iterator[None]:
    before = set(MODELS)
    yield
    for name in set(MODELS) - before:
        MODELS.remove(name)


def linear(info: DataInfo, width: int = 16) -> nn.Module:
    size = info.channels * info.input_size**2
    return nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU(), nn.Linear(width, info.num_outputs))


class Gated(nn.Module):
    """Images whose mean is above a threshold go through the big branch; ``whole_batches`` sends all or none."""

    def __init__(self, info: DataInfo, whole_batches: bool) -> None:
        super().__init__()
        size = info.channels * info.input_size**2
        self.small, self.big = nn.Linear(size, info.num_outputs), nn.Linear(size, info.num_outputs)
        self.threshold, self.whole_batches = 0.0, whole_batches

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        goes = flat.mean(1) > self.threshold
        if self.whole_batches:
            goes = goes.any().expand(len(flat))
        rows = goes.nonzero()[:, 0]
        return self.small(flat).index_add(0, rows, self.big(flat[rows]))


def gated(info: DataInfo, whole_batches: bool = False) -> nn.Module:
    return Gated(info, whole_batches)


def trained(tiny: dict[str, Any], out: Path | None = None, **keys: Any) -> TrialRecord:
    return run(RunConfig.from_dict({**tiny, **keys}), out=out)


def test_keys_are_typed_from_defaults() -> None:
    routing.register_module("net", linear, width=8)
    routing.register_module("many", lambda info, **keys: linear(info), a=1, b=0.5, c="x", d=True, e=[1, 2.5], f=None)
    assert {"model.name", "model.width"} <= set(valid_keys({"model": {"name": "net"}}))
    config = RunConfig.from_dict({"model.name": "net", "model.width": "32"})
    assert config.dotted()["model.width"] == 32
    assert RunConfig.from_dict({"model.name": "net"}).dotted()["model.width"] == 8
    assert RunConfig.from_dict({"model.name": "many", "model.e": [3]}).dotted()["model.e"] == [3.0]
    for key, value in {"a": 0.5, "b": "high", "c": 3, "d": "perhaps", "e": ["x"]}.items():
        with pytest.raises(InputError, match=f"model.{key}"):
            RunConfig.from_dict({"model.name": "many", f"model.{key}": value})
    with pytest.raises(InputError, match=r"unknown key 'model.widht'; did you mean 'model.width'"):
        RunConfig.from_dict({"model.name": "net", "model.widht": 3})


def test_it_is_counted_as_executed(tiny: dict[str, Any], folder: Path) -> None:
    routing.register_module("net", linear)
    config = {"model.name": "net", "model.width": 8}
    assert expected_flops(RunConfig.from_dict(config)) == 8 * DATA + 80
    record = trained(tiny, folder, **config)
    assert record.metrics["flops"] == record.metrics["flops_p95"] == 8 * DATA + 80
    assert record.metrics["compute_check"] == "as executed; no closed form checks them"
    saved = routing.load(folder)
    found = saved.predict(torch.zeros(3, 1, 40, 40, dtype=torch.uint8))
    assert found.multiply_adds.tolist() == [8 * DATA + 80] * 3


def test_a_network_without_parameters_is_refused(tiny: dict[str, Any]) -> None:
    routing.register_module(
        "fixed", lambda info: nn.Sequential(nn.AdaptiveAvgPool2d((1, info.num_outputs)), nn.Flatten())
    )
    with pytest.raises(InputError, match="nothing can be trained"):
        trained(tiny, **{"model.name": "fixed"})


def test_a_closed_form_is_checked(tiny: dict[str, Any]) -> None:
    for name, form in {"right": lambda info, width: width * (DATA + 10), "wrong": lambda info, width: 5}.items():
        routing.register_module(name, linear, closed_form=form)
    assert "compute_check" not in trained(tiny, **{"model.name": "right"}).metrics
    with pytest.raises(routing.evaluation.compute.ComputeError, match="differ"):  # type: ignore[attr-defined]
        trained(tiny, **{"model.name": "wrong"})


def test_what_depends_on_the_image_is_counted_per_image() -> None:
    routing.register_module("gated", gated, knob="threshold", knob_values=(-9.0, 9.0))
    images = torch.randn(4, 1, 40, 40).abs() * torch.tensor([1.0, -1.0, -1.0, 1.0]).view(4, 1, 1, 1)
    one = DATA * 10
    model = RunConfig.from_dict({"model.name": "gated"}).model.build(INFO)
    report = measure(model, images)
    assert report.executed_per_image.tolist() == [2 * one, one, one, 2 * one]
    assert report.closed_form_per_image is None
    batch = RunConfig.from_dict({"model.name": "gated", "model.whole_batches": True}).model.build(INFO)
    assert measure(batch, images).executed_per_image.tolist() == [2 * one] * 4  # all run, whoever asked for it


@pytest.mark.parametrize("knob", ["threshold", lambda network, value: setattr(network, "threshold", value)])
def test_a_knob_gives_operating_points(tiny: dict[str, Any], folder: Path, knob: Any) -> None:
    routing.register_module("gated", gated, knob=knob, knob_values=(0.0, -9.0, 9.0))
    record = trained(tiny, folder, **{"model.name": "gated"})
    costs = {point.knob_value: point.flops for point in record.points}
    assert list(costs) == [0.0, -9.0, 9.0]
    assert (costs[-9.0], costs[9.0]) == (2 * DATA * 10, DATA * 10)
    assert DATA * 10 <= costs[0.0] <= 2 * DATA * 10
    moved = trained(tiny, **{"model.name": "gated", "evaluation.knob_value": 9.0})
    assert moved.metrics["flops"] == DATA * 10
    assert moved.metrics["val_loss"] == record.points[2].metrics["val_loss"]


def test_outputs_of_other_forms(tiny: dict[str, Any]) -> None:
    class Named(nn.Module):
        def __init__(self, info: DataInfo, form: str) -> None:
            super().__init__()
            self.inner, self.form = linear(info), form

        def forward(self, images: Tensor) -> Any:
            logits = self.inner(images)
            return {"logits": logits, "more": 1} if self.form == "mapping" else (logits, 1)

    routing.register_module("named", Named, form="mapping")
    for form in ("mapping", "tuple"):
        assert trained(tiny, **{"model.name": "named", "model.form": form}).metrics["flops"] > 0


def plain(info: DataInfo, width: int) -> nn.Module:
    return linear(info, width)


@pytest.mark.parametrize(
    ("factory", "given", "why"),
    [
        (plain, {}, "plain needs 'width', which has no default"),
        (plain, {"width": 8, "depth": 2}, "plain takes no 'depth'.*valid: width"),
        (plain, {"width": object()}, "the default of 'width' is <object .* no plain value"),
        (plain, {"width": float("nan")}, "the default of 'width' is nan, no plain value"),
        (plain, {"width": [1, "x"]}, "the default of 'width' mixes kinds of values"),
        (lambda: None, {}, "takes no argument; it is called as factory"),
        (lambda info, recipe: None, {"recipe": 1}, "'recipe' cannot be a key of a model"),
        (3, {}, "the factory is int, which cannot be called"),
        (plain, {"width": 8, "knob": "threshold"}, "knob_values are numbers or text.*there are none"),
        (plain, {"width": 8, "knob_values": (1.0,)}, "knob_values without a knob"),
    ],
)
def test_what_cannot_be_registered(factory: Any, given: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=f"register_module 'net': .*{why}") as raised:
        routing.register_module("net", factory, **given)
    assert "\n" not in str(raised.value)
    assert "net" not in MODELS


def fails(info: DataInfo) -> nn.Module:
    raise RuntimeError("no weights here")


class Fixed(nn.Module):
    """A knob that nothing reads."""

    def __init__(self, info: DataInfo) -> None:
        super().__init__()
        self.inner, self.threshold = linear(info), 0.5
        self.forward = self.inner.forward


@pytest.mark.parametrize(
    ("factory", "more", "why"),
    [
        (fails, {}, "its factory fails: no weights here"),
        (lambda info: 3, {}, "its factory returns 3, not a torch.nn.Module"),
        (lambda info: nn.Linear(7, 10), {}, "it cannot take images of 1 x 40 x 40: "),
        (lambda info: nn.Flatten(), {}, r"outputs of shape \(4, 1600\) for 4 images; .* needs \(4, 10\)"),
        (linear, {"knob": "threshold", "knob_values": (1,)}, "its knob 'threshold' is no attribute of Sequential"),
        (Fixed, {"knob": "threshold", "knob_values": (0.1, 0.9)}, "its knob 'threshold' changes nothing: .* 0.1, 0.9"),
        (Fixed, {"knob": "inner", "knob_values": (1,)}, "its knob 'inner' is Sequential"),
    ],
)
def test_what_cannot_be_built(factory: Callable[..., Any], more: dict[str, Any], why: str) -> None:
    routing.register_module("net", factory, **more)
    with pytest.raises(InputError, match=f"net: {why}"):
        expected_flops(RunConfig.from_dict({"model.name": "net"}))


def test_a_confidence_that_untrained_outputs_do_not_reach_is_a_knob() -> None:
    class Early(nn.Module):
        def __init__(self, info: DataInfo) -> None:
            super().__init__()
            self.inner, self.confidence = linear(info), 0.9

        def forward(self, images: Tensor) -> Tensor:
            logits = self.inner(images)
            return torch.where(logits.softmax(1).amax(1, keepdim=True) > self.confidence, logits, logits * 2)

    routing.register_module("early", Early, knob="confidence", knob_values=(0.8, 0.99))
    assert RunConfig.from_dict({"model.name": "early"}).model.build(INFO).default_knob_value == 0.9


def test_a_cell_that_runs_again_replaces_its_network_and_no_other() -> None:
    routing.register_module("net", linear)
    routing.register_module("net", linear, width=4)
    assert RunConfig.from_dict({"model.name": "net"}).dotted()["model.width"] == 4
    with pytest.raises(InputError, match="model 'vit' is registered already"):
        routing.register_module("vit", linear)


def test_workers_that_would_not_know_the_network(tmp_path: Path) -> None:
    import search_spaces

    routing.register_module("net", linear)
    study = {
        "kind": "sweep", "name": "own", "trials": 1, "base": {"model.name": "net"}, "space": {"model.width": [4, 8]},
        "objectives": [
            {"metric": "val_accuracy", "goal": "maximize", "reference": 0.1},
            {"metric": "flops", "goal": "minimize", "reference": 1e6},
        ],
    }  # fmt: skip
    from search_spaces.study.load import parse_study

    with pytest.raises(InputError, match=r"model 'net' is registered in .* plugins: \[my_nets\]"):
        search_spaces.sweep(parse_study(study), tmp_path / "results")
    assert not (tmp_path / "results").exists()
