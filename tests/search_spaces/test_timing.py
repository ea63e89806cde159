"""How long a study takes, said before it runs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_studies import sweep_values

from routing.cli import main
from routing.commands import timing
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


@pytest.mark.parametrize(("points", "expected"), [(434, 0.1 + 2 * (2 + 0.5 + 4.34)), (5, 0.1 + 2 * 2.55), (0, 4.1)])
def test_of_many_operating_points_a_few_are_timed(
    points: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation 2 s, timing of inference .1 s whatever the images, points .5 s together and .01 s each."""
    clock = [0.0]

    def takes(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(timing, "measure_latency", lambda model, evaluator: takes(0.1))
    monkeypatch.setattr(timing, "evaluate_trained", lambda *run: takes(2.1))
    monkeypatch.setattr(timing, "knob_values", lambda model, evaluator: list(range(points)))
    few = SimpleNamespace(along_knob=lambda model, values: takes(0.5 + 0.01 * len(values)))
    assert timing._after(RunConfig(), None, few, scale=2.0) == pytest.approx(expected)  # type: ignore[arg-type]


def test_a_few_real_steps(capsys: pytest.CaptureFixture[str]) -> None:
    base = {"training.num_epochs": 3, "dataset": {"num_train": 300, "num_val": 100}}
    line = how_long(parse_study(sweep_values(space=SPACE, base=base)), concurrency=1)
    assert line.startswith("time: about ")
    missing = parse_study(sweep_values(space=SPACE, base={"dataset": {"name": "cifar10", "root": "nowhere"}}))
    assert how_long(missing, concurrency=1).startswith("time: not measured: ")
    assert main(["sweep", "digits", "--dry-run", "--no-timing"]) == 0
    assert "time: " not in capsys.readouterr().out


def test_measured_costs_are_timed_once_per_point_whatever_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation 2 s for a fifth of the images, five points besides the default, half a second to measure one."""
    clock = [0.0]

    def takes(seconds: float) -> None:
        clock[0] += seconds

    def evaluate(config: RunConfig, *rest: object) -> None:
        takes(2.0 + 0.5 * len(config.evaluation.costs))

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(timing, "measure_latency", lambda model, evaluator: None)
    monkeypatch.setattr(timing, "evaluate_trained", evaluate)
    monkeypatch.setattr(timing, "measured_costs", lambda *given: takes(0.5))
    monkeypatch.setattr(timing, "knob_values", lambda model, evaluator: list(range(5)))
    few = SimpleNamespace(along_knob=lambda model, values: None)
    config = RunConfig.from_dict({"evaluation.costs": ["latency_ms"]})
    assert timing._after(config, None, few, scale=5.0) == pytest.approx(5 * 2 + 6 * 0.5)  # type: ignore[arg-type]
