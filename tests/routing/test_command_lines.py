"""What people really type: names that look like numbers, odd tags, endless lists, the wrong kind of file."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from routing.cli import main
from routing.config.run import RunConfig
from routing.errors import InputError, RoutingError, choices, nearest
from routing.files.yaml_io import load_text
from search_spaces import load_study

FOLDER = ["--dataset.name", "image_folder", "--dataset.input_size", "32"]
SCORES = ["--dataset.name", "koniq10k", "--dataset.input_size", "64", "--dataset.root", "x", "--model.name", "hyperiqa"]
ODD_NAMES = ["d/set #2", "2024-01-05", "2024", "on", "1e5", "12:30", "null", "[a]", "{b: 1}", "a: b", "'quoted'", "- x"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_path_is_taken_as_it_stands(name: str) -> None:
    assert RunConfig.from_yaml(None, [*FOLDER, "--dataset.root", name]).dataset.root == Path(name)  # type: ignore[attr-defined]
    assert RunConfig.from_yaml(None, [*SCORES, f"--dataset.csv={name}"]).dataset.csv == Path(name)  # type: ignore[attr-defined]


def test_the_model_of_a_file_says_what_is_text(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("model.name: vit\ndataset: {name: image_folder, root: data, input_size: 32}\n")
    config = RunConfig.from_yaml(path, ["--model.weights", "2024", "--dataset.root", "010"])
    assert (config.model.weights, config.dataset.root) == ("2024", Path("010"))  # type: ignore[attr-defined]
    assert RunConfig.from_yaml(path, ["--model.weights", "null"]).model.weights is None  # type: ignore[attr-defined]


def test_numbers_booleans_lists_and_null_are_read_as_before() -> None:
    words = ["--seed", "010", "--training.learning_rate", "1e-3", "--evaluation.operating_points", "off"]
    config = RunConfig.from_yaml(None, [*words, "--model.experts.big", "[64, 32]", "--evaluation.knob_value", "null"])
    assert (config.seed, config.training.learning_rate, config.evaluation.operating_points) == (10, 1e-3, False)
    assert config.model.experts.big == (64, 32)  # type: ignore[attr-defined]
    assert config.evaluation.knob_value is None
    assert load_text("[010, -007, 0o17, 0x1f, 12:30, 2024-01-05, 1_000]")[0][:2] == [10, -7]
    assert load_text("[12:30, 12:30.5, 2024-01-05]")[0] == ["12:30", "12:30.5", "2024-01-05"]


def test_home_is_expanded_from_the_command_line_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "run.yaml"
    path.write_text(
        "dataset: {name: image_folder, root: ~/pets, input_size: 32}\nmodel: {name: vit, weights: ~/w.pt}\n"
    )
    for config in (
        RunConfig.from_yaml(path),
        RunConfig.from_yaml(None, [*FOLDER, "--dataset.root", "~/pets", "--model.name=vit", "--model.weights=~/w.pt"]),
    ):
        assert config.dataset.root == tmp_path / "pets"  # type: ignore[attr-defined]
        assert config.model.weights == str(tmp_path / "w.pt")  # type: ignore[attr-defined]
    assert RunConfig.from_yaml(None, [*FOLDER, "--dataset.root", "~nobody-of-this-name/x"]).dataset.root  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "!!float ''"], "value of --seed: not valid YAML"),
        (["--seed", "!!bool foo"], "value of --seed: not valid YAML: a value does not fit the tag"),
        (["--seed", "!!timestamp foo"], "value of --seed: not valid YAML: a value does not fit the tag"),
        (["--seed", "!!int ''"], "value of --seed: not valid YAML"),
        (["--seed", "!!set [a]"], "not valid YAML"),
        (["--seed", "!!python/object:os.system x"], "could not determine a constructor"),
        (["--seed", "[" + "1," * 500_000 + "1]"], "value of --seed: too long (valid: 1,000,000 characters"),
        (["--model.experts.big", "64,64"], "model.experts.big: a list is needed, not '64,64'; write '[64, 64]'"),
        (["--model.experts.big", "64"], "model.experts.big: a list is needed, not 64; write '[64]'"),
        (["--data", "mnist"], "unknown key 'data'; did you mean 'dataset.name mnist'?"),
        (
            ["--dataset", "mnist"],
            "dataset: must be a valid dictionary, not 'mnist'; write dataset: {name: mnist}, or dataset.name",
        ),
        (["--Seed", "3"], "unknown key 'Seed'; did you mean 'seed'?"),
        (["--model.name", "VIT"], "unknown model 'VIT'; did you mean 'vit'?"),
        (["--dataset.root", ""], "dataset.root: "),
    ],
)
def test_one_line_and_exit_code_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    started = time.process_time()
    assert main(["train", *(FOLDER if "--dataset.root" in words else []), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert (error.count("\n"), len(error) < 320) == (1, True)
    assert time.process_time() - started < 3


def test_the_wrong_kind_of_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, run = tmp_path / "s.yaml", tmp_path / "r.yaml"
    study.write_text("kind: sweep\nname: s\n")
    run.write_text("model.name: vit\nseed: 3\n")
    for words, message in (
        (["train", "--config", str(study)], f"{study}: this is a study, not a run; write routing sweep {study}"),
        (["sweep", str(run)], f"{run}: this is a run, not a study; write routing train --config {run}"),
        (["train", "--config", str(tmp_path / "r.yml")], "r.yml: no such file; did you mean 'r.yaml'?"),
        (["sweep", str(tmp_path / "s.yml")], "s.yml: no such file; did you mean 's.yaml'?"),
        (["sweep", str(tmp_path / "mine.yaml")], "mine.yaml: no such file\n"),  # an ending alone is no likeness
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    study.write_text(
        "kind: sweep\nname: s\ntrials: 2\nspace: {seed: [1, 2]}\nsampler: tpe\n"
        "objectives: [{metric: flops, goal: minimize, reference: 1}]\n"
    )
    with pytest.raises(
        InputError, match=r"s.yaml:5: sampler: must be a valid dictionary.*write sampler: \{name: tpe\}"
    ):
        load_study(study)


def test_no_message_is_endless() -> None:
    text = str(RoutingError("data: " + choices(f"class_{index}" for index in range(1505)) + " are not those of a.csv"))
    assert "class_0, class_1" in text
    assert "(1,505 in all) are not those of a.csv" in text
    long = str(RoutingError("x" * 11_000 + " at the end"))
    assert (len(long), long.endswith("at the end")) == (300, True)
    assert nearest("VAL_ACCURACY", ["val_accuracy", "flops"]) == "; did you mean 'val_accuracy'?"
