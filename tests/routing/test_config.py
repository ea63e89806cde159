"""Configuration: what is valid is kept exactly, what is not is one line that names the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from routing.config.overrides import parse_overrides
from routing.config.run import RunConfig, json_schema, valid_keys
from routing.errors import InputError
from routing.files.yaml_io import dump, load_text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["--model.router.mod", "top_k"], r"unknown key 'model\.router\.mod'; did you mean 'model\.router\.mode'\?"),
        (["--modle.name", "vit"], r"unknown key 'modle\.name'; did you mean 'model\.name'\?"),
        (["--modle.name", "vit", "--modle.depth", "2"], r"unknown key 'modle'; did you mean 'model'\?"),
        (["--batch_size", "3"], r"unknown key 'batch_size'; did you mean 'training\.batch_size'\?"),
        (["--model.router.mode", "topk"], r"unknown router mode 'topk'; did you mean 'top_k'\?"),
        (["--model.name", "fullcompute"], r"unknown model 'fullcompute'; did you mean 'full_compute'\?"),
        (
            ["--model.name", "resnet18"],
            r"of torchvision it is model\.name torchvision_net with model\.architecture resnet18",
        ),
        (
            ["--model.name", "vit_tiny_patch16_224"],
            r"of timm it is model\.name timm_net, or timm_vit for a transformer",
        ),
        (["--dataset.name", "digit"], r"unknown data set 'digit'; did you mean 'digits'\?"),
        (
            ["--model.name", "full_compute", "--model.router.mode", "top_k"],
            r"key 'model\.router' belongs to model attention_routing.*not to 'full_compute'",
        ),
        (["--dataset.root", "x"], r"key 'dataset\.root' belongs to data set .*image_folder.*not to 'digits'"),
        (["--dataset.name", "image_folder"], r"'dataset\.root' is missing"),
        (["--dataset.name", "image_folder", "--dataset.rooot", "x"], r"unknown key 'dataset\.rooot'; did you mean"),
        (["--device", "gpu"], r"no device is called 'gpu' \(valid: auto, cpu, mps, cuda,"),
        (["--training.num_epochs", "0"], r"training\.num_epochs 0 evaluates given weights, but there are no"),
        (["--training.num_epochs", "soon"], r"training\.num_epochs: must be a valid integer"),
        (["--training.learning_rate", ".nan"], r"training\.learning_rate"),
        (["--dataset.patch_grid_size", "7"], r"patch_grid_size 7 does not divide.*valid: 1, 2, 4, 5, 8, 10, 20, 40"),
        (["--model", "3"], r"model: must be a valid dictionary"),
        (["--seed"], r"'--seed' has no value; write --seed VALUE"),
        (["seed"], r"'seed' is not an override"),
        (["--seed", "[1"], r"value of --seed:1:\d+: not valid YAML"),
        (["--a..b", "1"], r"'--a\.\.b' is not a dotted key"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RunConfig.from_yaml(None, overrides)
    assert "\n" not in str(caught.value)


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    config = RunConfig.from_yaml(None, ["--model.router.mode=top_k", "--training.learning-rate", "1e-3", "seed=7"])
    assert config.training.learning_rate == 1e-3
    path = tmp_path / "run.yaml"
    path.write_text(config.to_yaml())
    assert RunConfig.from_yaml(path) == config
    assert RunConfig.from_dict(config.dotted()) == config


def test_overrides_win_over_the_file_and_switching_the_model_drops_the_keys_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("seed: 3\nmodel: {name: attention_routing, experts: {width: 32}, router: {mode: top_k}}\n")
    config = RunConfig.from_yaml(path, ["--model.name", "no_routing", "--seed", "4"])
    assert config.seed == 4
    assert config.dotted()["model.experts.width"] == 32
    assert config.dotted()["model.aggregator"] == "mean"
    assert "model.router.mode" not in config.dotted()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", r"run\.yaml:2: key 'seed' is given twice"),
        ("model: {name: [}\n", r"run\.yaml:1:\d+: not valid YAML"),
        ("seed: 0\ndevice:cpu\nprecision: fp32\n", r"run\.yaml:2:1: not valid YAML: .* need a colon and a space"),
        ("model:\n  name: vit\n\twidth: 3\n", r"run\.yaml:3:1: not valid YAML: a tab; lines are indented with spaces"),
        ("- 1\n", r"a run is a mapping of keys to values, not list"),
        ("3: 4\n", r"key 3 is not a string"),
        ("a: !!python/object/apply:os.system ['true']\n", r"not valid YAML"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        RunConfig.from_yaml(path)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        RunConfig.from_yaml(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as text"):
        RunConfig.from_yaml(tmp_path / "b.yaml")


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 1  # type: ignore[misc]


def test_every_valid_key_is_in_the_json_schema_and_documented() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    for key in valid_keys():
        assert f'"{key.rsplit(".", 1)[-1]}"' in text
    undocumented = [
        f"{name}.{field}"
        for name, section in schema["$defs"].items()
        for field, value in section.get("properties", {}).items()
        if "description" not in value and "$ref" not in value and "const" not in value
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    "text", ["1e-05", "1e3", "-2E+4", "1.5e-3", "null", "NA", "yes", "0x1", "1_000", "1e-05x", "3:20"]
)
def test_text_that_looks_like_something_else_is_read_back_as_text(text: str) -> None:
    """Levels of an ablation are named after their values; a study that was written must be the one that is read."""
    value = {text: [text, 1e-05, {"a": text}]}
    assert load_text(dump(value))[0] == value


def test_parse_overrides_reads_yaml_values() -> None:
    assert parse_overrides(["--a.b", "[1, 2]", "c=true", "--d-e=1e-3"]) == {"a.b": [1, 2], "c": True, "d_e": 1e-3}
