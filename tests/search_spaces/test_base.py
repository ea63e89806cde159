"""Keys of the command line laid over the base of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_studies import sweep_values

from routing.cli import main
from routing.errors import InputError
from routing.files.yaml_io import dump
from search_spaces import load_study

SCRIPT = """
kind: sweep
name: mine
command: python train.py --lr {lr} --layers {layers} --out {out}
base: {layers: 2, net: {width: 8}}
space: {lr: {float: [0.1, 1.0]}}
objectives: [{metric: error, goal: minimize, reference: 1.0}]
trials: 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.yaml"
    base = {"dataset.name": "digits", "model": {"name": "attention_routing", "router": {"mode": "top_k"}}}
    values = sweep_values(base=base, space={"training.learning_rate": {"float": [1e-3, 1e-2]}}, enqueue=[])
    path.write_text(dump(values))
    return path


def test_nested_and_dotted_keys_of_the_base_are_changed(file: Path) -> None:
    study = load_study(file, ["--base.model.router.mode", "random", "--base.training.num-epochs=3"])
    changed = {"model.router.mode": "random", "training.num_epochs": 3}
    assert study.base == {"dataset.name": "digits", "model.name": "attention_routing", **changed}
    assert load_study(file, base=changed).base == study.base


def test_another_model_drops_the_keys_of_the_one_before(file: Path) -> None:
    assert load_study(file, ["--base.model.name", "conv_net"]).base == {
        "dataset.name": "digits",
        "model.name": "conv_net",
    }


def test_keys_of_a_script_are_free_and_below_each_other(tmp_path: Path) -> None:
    (tmp_path / "script.yaml").write_text(SCRIPT)
    study = load_study(tmp_path / "script.yaml", ["--base.layers", "3", "--base.net.width=16"])
    assert study.base == {"config.layers": 3, "config.net.width": 16}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--base.training.num_epoch", "1"], "unknown key 'training.num_epoch'; did you mean 'training.num_epochs'?"),
        (["--base.training.num_epochs", "few"], "not 'few'"),
        (["--base.training.learning_rate", "1"], "the space of the study decides about training.learning_rate"),
        (["--base.model.name", "vitt"], "did you mean 'vit'"),
        (["--base.training.num_epochs"], "'--base.training.num_epochs' has no value"),
        (["--trails", "3"], "'--trials'?"),
        (["--training.num_epochs", "3"], "No such option '--training.num_epochs'"),
    ],
)
def test_bad_words_are_one_line(words: list[str], said: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(file), "--dry-run", "--no-timing", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_they_stand_anywhere_on_the_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--base.training.num_epochs", "7", str(file), "--dry-run", "--no-timing"]) == 0
    assert "x 7 epochs" in capsys.readouterr().out


def test_what_is_not_below_base_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match=r"--seed: not below base; write --base\.KEY"):
        load_study(file, ["--seed", "1"])


def test_a_key_as_a_run_takes_it_is_answered_with_that_of_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "digits", "--training.num_epochs", "1"]) == 2
    assert "Did you mean '--base.training.num_epochs'?" in capsys.readouterr().err
