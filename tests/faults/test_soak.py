"""A sweep under random faults of every kind, and readers that look at its folder all the while.

The faults are drawn by seed. ``ROUTING_SOAK=200`` runs that many trials; a short one runs in CI.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from optuna.trial import FrozenTrial, TrialState
from processes import start_driver, tagged, wait_until
from small_studies import sweep_values

from routing.files.record import read_metrics
from search_spaces.ledger.ledger import REPLACES, Ledger, done, mend_journal, setting_of
from search_spaces.study.load import parse_study

TRIALS = int(os.environ.get("ROUTING_SOAK", "40"))
LIVES = 2 if TRIALS <= 40 else 8
READERS = 10

READER = """
import json, sys, threading, time
from pathlib import Path
from analysis.read.results import read_results
out, stop, readers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
looks = []

def look():
    while not stop.exists():
        time.sleep(1)
        for name in ("trials.csv", "points.csv"):
            assert not (out / name).exists() or (out / name).read_text().endswith("\\n"), name
        if (out / "environment.json").exists():
            json.loads((out / "environment.json").read_text())
        if (out / "trials.csv").exists():
            found = read_results(out)
            assert not [line for line in found.problems if ".csv" in line], found.problems
            looks.append(len(found.trials))

failures = []
threading.excepthook = lambda arguments: failures.append(repr(arguments.exc_value))
threads = [threading.Thread(target=look) for _ in range(readers)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failures, failures
print(len(looks))
"""


def values(trials: int) -> dict[str, object]:
    return sweep_values(
        base={"training.num_epochs": 1},
        space={"seed": {"int": [0, 10**6]}, "model.router.threshold_init": {"float": [-2.0, 2.0]}},
        trials=trials,
        trial_timeout="20s",
    )


def ledger_rows(out: Path) -> list[FrozenTrial]:
    study = parse_study(values(TRIALS))
    return Ledger(str(out / "ledger.journal"), study.name, study.objectives, must_exist=True).trials()


def finished_now(out: Path) -> dict[int, tuple[float, ...]]:
    return {trial.number: tuple(trial.values) for trial in ledger_rows(out) if trial.state == TrialState.COMPLETE}


def disturb(out: Path, draw: random.Random) -> set[int]:
    """Damage a folder whose driver is dead: cut the ledger, ruin a result, leave a stale lock; return ruined trials."""
    ledger = out / "ledger.journal"
    whole = ledger.read_bytes()
    last = whole.rfind(b"\n", 0, len(whole) - 1) + 1
    ledger.write_bytes(whole[: draw.randint(last + 1, len(whole))])
    mend_journal(ledger)
    (out / ".lock").write_text("process 1 on elsewhere\n")
    (out / ".trials.csv.0a1b2c3d").write_text("half of a table")
    complete = sorted(finished_now(out))
    ruined = set(draw.sample(complete, min(1, len(complete))))
    for number in ruined:
        (out / "trials" / str(number) / "metrics.json").write_bytes(draw.randbytes(20))
    return ruined


@pytest.mark.slow
def test_soak(tmp_path: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(9)
    out, stop = tmp_path / "out", tmp_path / "stop"
    temporary = Path("/tmp") / f"rs{tag[:8]}"  # short: Ray puts sockets there
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    readers = subprocess.Popen(
        [sys.executable, "-c", READER, str(out), str(stop), str(READERS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ruined, kept = soak(out, draw, tag)
    finally:
        stop.touch()
        looked, error = readers.communicate(timeout=60)
    assert readers.returncode == 0, error
    assert int(looked) >= READERS

    rows = ledger_rows(out)
    assert all(trial.state.is_finished() for trial in rows)
    over = done(rows)
    assert len(over) == TRIALS
    settings = [json.dumps(setting_of(trial), sort_keys=True) for trial in over]
    assert len(set(settings)) == TRIALS, "a setting was run to its end twice"
    now = finished_now(out)
    assert kept.items() <= now.items(), "a finished result was lost or changed"
    for trial in over:
        if trial.state == TrialState.COMPLETE:
            assert read_metrics(out / "trials" / str(trial.number))["metrics"]["val_accuracy"] == trial.values[0]
        else:
            assert trial.user_attrs["reason"]
    assert {trial.user_attrs.get(REPLACES) for trial in rows} >= {n for n in ruined if n in now}
    table = pd.read_csv(out / "trials.csv")
    assert table["number"].tolist() == [trial.number for trial in rows]
    reasons = " ".join(table["reason"].dropna())
    assert "a fault of the soak" in reasons
    assert "loss is nan" in reasons
    assert not [path for path in out.rglob(".*") if path.is_file()], "a temporary file was left"
    assert wait_until(lambda: not tagged(tag), 20), tagged(tag)
    time.sleep(0.1)
    assert not list(temporary.glob("routing-*")), "a scratch folder was left"
    shutil.rmtree(temporary)


def soak(out: Path, draw: random.Random, tag: str) -> tuple[set[int], dict[int, tuple[float, ...]]]:
    """Start, disturb and end drivers, then let one finish; return ruined trials, and the results before the last."""
    ruined: set[int] = set()
    kept: dict[int, tuple[float, ...]] = {}
    for life in range(LIVES):
        driver = start_driver(values(TRIALS), out, "soak_runs:short", concurrency=2, keep_going=True)
        if life == 0:
            assert wait_until(lambda: (out / "environment.json").exists(), 120)
            second = start_driver(values(TRIALS), out, "soak_runs:short", concurrency=1)
            assert "is in use by another sweep" in second.communicate(timeout=60)[0]
            assert second.returncode == 2
        assert running_until(driver, out, len(kept) + TRIALS // (LIVES + 1))
        kind = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL]) if life else signal.SIGKILL
        with suppress(ProcessLookupError):  # it may have come to its end by itself
            if kind == signal.SIGKILL:
                os.killpg(driver.pid, signal.SIGKILL)
            else:
                driver.send_signal(kind)
        driver.communicate(timeout=60)
        assert wait_until(lambda: not [p for p in tagged(tag).items() if "ray" in p[1]], 30)
        ruined |= disturb(out, draw)
        kept = {number: found for number, found in finished_now(out).items() if number not in ruined}
    driver = start_driver(values(TRIALS), out, "soak_runs:short", concurrency=2, keep_going=True)
    text, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, text
    return ruined, kept


def running_until(driver: subprocess.Popen[str], out: Path, results: int) -> bool:
    """Wait for this many results, or for the driver's end."""
    return wait_until(lambda: driver.poll() is not None or len(list(out.glob("trials/*/metrics.json"))) >= results, 180)
