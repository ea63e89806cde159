"""Studies of a training script of the user's: free keys, what is refused before the first trial, what a run leaves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from routing.config.run import RunConfig
from routing.config.script import ScriptRun, read_run
from routing.errors import InputError, TrialFailed
from routing.files.record import read_history, read_metrics
from routing.quantities import find
from routing.script import run
from search_spaces.ledger.folder import dump_study
from search_spaces.plan import blueprint, dry_run
from search_spaces.study.ablation import declared_arms
from search_spaces.study.load import parse_study
from search_spaces.study.script import ScriptAblationStudy, ScriptSweepStudy

SCRIPT = """
from dataclasses import dataclass

from pydantic import BaseModel, Field

value = 3


class Config(BaseModel):
    lr: float = Field(gt=0, le=1)
    layers: int = 2


@dataclass
class Plain:
    lr: float
    layers: int = 2


def train(config, report, seed, out):
    done = int((out / "done").read_text()) if (out / "done").exists() else 0
    for step in range(done + 1, 4):
        (out / "done").write_text(str(step))
        report(step, error=config["lr"] / step, size=10)
    return {"error": config["lr"] / 3, "size": 10, "first": done + 1, "note": "text"}


def curve(config):
    points = [{"knob": "share", "knob_value": s, "error": config["lr"] / s, "size": 10 * s} for s in (0.5, 1.0)]
    return {"error": config["lr"], "size": 10, "points": points}


def no_config():
    pass


def wants_more(config, model):
    pass


def backwards(config, report):
    report(2, error=1.0)
    report(1, error=1.0)


def nothing(config):
    pass


def gives(config):
    return {"error": config["value"], "size": 1}
