"""What a person sees: hypervolume, durations, lines; and the plan before it runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from small_studies import ablation_values, sweep_values

from routing.commands.console import duration
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.yaml_io import load_file
from routing.objectives import Objective, volume_of
from search_spaces import dry_run, load_study
from search_spaces.driver import plateau_of
from search_spaces.progress import SweepProgress
from search_spaces.stopping import Plateau
from search_spaces.study.ablation import planned_trials
from search_spaces.study.json_schema import json_schema
from search_spaces.study.load import parse_study
from search_spaces.study.schema import StopSection
from search_spaces.study.shipped import shipped

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.0),
    Objective(metric="flops", goal="minimize", reference=10.0),
)


def test_hypervolume_by_hand() -> None:
    # (0.5, 2) and (0.8, 6): 0.5 * (10 - 2) + (0.8 - 0.5) * (10 - 6) = 5.2; points beyond the reference add nothing
    points = [[0.8, 6.0], [0.5, 2.0], [0.4, 7.0], [0.9, 12.0], [-0.1, 1.0]]
    linear = (OBJECTIVES[0], OBJECTIVES[1].model_copy(update={"scale": "linear"}))
    assert volume_of(points, linear) == pytest.approx(5.2)
    # a cost in decades below the reference: 0.5 * 2 + (0.8 - 0.5) * 1
    assert volume_of([[0.5, 0.1], [0.8, 1.0], [0.9, 12.0]], OBJECTIVES) == pytest.approx(1.3)
    assert volume_of([], OBJECTIVES) == 0.0
    assert volume_of([[0.25]], OBJECTIVES[:1]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_plain_line_per_trial_away_from_a_terminal(tmp_path: Path) -> None:
    stream = io.StringIO()
    config = RunConfig.from_dict({"model.router.mode": "top_k", "training.num_epochs": 2})
    with SweepProgress("small", OBJECTIVES, 3, tmp_path, done=1, points=[("", [0.5, 2.0])], stream=stream) as progress:
        progress.started(4, config)
        progress.reported(4, {"epoch": 1})
        progress.reported(4, {"epoch": 2})
        progress.refresh()
        progress.finished(4, "COMPLETE", "", [[0.8, 6.0]])
        progress.say("a note")
        progress.finished(5, "PRUNED", "stopped: rank 3 of 4 at epoch 1", [])
    first, note, last = stream.getvalue().splitlines()
    assert first == ("[2/3] trial 4  attention_routing/top_k  80.00 %, 6  (0 s)  |  about 0 s left  |  0 s elapsed")
    assert note == "a note"
    assert last.startswith("[3/3] trial 5  stopped: rank 3 of 4 at epoch 1  |  ")
    volume = "hypervolume 0.416 (log)"  # 0.5 log10(10 / 2) + 0.3 log10(10 / 6)
    assert progress.best.words() == ["best 80.00 %, 6 (attention_routing/top_k)", volume]


def test_dry_run_says_trials_cost_and_space() -> None:
    text = dry_run(load_study("digits"))
    for part in ("44 trials", "about 4 minutes on 2 cores", "multiply-adds per image", "moasha", "first of all:"):
        assert part in text
    assert dry_run(parse_study(sweep_values()), trials=9).startswith("sweep 'small': 9 trials")
    text = dry_run(parse_study(ablation_values()))
    assert "ablation 'parts': 10 trials" in text
    assert "mode=top_k: model.router.mode = top_k" in text
    assert "training: 10 x 1 epochs" in text
    assert "x 1 to 8 epochs" in dry_run(parse_study(ablation_values(factors={"training.num_epochs": [4, 8]})))


def test_dry_run_says_when_settings_cost_more_than_the_reference() -> None:
    def said(reference: float) -> bool:
        task, cost = sweep_values()["objectives"]
        study = parse_study(sweep_values(objectives=[task, {**cost, "reference": reference}]))
        return "100% of the settings cost more than the reference of flops, 1,000, and" in dry_run(study)

    assert said(1e3)
    assert not said(1e9)
    with pytest.raises(InputError, match=r"flops <= 1.0e3 does not hold for any of \d+ settings"):
        dry_run(parse_study(sweep_values(constraints=["flops <= 1.0e3"])))
    assert "warning" not in dry_run(load_study("digits"))


def test_dry_run_of_what_cannot_run_says_why() -> None:
    base = {"dataset": {"name": "image_folder", "root": "nowhere"}}
    with pytest.raises(InputError, match=r"dataset\.root nowhere: no such folder"):
        dry_run(parse_study(sweep_values(base=base)))


def test_planned_trials() -> None:
    assert planned_trials(parse_study(sweep_values(trials=7))) == 7
    assert planned_trials(parse_study(ablation_values())) == 5 * 2
    on = {"a": {"on": {"model.router.mode": "top_k"}}, "b": {"on": {"model.aggregator": "mean"}}}
    assert planned_trials(parse_study(ablation_values(design="leave_one_out", factors=on))) == 3 * 2
    grid = {"dataset.patch_grid_size": [4, 8], "model.router.mode": ["top_k", "random", "sigmoid_gate"]}
    assert planned_trials(parse_study(ablation_values(design="grid", factors=grid))) == (1 + 6) * 2


def test_the_json_schema_describes_both_kinds() -> None:
    schema = json_schema()
    for studies in (schema["then"], schema["else"]):
        assert set(studies["discriminator"]["mapping"]) == {"sweep", "ablation"}
    assert schema["$defs"]["SweepStudy"]["properties"]["space"]["description"]


def test_the_json_schema_tells_studies_of_scripts_from_others() -> None:
    """Every shipped study fits it, and so does a script's; a key of the other kind does not."""
    valid = Draft202012Validator(json_schema()).is_valid
    for path in shipped().values():
        assert valid(load_file(path)[0]), path
    script = {
        "kind": "sweep", "name": "mine", "run": "my_train:train", "steps": "epochs", "base": {"epochs": 4}, "trials": 3,
        "space": {"lr": {"float": [1e-3, 0.1], "log": True}, "width": [1, 2]},
        "objectives": [{"metric": "error", "goal": "minimize", "reference": 1}],
    }  # fmt: skip
    assert valid(script)
    assert valid({**{key: value for key, value in script.items() if key != "run"}, "command": "train {lr} {out}"})
    assert not valid({**script, "command": "both"})
    assert not valid({**script, "constraints": 3})
    assert not valid({key: value for key, value in script.items() if key != "run"}), "error is no metric of a run"
    ablation = {key: value for key, value in script.items() if key not in ("space", "trials")}
    assert valid({**ablation, "kind": "ablation", "factors": {"lr": [0.1, 0.2]}, "seeds": [0, 1]})


