"""What people really write into a study: whatever a dry run accepts, a sweep runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_studies import sweep_values

from routing.cli import main
from routing.errors import InputError
from routing.files.yaml_io import dump
from search_spaces import dry_run
from search_spaces.ledger.folder import check_unchanged, write_study
from search_spaces.study.load import parse_study

SPACE = sweep_values()["space"]


@pytest.mark.parametrize(
    ("key", "parameter", "message"),
    [
        ("training.batch_size", {"float": [32, 64]}, r"training.batch_size is a whole number; write int: \[32, 64\]"),
        ("training.batch_size", {"float": [31.5, 64.5]}, r"training.batch_size: must be a valid integer"),
        ("training.batch_size", [64, 64.0], r"training.batch_size: the choices 64 and 64.0 are the same run"),
        ("training.batch_size", [64, "64"], r"the choices 64 and '64' are the same run"),
        ("evaluation.operating_points", [True, 1], r"the choices True and 1 are the same run"),
        ("evaluation.operating_points", [True, "true"], r"the choices True and 'true' are the same run"),
        ("model.experts.big", [[64], [64.0]], r"the choices \[64\] and \[64.0\] are the same run"),
        ("training.learning_rate", [1.0e-3, "0.001"], r"the choices 0.001 and '0.001' are the same run"),
    ],
)
def test_values_are_compared_by_the_run_they_make(key: str, parameter: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_study(sweep_values(space={**SPACE, key: parameter}))


def test_values_that_differ_in_the_run_stay() -> None:
    space = {**SPACE, "training.batch_size": [32, 64], "model.experts.big": [[64], [64, 64]]}
    parse_study(sweep_values(space={**space, "training.learning_rate": {"float": [1, 2]}}))


@pytest.mark.parametrize("resources", [{"gpu": 1.5}, {"cpu": 1.5}, {"custom": {"tpu": 2.5}}])
def test_above_one_a_resource_is_whole(resources: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"resources\.\w+ [12]\.5: above 1 it is whole \(valid: [12], [23]"):
        parse_study(sweep_values(resources=resources))
    parse_study(sweep_values(resources={"gpu": 0.25, "cpu": 2}))


def test_a_constraint_that_nothing_meets() -> None:
    with pytest.raises(InputError, match=r"no setting of this study can run: flops <= 10 does not hold for any of"):
        dry_run(parse_study(sweep_values(constraints=["flops <= 10"])))


def test_fewer_settings_than_trials() -> None:
    space = {"seed": [0, 1, 2], "model.router.mode": ["top_k", "random"]}
    assert "the space has 6 settings, fewer than 40 trials" in dry_run(parse_study(sweep_values(space=space)), 40)
    assert "settings, fewer" not in dry_run(parse_study(sweep_values(space=space)), 6)
    assert "settings, fewer" not in dry_run(
        parse_study(sweep_values(space={**space, "training.learning_rate": {"float": [0.001, 0.01]}})), 40
    )


def test_a_machine_without_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("search_spaces.on_ray.session.machine_gpus", lambda: 0)
    path = tmp_path / "study.yaml"
    path.write_text(dump(sweep_values(resources={"gpu": 1})))
    assert main(["sweep", str(path), "--dry-run"]) == 2
    assert "a trial needs 1 CPUs and 1 GPUs; this machine has" in capsys.readouterr().err
    assert main(["sweep", str(path), "--dry-run", "--address", "10.0.0.1:6379"]) == 0


def test_changed_choices_are_told_what_is_possible_at_once(tmp_path: Path) -> None:
    old = parse_study(sweep_values(space={**SPACE, "training.batch_size": [32, 64]}))
    write_study(tmp_path, old)
    for parameter in ([32, 64, 128], {"int": [32, 64]}):
        new = parse_study(sweep_values(space={**SPACE, "training.batch_size": parameter}))
        with pytest.raises(
            InputError, match=r"choices cannot change in a folder: start another --out with --warm-start"
        ):
            check_unchanged(tmp_path, new, force=False)
    other = parse_study(sweep_values(space={**SPACE, "training.batch_size": [32, 64]}, sampler={"name": "tpe"}))
    with pytest.raises(InputError, match=r"accept it with --force"):
        check_unchanged(tmp_path, other, force=False)
