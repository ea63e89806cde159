"""Faults inside trials, in one real sweep with real training: what is lost, what is kept, who may listen."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faulty_runs import BUILD, CLOCK, EPOCH_1, EPOCH_3, KILLED, MEMORY, NAN, TRUNCATED, WHOLE, epochs_begun
from processes import LOOPBACK, listening, tagged
from small_studies import sweep_values

from routing.config.run import RunConfig
from routing.files.record import read_metrics
from routing.files.results_folder import CONFIG_FILE, HISTORY_FILE, METRICS_FILE, MODEL_FILE, trial_folder
from routing.files.scratch import scratch_folder
from routing.runner import run
from search_spaces import sweep
from search_spaces.study.load import parse_study

SEEDS = [KILLED, WHOLE, TRUNCATED, BUILD, EPOCH_1, EPOCH_3, NAN, MEMORY, CLOCK]
EXPECTED = {
    WHOLE: ("COMPLETE", "", [1, 2, 3]),
    BUILD: ("FAIL", "RuntimeError: the model cannot be built", []),
    EPOCH_1: ("FAIL", "RuntimeError: broken in epoch 1", [1]),
    EPOCH_3: ("FAIL", "RuntimeError: broken in epoch 3", [1, 2, 3]),
    NAN: ("FAIL", "train_loss is nan in epoch 2", [1, 2]),
    KILLED: ("COMPLETE", "", [1, 2, 2, 3]),
    TRUNCATED: ("COMPLETE", "", [1, 2, 1, 2, 3]),
    MEMORY: ("FAIL", "MemoryError: Unable to allocate 64.0 GiB", [1, 2]),
    CLOCK: ("COMPLETE", "", [1, 2, 3]),
}


class Watch:
    """Looks every second at the sockets of the processes a test started."""

    def __init__(self, tag: str) -> None:
        self.tag, self.addresses = tag, set[str]()
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1.0):
            pids = list(tagged(self.tag))
            self.most = max(self.most, len(pids))
            self.addresses |= listening(pids)


@pytest.mark.slow
def test_a_sweep_full_of_faults(
    tmp_path: Path, tiny: dict[str, Any], tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, begun = time.time, time.monotonic()
    # the driver's clock jumps back by an hour when the sweep is under way
    monkeypatch.setattr(time, "time", lambda: real() - (3600 if time.monotonic() - begun > 15 else 0))
    values = sweep_values(
        base={**tiny, "training.num_epochs": 3},
        space={"seed": {"choice": sorted(SEEDS)}},
        enqueue=[{"seed": seed} for seed in SEEDS],
        trials=len(SEEDS),
    )
    with Watch(tag) as watch:
        out = sweep(parse_study(values), tmp_path / "out", run="faulty_runs:spoilt", concurrency=2)
    rows = pd.read_csv(out / "trials.csv").set_index("seed")
    assert sorted(rows.index) == sorted(SEEDS)
    for seed, (state, reason, epochs) in EXPECTED.items():
        row = rows.loc[seed]
        found = "" if pd.isna(row["reason"]) else row["reason"]
        assert (row["state"], found.startswith(reason), bool(found)) == (state, True, bool(reason)), (seed, found)
        assert epochs_begun(out, seed) == epochs, seed
        kept = {path.name for path in trial_folder(out, int(row["number"])).iterdir()}
        assert not any(name.startswith(".") or name.startswith("checkpoint") for name in kept), kept
        assert ({METRICS_FILE, MODEL_FILE} <= kept) == (state == "COMPLETE")
    # what was measured before the fault stays
    history = pd.read_csv(trial_folder(out, int(rows.loc[EPOCH_3, "number"])) / HISTORY_FILE)
    assert history["epoch"].tolist() == [1, 2]
    assert rows.loc[EPOCH_3, "val_accuracy"] == history["val_accuracy"].iloc[-1]
    assert rows.loc[[EPOCH_3, NAN, MEMORY], "epochs"].tolist() == [2, 1, 1]
    # a training that was killed and went on ends where an undisturbed one ends, to the last bit
    for seed in (KILLED, TRUNCATED, CLOCK):
        folder = trial_folder(out, int(rows.loc[seed, "number"]))
        run(RunConfig.from_yaml(folder / CONFIG_FILE), None, tmp_path / "again")
        assert (folder / MODEL_FILE).read_bytes() == (tmp_path / "again" / MODEL_FILE).read_bytes()
        assert read_metrics(folder)["points"] == read_metrics(tmp_path / "again")["points"]
    assert watch.most >= 4
    assert watch.addresses <= LOOPBACK
    assert watch.addresses


def test_scratch_folders_of_dead_drivers_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / "routing-dead"
    foreign = tmp_path / "routing-without-lock"
    target = tmp_path / "elsewhere"
    for folder in (dead, foreign, target):
        folder.mkdir()
        (folder / "file").touch()
    (dead / ".lock").touch()
    (target / ".lock").touch()
    (tmp_path / "routing-link").symlink_to(target)
    with scratch_folder() as mine:
        assert not dead.exists()
        assert (foreign / "file").exists()
        assert (target / "file").exists()
        with scratch_folder() as other:
            assert mine.exists()
            assert other != mine
    assert not mine.exists()
    assert not other.exists()
