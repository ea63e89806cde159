"""Many trivial trials: what they cost in time and in the driver's memory, and whether ledger and tables are whole.

``ROUTING_SCALE=2000 pytest tests/faults/test_scale.py -s`` prints what docs/reliability.md reports.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from small_studies import sweep_values

from search_spaces.ledger.ledger import Ledger, done
from search_spaces.study.load import parse_study

TRIALS = int(os.environ.get("ROUTING_SCALE", "60"))

DRIVER = """
import json, resource, sys, threading, time
from pathlib import Path
from search_spaces import sweep
from search_spaces.study.load import parse_study

def watch():
    while True:
        time.sleep(0.5)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        finished = len(list(Path(sys.argv[2]).glob("trials/*/metrics.json")))
        seen.append((finished, pages * resource.getpagesize() / 2**20))

seen = []
threading.Thread(target=watch, daemon=True).start()
sweep(parse_study(json.loads(sys.argv[1])), sys.argv[2], run="fake_runs:trivial", concurrency=2)
print(json.dumps(seen))
"""


@pytest.mark.slow
def test_many_trials(tmp_path: Path, tag: str) -> None:
    values = sweep_values(trials=TRIALS, base={"training.num_epochs": 1})
    out = tmp_path / "out"
    begun = time.monotonic()
    done_ = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(values), str(out)], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.monotonic() - begun
    seen = [(count, size) for count, size in json.loads(done_.stdout) if count > TRIALS // 10]
    growth = (seen[-1][1] - seen[0][1]) / max(seen[-1][0] - seen[0][0], 1)
    print(
        f"{TRIALS} trials in {seconds:.0f} s ({TRIALS / seconds:.1f} per second); driver {seen[0][1]:.0f} MiB after "
        f"{seen[0][0]} trials, {seen[-1][1]:.0f} MiB at the end: {1024 * growth:.0f} KiB per trial"
    )
    study = parse_study(values)
    rows = done(Ledger(str(out / "ledger.journal"), study.name, study.objectives).trials())
    assert [trial.number for trial in rows] == list(range(TRIALS))
    assert {trial.state.name for trial in rows} == {"COMPLETE"}
    trials, points = pd.read_csv(out / "trials.csv"), pd.read_csv(out / "points.csv")
    assert trials["number"].tolist() == points["trial"].tolist() == list(range(TRIALS))
    assert trials["val_accuracy"].tolist() == [trial.values[0] for trial in rows]
    if TRIALS >= 1000:
        assert growth < 0.5, "MiB per trial: a long study would fill the driver's memory"
