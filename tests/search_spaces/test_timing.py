"""How long a study takes, said before it runs."""

from __future__ import annotations

import pytest
from small_studies import sweep_values

from routing.cli import main
from routing.commands.timing import RunTime
from routing.config.run import RunConfig
from search_spaces import how_long
from search_spaces.study.load import parse_study

SPACE = {"model.name": {"choice": ["full_compute", "cheap_compute"]}}


def test_three_settings_are_timed_and_those_between_interpolated(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def time_run(config: RunConfig) -> RunTime:
        seen.append(config.model.name)
        return RunTime(2.0, 1.0) if config.model.name == "cheap_compute" else RunTime(6.0, 3.0)

    monkeypatch.setattr("routing.commands.timing.time_run", time_run)
    study = parse_study(sweep_values(space=SPACE, trials=10, base={"training.num_epochs": 5}))
    line = how_long(study, concurrency=1)
    # cheap: 5 * 2 + 1 = 11 s, full: 5 * 6 + 3 = 33 s, half of the trials each: 10 * 22 s
    assert line.startswith("time: about 3 min 40 s on this machine, 1 trials at once")
    assert "cheapest setting takes 11 s" in line
    assert "most expensive 33 s" in line
    assert seen[0] == "cheap_compute"
    assert seen[-1] == "full_compute"


def test_a_few_real_steps(capsys: pytest.CaptureFixture[str]) -> None:
    base = {"training.num_epochs": 3, "dataset": {"num_train": 300, "num_val": 100}}
    line = how_long(parse_study(sweep_values(space=SPACE, base=base)), concurrency=1)
    assert line.startswith("time: about ")
    missing = parse_study(sweep_values(space=SPACE, base={"dataset": {"name": "cifar10", "root": "nowhere"}}))
    assert how_long(missing, concurrency=1).startswith("time: not measured: ")
    assert main(["sweep", "digits", "--dry-run", "--no-timing"]) == 0
    assert "time: " not in capsys.readouterr().out