def test_a_plateau_is_seen_coming_and_survives_a_restart(tmp_path: Path) -> None:
    section = StopSection(hypervolume_gain=0.1, over=3)
    task = OBJECTIVES[:1]  # hypervolume is the best accuracy
    gains = [[[0.5]], [[0.6]], [], [[0.61]], [[0.62]], [[0.7]], [[0.7]], [[0.71]], [[0.72]]]
    plateau, left = Plateau(section, task), []
    for points in gains:
        plateau.add(points)
        left.append(plateau.left)
    # .6 after a failed trial, .61 and .62: not a tenth more than .6 three trials ago; .7 is
    assert left == [3, 3, 2, 1, 0, 3, 2, 1, 0]
    assert Plateau(section, task, gains[:4]).left == 1
    assert Plateau(section, task, [[], [], [], []]).left == 3  # nothing found yet is no plateau
    stream = io.StringIO()
    with SweepProgress("s", task, 9, tmp_path, plateau=Plateau(section, task, gains[:2]), stream=stream) as progress:
        for number, points in enumerate(gains[2:5]):
            progress.finished(number, "COMPLETE", "", points)
            said = ["ends in 2 trials without a gain", "ends in 1 trial without", "ends with the trials that"][number]
            assert said in stream.getvalue().splitlines()[-1]
    assert "grew by no more than 0.1 of itself over 3 trials" in plateau.words()


def test_a_study_says_when_it_ends() -> None:
    study = parse_study(sweep_values(stop={"hypervolume_gain": 0.005, "over": 20}))
    assert plateau_of(study, []) is not None
    assert plateau_of(parse_study(sweep_values()), []) is None
    with pytest.raises(InputError, match=r"stop\.over: "):
        parse_study(sweep_values(stop={"hypervolume_gain": 0.005, "over": 0}))
    with pytest.raises(InputError, match="constraints: "):
        parse_study(sweep_values(constraints=[f"flops <= {n}e6" for n in range(1, 7)]))
