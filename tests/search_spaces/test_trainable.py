"""The worker's side without Ray's cluster: steps, reuse, stopping, failing, finishing twice."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from routing.config.run import RunConfig
from routing.errors import RoutingError
from routing.files.mirror import Mirror
from routing.files.results_folder import METRICS_FILE
from routing.trainable import RunTrainable

CONFIG = RunConfig.from_dict({"training.num_epochs": 2})


def trial(out: Path, run: str = "trivial", **changes: Any) -> dict[str, Any]:
    config = CONFIG.replace(**changes) if changes else CONFIG
    return {"run": f"fake_runs:{run}", "config": json.dumps(config.model_dump(mode="json")), "out": str(out)}


def test_a_step_per_epoch_then_the_result(tmp_path: Path) -> None:
    worker = RunTrainable(trial(tmp_path / "0"))
    rows = [worker.step() for _ in range(3)]
    assert [row.get("epoch") for row in rows] == [1, 2, None]
    assert rows[2]["done"]
    final = json.loads(rows[2]["final"])
    assert final["metrics"]["epochs"] == 2
    assert len(final["points"]) == 1


def test_what_a_trial_prints_is_in_its_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    worker = RunTrainable(trial(tmp_path / "0", "talkative"))
    while not worker.step().get("done"):
        pass
    worker.reset_config(trial(tmp_path / "1"))
    worker.step()
    worker.cleanup()
    assert (tmp_path / "0" / "log.txt").read_text() == "epoch 1\nepoch 2\n"
    assert not (tmp_path / "1" / "log.txt").exists()
    assert capfd.readouterr().out == ""


def test_a_run_waits_only_where_it_may_be_stopped(tmp_path: Path) -> None:
    worker = RunTrainable({**trial(tmp_path, **{"training.num_epochs": 4}), "pauses": [3]})
    assert worker.step()["epoch"] == 1
    deadline = time.monotonic() + 10
    while _epochs(tmp_path) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert _epochs(tmp_path) == 3
    assert [worker.step().get("epoch") for _ in range(4)] == [2, 3, 4, None]
    worker.reset_config({**trial(tmp_path / "1", **{"training.num_epochs": 4}), "pauses": [1]})
    assert worker.step()["epoch"] == 1
    worker.reset_config(trial(tmp_path / "2"))
    assert _epochs(tmp_path / "1") == 1
    worker.cleanup()


def _epochs(out: Path) -> int:
    return len((out / "history.csv").read_text().splitlines()) - 1


def test_a_stopped_run_ends_at_its_report_and_the_worker_goes_on(tmp_path: Path) -> None:
    worker = RunTrainable(trial(tmp_path / "0"))
    assert worker.step()["epoch"] == 1
    before = threading.active_count()
    assert worker.reset_config(trial(tmp_path / "1"))
    assert threading.active_count() == before
    assert not (tmp_path / "0" / METRICS_FILE).exists()
    assert [worker.step().get("epoch") for _ in range(3)] == [1, 2, None]
    worker.cleanup()
    worker.cleanup()


def test_a_run_that_raises_costs_neither_worker_nor_words(tmp_path: Path) -> None:
    worker = RunTrainable(trial(tmp_path / "0", "troubled", seed=1))
    row = worker.step()
    assert (row["done"], row["failed"], row["disk_full"]) == (True, "ValueError: no luck with this one", False)
    assert "Traceback" in (tmp_path / "0" / "error.txt").read_text()
    worker.reset_config(trial(tmp_path / "1", "troubled", seed=2))
    assert worker.step()["failed"] == "loss is nan in epoch 2"
    assert not (tmp_path / "1" / "error.txt").exists()
    worker.reset_config(trial(tmp_path / "2", "missing_function"))
    missing = worker.step()
    assert "module 'fake_runs' has no attribute 'missing_function' (on node " in missing["failed"]
    assert (missing["lacks"], row["lacks"]) == ("node", "")


def test_the_traceback_reaches_the_mirror_of_a_node_that_shares_no_folder(tmp_path: Path) -> None:
    out, mirror = tmp_path / "elsewhere" / "trials" / "0", tmp_path / "mirror"
    worker = RunTrainable({**trial(out, "troubled", seed=1), "mirror": f"file://{mirror}"})
    assert worker.step()["failed"] == "ValueError: no luck with this one"
    assert "Traceback" in (mirror / "trials" / "0" / "error.txt").read_text()
    assert not out.parent.exists()


def test_a_mirror_that_is_silent_for_a_while_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, mirror, pauses = tmp_path / "elsewhere" / "trials" / "0", tmp_path / "mirror", []
    silent = iter([True, False, True, True])  # first epoch, second epoch, twice at the end
    push = Mirror.push

    def sometimes(self: Mirror, *args: Any, **options: Any) -> None:
        if next(silent, False):
            raise RoutingError(f"{self.url} does not answer")
        push(self, *args, **options)

    monkeypatch.setattr(Mirror, "push", sometimes)
    monkeypatch.setattr("routing.trainable.time.sleep", pauses.append)
    worker = RunTrainable({**trial(out), "mirror": f"file://{mirror}"})
    assert [worker.step().get("epoch") for _ in range(2)] == [1, 2]
    assert "final" in worker.step()
    assert pauses == [1, 5]
    assert {"metrics.json", "history.csv"} <= {path.name for path in (mirror / "trials" / "0").iterdir()}


def test_no_room_on_the_disk_is_told_apart(tmp_path: Path) -> None:
    worker = RunTrainable(trial(tmp_path / "0", "out_of_room"))
    assert worker.step()["disk_full"] is True


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    worker = RunTrainable(trial(tmp_path))
    first = [worker.step() for _ in range(3)][2]
    worker.reset_config(trial(tmp_path))
    assert worker.step()["final"] == first["final"]
    (tmp_path / METRICS_FILE).write_text("garbage")
    worker.reset_config(trial(tmp_path))
    assert worker.step()["epoch"] == 1
    worker.cleanup()
