"""Weights as people have them: wrapped, prefixed, in parts; and what is no weights, in one line."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from routing.errors import InputError
from routing.models.weight_files import read_state


def network() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return nn.ModuleDict({"blocks": nn.Linear(3, 2), "head": nn.Linear(2, 2)}).state_dict()


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


STATE = network()
OTHER = {name: tensor + 1 for name, tensor in STATE.items()}
CHECKPOINTS: dict[str, Any] = {
    "weights.pth": STATE,
    "deit.bin": {"model": STATE, "optimizer": {"state": {}}, "epoch": 3, "args": Namespace(lr=0.1)},
    "old.pth.tar": {"epoch": 3, "arch": "vit", "state_dict": prefixed("module.", STATE)},
    "averaged.pt": {"state_dict": OTHER, "state_dict_ema": STATE},
    "lightning.ckpt": {"pytorch-lightning_version": "2", "state_dict": prefixed("model.", STATE)},
    "dino.pth": {"student": prefixed("module.backbone.", OTHER), "teacher": prefixed("module.backbone.", STATE)},
    "compiled.pth": prefixed("_orig_mod.module.", STATE),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_what_trainers_wrap_around_weights_is_taken_off(name: str, tmp_path: Path) -> None:
    torch.save(CHECKPOINTS[name], tmp_path / name)
    found = read_state(tmp_path / name, "model.weights")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[key], STATE[key]) for key in STATE)


def test_heads_of_self_supervised_training_are_left_out(tmp_path: Path) -> None:
    backbone = {name: tensor for name, tensor in STATE.items() if name.startswith("blocks")}
    projection = {"dino_head.mlp.0.weight": torch.ones(2, 2), "ibot_head.last_layer.weight": torch.ones(2)}
    torch.save({"teacher": {**prefixed("backbone.", backbone), **projection}}, tmp_path / "dinov2.pth")
    assert read_state(tmp_path / "dinov2.pth", "model.weights").keys() == backbone.keys()


def test_a_name_that_a_network_itself_begins_with_stays(tmp_path: Path) -> None:
    state = {"backbone.weight": torch.ones(2), "neck.weight": torch.ones(2)}
    save_file(state, tmp_path / "weights.safetensors")
    assert read_state(tmp_path / "weights.safetensors", "model.weights").keys() == state.keys()


def test_sharded_weights(tmp_path: Path) -> None:
    parts = {"model-1-of-2.safetensors": "blocks", "model-2-of-2.safetensors": "head"}
    weight_map: dict[str, str] = {}
    for file, start in parts.items():
        part = {name: tensor for name, tensor in STATE.items() if name.startswith(start)}
        save_file(part, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    found = read_state(index, "model.weights")
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(InputError, match=r"its part model-2-of-2.safetensors is missing; put all 2 parts beside it"):
        read_state(index, "model.weights")
    index.write_text("[]")
    with pytest.raises(InputError, match="has no weight_map"):
        read_state(index, "model.weights")


class Trainer:
    """What a pickle needs code for."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": STATE, "epoch": 1}, r"the keys net, epoch; .*torch.save\(checkpoint\['net'\], 'weights.pth'\)"),
        ({"model": {"a": 1}}, "does not hold a dictionary of tensors, but the keys a"),
        ([1, 2], "does not hold a dictionary of tensors, but list"),
        ({"model": STATE, "trainer": Trainer()}, r"needs code to be read \(tests\..*\); .*weights_only=False"),
    ],
)
def test_what_is_no_weights_is_said_in_one_line(content: Any, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(InputError, match=message) as error:
        read_state(tmp_path / "checkpoint.pth", "model.weights")
    assert "\n" not in str(error.value)