"""


@pytest.fixture(autouse=True)
def _in_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (folder / "a_script.py").write_text(SCRIPT)
    monkeypatch.chdir(folder)
    yield
    sys.modules.pop("a_script", None)


def values(**changes: Any) -> dict[str, Any]:
    study = {
        "kind": "sweep",
        "name": "own",
        "run": "a_script:train",
        "base": {"layers": 2, "inner": {"kind": "a"}},
        "space": {"lr": {"float": [0.1, 1.0]}, "extra": {"int": [1, 2], "when": {"mode": "x"}}, "mode": ["x", "y"]},
        "objectives": [
            {"metric": "error", "goal": "minimize", "reference": 1.0},
            {"metric": "size", "goal": "minimize", "reference": 100},
        ],
        "trials": 4,
        "sampler": {"name": "random"},
    }
    return {key: value for key, value in {**study, **changes}.items() if value is not ...}


def test_a_study_of_free_keys_and_back() -> None:
    study = parse_study(values(enqueue=[{"lr": 0.5, "mode": "y"}], steps=3))
    assert isinstance(study, ScriptSweepStudy)
    plan = blueprint(study)
    config = plan.configure({"config.lr": 0.5, "config.mode": "y"})
    assert isinstance(config, ScriptRun)
    assert config.config == {"layers": 2, "inner": {"kind": "a"}, "lr": 0.5, "mode": "y"}
    assert config.dotted()["config.inner.kind"] == "a"
    assert config.num_epochs == 3
    assert parse_study(dump_study(study)) == study
    assert "script: a_script:train" in dry_run(study)
    error, size = find("error"), find("size")
    assert error is not None
    assert size is not None
    assert (error.is_cost, size.is_cost) == (False, True)


def test_arms_of_a_script_are_paired_and_run_to_the_end() -> None:
    study = parse_study(values(kind="ablation", space=..., trials=..., sampler=..., factors={"lr": [0.1, 0.2]},
                               seeds=[4, 5], base={"lr": 1.0}, steps=3))  # fmt: skip
    assert isinstance(study, ScriptAblationStudy)
    assert study.scheduler.name == "none"
    arms = declared_arms(study)
    assert [arm.name for arm in arms] == ["baseline", "lr=0.1", "lr=0.2"]
    runs = [arm.config(study, 5) for arm in arms]
    assert [run.dotted() for run in runs] == [{"seed": 5, "config.lr": lr} for lr in (1.0, 0.1, 0.2)]


@pytest.mark.parametrize("schema", ["Config", "Plain"])
def test_a_class_brings_names_and_ranges_back(schema: str) -> None:
    base = values(base=..., space={"lr": {"float": [0.1, 1.0]}}, config=f"a_script:{schema}")
    config = blueprint(parse_study(base)).configure({"config.lr": 0.5})
    assert config.dotted() == {"seed": 0, "config.lr": 0.5, "config.layers": 2}
    with pytest.raises(InputError, match=r"unknown key 'layer'; did you mean 'layers'\?"):
        parse_study({**base, "base": {"layer": 3}})
    with pytest.raises(InputError, match=r"layers: input should be a valid integer.*not 'many'"):
        parse_study({**base, "base": {"layers": "many"}})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run": "a_script"}, "run 'a_script': not a place of code"),
        ({"run": "there_is_none:train"}, "run there_is_none:train: .* no module 'there_is_none'"),
        ({"run": "a_script:trian"}, "a_script has no 'trian'; did you mean 'train'"),
        ({"run": "a_script:value"}, "run a_script:value: it is int, which cannot be called"),
        ({"run": "a_script:no_config"}, "it takes no config"),
        ({"run": "a_script:wants_more"}, "it needs 'model'; it is called as"),
        ({"evaluate": "a_script:train"}, "evaluate a_script:train: it needs 'report'"),
        ({"command": "python x.py {out}"}, "either run or command"),
        ({"run": ..., "command": "no_such_program {out}"}, "no program 'no_such_program'"),
        ({"run": ..., "command": "python x.py {rate} {out}"}, "no key fills {rate}"),
        ({"run": ..., "command": "python x.py {lr}"}, "{out} is missing"),
        ({"scheduler": {"name": "asha"}}, "early stopping needs steps"),
        ({"steps": "epochs"}, "steps: no key 'epochs'"),
        ({"constraints": ["flops <= 1e6"]}, "constraints are not for studies of a script"),
        ({"constraints": ["error <= 0.5"]}, "constraints are not for studies of a script"),
        ({"config": "a_script:value"}, "neither a pydantic model nor a dataclass"),
        (
            {"objectives": [{"metric": "test_error", "goal": "minimize", "reference": 1}]},
            "is read by confirm",
        ),
        ({"objectives": [{"metric": "val_accuracy", "goal": "minimize", "reference": 1}]}, "better the other way"),
        ({"enqueue": [{"lr": 7.0}]}, "config.lr is never 7.0"),
    ],
)
def test_what_is_refused_before_the_first_trial(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why) as raised:
        parse_study(values(**changes), "own.yaml")
    assert str(raised.value).startswith("own.yaml")
    assert "\n" not in str(raised.value)


def one(script: str, **config: Any) -> ScriptRun:
    return ScriptRun.from_dict({"run": f"a_script:{script}", "config": config, "metrics": ["error", "size"]})


def test_what_a_run_leaves_and_goes_on_from(folder: Path) -> None:
    rows: list[dict[str, Any]] = []

    def stop_after_two(row: dict[str, Any]) -> None:
        rows.append(row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    out = folder / "trial"
    with pytest.raises(KeyboardInterrupt):
        run(one("train", lr=0.3), stop_after_two, out)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert not (out / "metrics.json").exists()
    metrics = run(one("train", lr=0.3), None, out)
    assert metrics["first"] == 3
    assert [row["epoch"] for row in read_history(out)] == [1, 2, 3]
    assert read_metrics(out)["points"] == [
        {"knob": "", "knob_value": None, "is_default": True, "error": 0.3 / 3, "size": 10, "first": 3, "note": "text"}
    ]
    assert read_run(out / "config.yaml") == one("train", lr=0.3)
    with pytest.raises(InputError, match="a run of a training script"):
        RunConfig.from_yaml(out / "config.yaml")


def test_one_training_may_give_several_points(folder: Path) -> None:
    run(one("curve", lr=0.2), None, folder / "trial")
    points = read_metrics(folder / "trial")["points"]
    assert [(p["knob_value"], p["is_default"], p["size"]) for p in points] == [
        (None, True, 10), (0.5, False, 5.0), (1.0, False, 10.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "config", "why"),
    [
        ("nothing", {}, "returns None, not a dict of metrics"),
        ("backwards", {}, "step 1 .*each above the one before"),
        ("gives", {"value": None}, "error is None, not a number"),
        ("gives", {"value": [1]}, r"error is \[1\], not a number"),
        ("curve", {"lr": float("inf")}, "error is inf, not a number"),
    ],
)
def test_metrics_that_are_none(script: str, config: dict[str, Any], why: str, folder: Path) -> None:
    with pytest.raises(TrialFailed, match=why):
        run(one(script, **config), None, folder / "trial")
    with pytest.raises(TrialFailed, match="returns no 'speed', which is an objective"):
        run(one("curve", lr=1.0).model_copy(update={"metrics": ("speed",)}), None, folder / "trial")


PROGRAM = """
import json, sys, pathlib
rate, out = float(sys.argv[1]), pathlib.Path(sys.argv[2])
with (out / "progress.jsonl").open("w") as file:
    for step in (1, 2):
        file.write(json.dumps({"step": step, "error": rate / step}) + "\\n")
if rate > 1:
    sys.exit("the rate is too high")
(out / "result.json").write_text(json.dumps({"error": rate, "size": 1}))
"""


def test_a_command(folder: Path) -> None:
    (folder / "program.py").write_text(PROGRAM)
    command = f"{sys.executable} program.py {{lr}} {{out}}"
    config = ScriptRun.from_dict({"command": command, "config": {"lr": 0.5}, "metrics": ["error"]})
    rows: list[dict[str, Any]] = []
    assert run(config, rows.append, folder / "trial")["error"] == 0.5
    assert [(row["epoch"], row["error"]) for row in rows] == [(1, 0.5), (2, 0.25)]
    with pytest.raises(TrialFailed, match="ended with exit code 1: the rate is too high"):
        run(config.model_copy(update={"config": {"lr": 2}}), None, folder / "trial")
    assert json.loads((folder / "trial" / "metrics.json").read_text())["metrics"]["error"] == 0.5
