"""Latency, memory and energy of operating points."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
from filelock import FileLock
from torch import nn

from routing.config.run import RunConfig
from routing.errors import NodeFault
from routing.evaluation import costs
from routing.runner import make_evaluator, run

CPU = torch.device("cpu")
SMALL = {"dataset.num_train": 200, "dataset.num_val": 60, "training.num_epochs": 1, "evaluation.batch_size": 60}


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def record(**keys: Any) -> Any:
    return run(RunConfig.from_dict({**SMALL, **keys}))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTING_CACHE", str(tmp_path))


def test_most_bytes_at_a_time() -> None:
    """Two results of 4 MiB live at once, whatever came before; views and inputs count nothing."""
    x = torch.zeros(1024, 1024)

    def forward() -> torch.Tensor:
        y = x + 1
        for _ in range(5):
            y = torch.relu(y).view(1024, 1024).t().t()
        return y

    assert costs.peak_bytes(forward, CPU) == 2 * 2**22
    assert costs.peak_bytes(lambda: x.view(-1), CPU) == 0
    kept: list[torch.Tensor] = []
    assert costs.peak_bytes(lambda: kept.extend(x + n for n in range(4)), CPU) == 4 * 2**22


def test_memory_of_a_network_is_its_weights_and_its_largest_layers() -> None:
    net = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 256), nn.ReLU(), nn.Linear(256, 10))
    x = torch.zeros(1024, 1024)
    with torch.no_grad():
        assert costs.peak_bytes(lambda: net(x), CPU) == 2 * 2**22  # the first layer and its activation


def test_every_operating_point_has_the_costs_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose pass takes as long as its knob says, beside a reference of 4 ms."""
    monkeypatch.setattr(costs, "PASSES", 5)
    monkeypatch.setattr(costs, "reference_pass", lambda device: lambda: spin(0.004))

    class Sleeper:
        training, default_knob_value, needs = True, 0.008, ()

        def __init__(self) -> None:
            self.seconds, self.modes = 0.008, list[bool]()

        def eval(self) -> None:
            self.modes.append(False)

        def train(self, mode: bool) -> None:
            self.modes.append(mode)

        def set_knob(self, value: float) -> None:
            self.seconds = value

        def __call__(self, images: torch.Tensor) -> Any:
            spin(self.seconds)
            return type("Output", (), {"prediction": images})()

    config, model = RunConfig.from_dict(SMALL), Sleeper()
    evaluator = make_evaluator(config, config.dataset.load(), "val", CPU)
    rows = costs.measured_costs(("latency_ratio", "latency_ms"), model, evaluator, [0.016, 0.002], 1)  # type: ignore[arg-type]
    assert [list(row) for row in rows] == [["latency_ratio", "latency_ms"]] * 3
    assert [row["latency_ms"] for row in rows] == pytest.approx([8, 16, 2], rel=0.25)
    assert [row["latency_ratio"] for row in rows] == pytest.approx([2, 4, 0.5], rel=0.25)
    assert (model.seconds, model.modes) == (0.008, [False, True])


def test_costs_stand_in_the_record_and_only_where_asked_for() -> None:
    asked = record(**{"evaluation.costs": ["peak_memory_mb", "latency_ratio"], "model.name": "attention_routing"})
    rows = [point.row() for point in asked.points]
    assert len(rows) > 3
    assert all(row["peak_memory_mb"] > 0 and row["latency_ratio"] > 0 and "latency_ms" not in row for row in rows)
    assert asked.metrics["latency_ratio"] == rows[0]["latency_ratio"]
    assert asked.metrics["latency_reference"] == costs.REFERENCE
    plain = record()
    assert not {"latency_ms", "latency_ratio", "peak_memory_mb", "energy_j"} & {*plain.metrics, *plain.points[0].row()}
    assert plain.metrics["val_accuracy"] == asked.metrics["val_accuracy"]


def test_one_run_of_a_machine_measures_at_a_time(tmp_path: Path) -> None:
    done = Event()

    def measure() -> None:
        record(**{"evaluation.costs": ["latency_ms"]})
        done.set()

    with FileLock(tmp_path / "measuring.lock"):
        worker = Thread(target=measure)
        worker.start()
        assert not done.wait(3)
    worker.join(60)
    assert done.is_set()


def test_another_process_that_measures_is_waited_for(tmp_path: Path) -> None:
    hold = (
        "import sys; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "measuring.lock")]
    entered = Event()

    def enter() -> None:
        with costs._alone():
            entered.set()

    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        worker = Thread(target=enter)
        worker.start()
        assert not entered.wait(1)
        other.communicate("\n")
    worker.join(30)
    assert entered.is_set()


def test_energy_is_the_difference_of_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "_POWERCAP", tmp_path)
    with pytest.raises(NodeFault, match=r"energy_j: no counter of the device 'cpu' can be read \(.*only root read\)"):
        record(**{"evaluation.costs": ["energy_j"]})
    for package in (0, 1):
        folder = tmp_path / f"intel-rapl:{package}"
        folder.mkdir()
        (folder / "energy_uj").write_text("1000000000\n")
    monkeypatch.setattr(costs, "_ENERGY_SECONDS", 0.05)
    passes: list[int] = []

    def forward() -> None:  # 3 J a pass, of both packages together; the counters begin anew once
        for package in (0, 1):
            path = tmp_path / f"intel-rapl:{package}" / "energy_uj"
            used = 0 if not passes else int(path.read_text()) + 1_000_000 * (1 + package)
            path.write_text(str(used))
        passes.append(0)
        time.sleep(0.02)

    assert costs._energy(forward, costs.energy_counter(CPU)) == pytest.approx(3)  # type: ignore[arg-type]
