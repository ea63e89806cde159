"""Zero-shot classification end to end with a tiny open_clip model of random weights; everything that can go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from routing.cli import main
from routing.commands.zeroshot import accuracies, zeroshot
from routing.commands.zeroshot_config import ZeroshotConfig
from routing.errors import InputError
from routing.models.vit.clip import ClipModel, fill, load_clip
from routing.models.vit.prompts import read_class_names, read_templates

open_clip = pytest.importorskip("open_clip")

TINY_MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 3, "width": 32, "head_width": 16, "patch_size": 4},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
SETTING = ["--pruning.k_anchors", "4", "--pruning.top_m", "8", "--pruning.alpha", "0.5"]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny-clip.json"
    path.write_text(json.dumps(TINY_MODEL))
    return path


@pytest.fixture
def words(model_file: Path, tiny: dict[str, Any]) -> list[str]:
    data = [f"--{key}={value}" for key, value in tiny.items() if key.startswith("dataset.")]
    return ["--model", str(model_file), "--pretrained", "random", "--batch_size", "32", *data]


def test_comparison_from_the_command_line(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    attention = tmp_path / "attention.safetensors"
    options = ["--compare", "--extract-attention", str(attention), "--samples", "3"]
    assert main(["zeroshot", *options, *words, *SETTING]) == 0
    dense, pruned = json.loads(capsys.readouterr().out)
    for record in (dense, pruned):
        assert record["task"] == "zeroshot_classification"
        assert {"dataset", "model", "pretrained", "task", "metrics", "language"} <= set(record)
        assert {"acc1", "acc5", "mean_per_class_recall", "ms_per_image"} <= set(record["metrics"])
        assert record["metrics"]["images"] == 96
        assert 0 <= record["metrics"]["acc1"] <= record["metrics"]["acc5"] <= 1
    assert dense["pruning"] is None
    assert pruned["pruning"]["k_anchors"] == 4
    assert (dense["metrics"]["kept_tokens"], pruned["metrics"]["kept_tokens"]) == (50, 13)
    t, k, d, m = 50, 13, 32, 128

    def block(tokens: int) -> int:
        return tokens * d * (4 * d + 2 * m) + 2 * tokens**2 * d

    ends = 49 * (4 * 4 * 3) * d + d * 16
    choice = t * d * d + 5 * (d * d + t * d) + 4 * t * d
    assert dense["metrics"]["flops"] == ends + 3 * block(t)
    assert pruned["metrics"]["flops"] == ends + block(t) + choice + 2 * block(k)
    saved = load_file(attention)
    assert saved["unpruned.block_2"].shape == (3, 2, 50, 50)
    assert saved["pruned.block_0"].shape == (3, 2, 50, 50)
    assert saved["pruned.block_2"].shape == (3, 2, 13, 13)
    assert saved["kept"].shape == (3, 13)
    assert torch.equal(saved["unpruned.block_0"], saved["pruned.block_0"])


@pytest.mark.parametrize(
    ("method", "schedule", "cost", "kept"),
    [
        # 44 and 38 after the first two blocks, 32 after the last; 25 x 25, 22 x 22, 19 x 19 pairs of 16 values
        ("tome", "6", lambda t: sum(t(a, b) for a, b in ((50, 44), (44, 38), (38, 32))) + 16 * (625 + 484 + 361), 32),
        # the row of CLS and the sum of 24 patches; 25 patches, CLS and the fused one go on
        ("evit", "{1: 0.5}", lambda t: t(50, 50) + t(50, 27) + t(27, 27) + (50 + 24) * 32, 27),
        ("amod", "{1: 0.5}", lambda t: t(50, 50) + t(26, 26) + t(50, 50), 26),
    ],
)
def test_methods_of_the_literature_on_a_tower(
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    schedule: str,
    cost: Callable[[Callable[[int, int], int]], int],
    kept: int,
) -> None:
    setting = ["--pruning.method", method, "--pruning.schedule", schedule]
    attention = tmp_path / "attention.safetensors"
    assert main(["zeroshot", "--compare", "--extract-attention", str(attention), *words, *setting]) == 0
    dense, reduced = (record["metrics"] for record in json.loads(capsys.readouterr().out))
    assert (dense["kept_tokens"], reduced["kept_tokens"]) == (50, kept)
    d, m = 32, 128

    def block(tokens: int, fed: int) -> int:
        return tokens * d * 4 * d + 2 * tokens**2 * d + fed * d * 2 * m

    ends = 49 * (4 * 4 * 3) * d + d * 16
    assert dense["flops"] == ends + 3 * block(50, 50)
    assert reduced["flops"] == ends + cost(block)
    saved = load_file(attention)
    assert saved["unpruned.block_1"].shape[2:] == (50, 50)
    inside = {"tome": 44, "evit": 50, "amod": 26}[method]
    assert saved["pruned.block_1"].shape[2:] == (inside, inside)
    assert "kept" not in saved


def test_help_names_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    main(["zeroshot", "--help"])
    text = capsys.readouterr().out
    assert [key for key in ZeroshotConfig.model_fields if f"--{key}" not in text] == []


def test_a_tower_without_tokens_is_classified_all_the_same(words: list[str], tmp_path: Path) -> None:
    resnet = {**TINY_MODEL, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}}
    path = tmp_path / "tiny-resnet.json"
    path.write_text(json.dumps(resnet))
    config = ZeroshotConfig.from_overrides([*words, "--model", str(path)])
    [record] = zeroshot(config)
    assert record["metrics"]["tokens"] is None
    assert record["metrics"]["flops"] > 0
    with pytest.raises(InputError, match="need a plain vision transformer"):
        zeroshot(config, attention_file=tmp_path / "attention.safetensors")


def test_every_way_is_warmed_up_before_it_is_timed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = ClipModel.logits
    monkeypatch.setattr(ClipModel, "logits", lambda *args: (calls.append(len(args[1])), plain(*args))[1])
    zeroshot(ZeroshotConfig.from_overrides([*words, "--limit", "32", *SETTING]), compare=True)
    assert calls == [32] * 4  # one batch: twice to warm up, twice timed


def test_keeping_all_tokens_changes_no_answer(words: list[str]) -> None:
    config = ZeroshotConfig.from_overrides([*words, "--pruning.k_anchors=10", "--pruning.top_m=39"])
    dense, pruned = zeroshot(config, compare=True)
    quality = ("acc1", "acc5", "mean_per_class_recall")
    assert [dense["metrics"][key] for key in quality] == [pruned["metrics"][key] for key in quality]


def test_a_seed_gives_the_same_answers(words: list[str]) -> None:
    config = ZeroshotConfig.from_overrides([*words, "--limit", "40"])
    first, second = (zeroshot(config)[0]["metrics"] for _ in range(2))
    assert first["acc1"] == second["acc1"]
    assert first["images"] == 40


def test_result_file_and_bf16(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "a folder" / "result.json"
    assert main(["zeroshot", "--out", str(out), *words, "--precision", "bf16", "--split", "test"]) == 0
    record = json.loads(out.read_text())
    assert record["pruning"] is None
    assert (record["split"], record["precision"], record["metrics"]["images"]) == ("test", "bf16", 64)


def test_accuracies_by_hand() -> None:
    logits = torch.tensor([[3.0, 2, 1, 0, 0, 0], [0, 3, 0, 0, 0, 1], [9, 8, 7, 6, 5, 4], [1, 0, 0, 0, 0, 5]])
    found = accuracies(logits, torch.tensor([0, 1, 5, 0]))
    # right: 0 and 1; the third is sixth of six, the fourth second
    assert found["acc1"] == 0.5
    assert found["acc5"] == 0.75
    assert found["mean_per_class_recall"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert accuracies(torch.eye(2), torch.tensor([0, 0]))["acc5"] == 1


def test_class_embeddings_are_unit_means_of_prompts(model_file: Path) -> None:
    clip = load_clip(str(model_file), "random", torch.device("cpu"))
    names = [f"class_{index}" for index in range(20)]
    found = clip.class_embeddings(names, ["a photo of a {}.", "a {c} in the wild"])
    assert found.shape == (16, 20)
    assert torch.allclose(found.norm(dim=0), torch.ones(20), atol=1e-5)
    expected = open_clip.build_zero_shot_classifier(
        clip.model,
        clip.tokenizer,
        [name.replace("_", " ") for name in names],
        [lambda c: f"a photo of a {c}.", lambda c: f"a {c} in the wild"],
    )
    assert torch.allclose(found, expected, atol=1e-5)


def test_images_are_prepared_as_open_clip_does(model_file: Path) -> None:
    clip = load_clip(str(model_file), "random", torch.device("cpu"))
    grey = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    found = clip.prepare(grey)
    mean, std = torch.tensor(clip.mean).view(3, 1, 1), torch.tensor(clip.std).view(3, 1, 1)
    assert torch.allclose(found[0], (grey[0].expand(3, -1, -1) / 255 - mean) / std, atol=1e-6)
    assert clip.prepare(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 3, 28, 28)


def test_templates(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a photo of a {}.\n\n  a sketch of a {c}  \n")
    assert [fill(template, "cat") for template in read_templates(path)] == ["a photo of a cat.", "a sketch of a cat"]
    path.write_text("a photo\n")
    with pytest.raises(InputError, match=r"prompts.txt: every line needs \{\}"):
        read_templates(path)
    with pytest.raises(InputError, match="not a readable text file"):
        read_templates(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--pruning.k_anchors", "10", "--pruning.top_m", "50"], "1 + 10 + 50 = 61 tokens, but the model has 50"),
        (["--pruning.start_layer", "3", "--pruning.top_m", "5"], "start_layer 3: the model has blocks 0 to 2"),
        (["--pruning.grid.top_m", "[4,8]"], "pruning.grid: zero-shot runs one setting at a time"),
        (["--pruning.alpha", "2"], "pruning.alpha: must be less than or equal to 1"),
        (["--pruning.top_n", "5"], "unknown key 'pruning.top_n'; did you mean 'pruning.top_m'"),
        (["--pretraned", "openai"], "unknown key 'pretraned'; did you mean 'pretrained'"),
        (["--pretrained", "openai"], "--pretrained 'openai': no such weights of tiny-clip"),
        (["--model", "ViT-B-33"], "--model 'ViT-B-33': open_clip has no such model; did you mean 'ViT-B-32'"),
        (["--model", "none.json"], "--model none.json: no such file"),
        (
            ["--pruning.method", "dynamicvit", "--pruning.schedule", "{1: 0.5}"],
            "pruning.method dynamicvit is learned, and this model has no predictor before block 1",
        ),
        (["--model", "broken.json"], "--model broken.json: not a readable JSON file"),
        (["--dataset.name", "digit"], "unknown data set 'digit'; did you mean 'digits'"),
        (["--dataset.name", "quality"], "its task is 'quality'"),
        (["--compare"], "--compare needs a pruning setting"),
        (["--templates", "none.txt"], "templates none.txt: not a readable text file"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    extra: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    given = [word for word in words if not ("name" in " ".join(extra) and word.startswith("--dataset."))]
    assert main(["zeroshot", *given, *extra]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("[Errno -3] Temporary failure\n in name resolution")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(InputError, match=r"weights of ViT-B-32 cannot be loaded: .*failure in name.*give a file"):
        load_clip("ViT-B-32", "openai", torch.device("cpu"))


def test_weights_from_a_file(model_file: Path, tmp_path: Path) -> None:
    clip = load_clip(str(model_file), "random", torch.device("cpu"), seed=5)
    torch.save(clip.model.state_dict(), tmp_path / "weights.pt")
    again = load_clip(str(model_file), str(tmp_path / "weights.pt"), torch.device("cpu"))
    for one, other in zip(clip.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    (tmp_path / "garbage.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_clip(str(model_file), str(tmp_path / "garbage.pt"), torch.device("cpu"))


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b79k", False)])
def test_weights_run_with_the_activation_they_were_trained_with(
    monkeypatch: pytest.MonkeyPatch, tag: str, quick: bool
) -> None:
    """open_clip takes the model's own activation, which is not that of OpenAI's weights, and only warns."""
    asked: list[dict[str, Any]] = []

    def offline(*args: Any, **kwargs: Any) -> None:
        asked.append(kwargs)
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(InputError, match="no network"):
        load_clip("ViT-B-32", tag, torch.device("cpu"))
    assert asked[0]["force_quick_gelu"] is quick


def test_templates_and_class_names_as_json(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text('["a photo of a {}.", "a sketch of a {c}"]')  # one line, which is two prompts
    assert read_templates(path) == ["a photo of a {}.", "a sketch of a {c}"]
    path.write_text(json.dumps({"cifar10": ["a blurry {c}"], "digits": ["the digit {c}", "a {c}"]}))
    assert read_templates(path, "digits") == ["the digit {c}", "a {c}"]
    with pytest.raises(InputError, match=r"nothing for data set 'cifar11'; did you mean 'cifar10'\? \(it has: cifar10"):
        read_templates(path, "cifar11")
    path.write_text("{} in the wild\n")
    with pytest.raises(InputError, match=r"prompts.json: not valid JSON"):
        read_templates(path)
    lines = tmp_path / "prompts.txt"
    lines.write_text("{} in the wild\n[{}]\n")
    assert read_templates(lines) == ["{} in the wild", "[{}]"]
    lines.write_text("cat\n\ndog\n")
    assert read_class_names(lines, "pets", 2) == ["cat", "dog"]
    with pytest.raises(InputError, match=r"class_names .*prompts.txt: 2 names, but data set 'pets' has 3 classes"):
        read_class_names(lines, "pets", 3)
    lines.write_text('{"pets": ["cat", 7]}')
    with pytest.raises(InputError, match="not a list of texts"):
        read_class_names(lines, "pets", 2)


def test_class_names_and_attention_for_torch_from_the_command_line(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names, attention = tmp_path / "names.json", tmp_path / "x.pt"
    names.write_text(json.dumps({"digits": [f"number {label}" for label in range(10)]}))
    options = ["--class-names", str(names), "--extract-attention", str(attention), "--samples", "2"]
    assert main(["zeroshot", *options, *words]) == 0
    named = json.loads(capsys.readouterr().out)["metrics"]["acc5"]
    assert main(["zeroshot", *words]) == 0
    assert named != json.loads(capsys.readouterr().out)["metrics"]["acc5"]
    saved = torch.load(attention, weights_only=True)
    assert saved["unpruned.block_2"].shape == (2, 2, 50, 50)
    assert main(["zeroshot", "--class-names", str(tmp_path / "none"), *words]) == 2
    assert "class_names" in capsys.readouterr().err


def test_a_model_that_is_not_square(words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wide-clip.json"
    path.write_text(json.dumps({**TINY_MODEL, "vision_cfg": {**TINY_MODEL["vision_cfg"], "image_size": [16, 28]}}))
    record = zeroshot(ZeroshotConfig.from_overrides(["--model", str(path), *words[2:], *SETTING]))[0]
    assert record["metrics"]["tokens"] == 1 + 4 * 7
    clip = load_clip(str(path), "random", torch.device("cpu"))
    assert clip.prepare(torch.zeros(2, 3, 40, 40, dtype=torch.uint8)).shape == (2, 3, 16, 28)


def test_names_that_bring_their_weights(model_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir()
    clip = load_clip(str(model_file), "random", torch.device("cpu"), seed=5)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY_MODEL, "preprocess_cfg": {}}))
    torch.save(clip.model.state_dict(), folder / "open_clip_pytorch_model.bin")
    brought = load_clip(f"local-dir:{folder}", "default", torch.device("cpu"))
    for one, other in zip(clip.model.parameters(), brought.model.parameters(), strict=True):
        assert torch.equal(one, other)
    untrained = load_clip(f"local-dir:{folder}", "random", torch.device("cpu"), seed=6)
    assert not torch.equal(untrained.tower.conv1.weight, clip.tower.conv1.weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(
        InputError, match=r"no such weights of local-dir.*\(valid: default, a file of weights, random\)"
    ):
        load_clip(f"local-dir:{folder}", "openai", torch.device("cpu"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("T5Tokenizer requires the SentencePiece library"), "needs the package sentencepiece; pip install"),
        (ModuleNotFoundError("No module named 'transformers'", name="transformers"), "needs the package transformers"),
        (OSError("We couldn't connect to 'https://huggingface.co'"), "its tokenizer cannot be loaded: We couldn't"),
    ],
)
def test_a_tokenizer_that_is_missing_is_named_before_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(open_clip, "get_tokenizer", fails)
    monkeypatch.setattr(open_clip, "create_model", lambda *args, **kwargs: pytest.fail("weights were loaded first"))
    with pytest.raises(InputError, match=message):
        load_clip("ViT-B-16-SigLIP", "webli", torch.device("cpu"))
