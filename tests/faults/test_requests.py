"""What a person asks of a running sweep: one setting more, an end of one trial, the end of all."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from processes import start_driver, tagged, wait_until
from small_studies import ablation_values, sweep_values

import search_spaces
from routing.errors import InputError
from search_spaces.ledger.folder import locked, write_study
from search_spaces.ledger.ledger import Ledger
from search_spaces.ledger.requests import ENQUEUE, ask, requests, settle_requests
from search_spaces.on_ray.requested import Requested
from search_spaces.plan import blueprint
from search_spaces.stopping import Stopping
from search_spaces.study.load import parse_study

KEY = "model.router.threshold_init"


def rows(out: Path) -> dict[int, dict[str, Any]]:
    path = out / "trials.csv"
    return {} if not path.exists() else {row["number"]: row for row in pd.read_csv(path).to_dict("records")}


def state(out: Path, number: int) -> str:
    return str(rows(out).get(number, {}).get("state", ""))


@pytest.mark.slow
def test_requests_are_met_within_seconds_and_survive_a_kill(tmp_path: Path, tag: str) -> None:
    out, values = tmp_path / "out", sweep_values(trials=50)
    driver = start_driver(values, out, "fake_runs:held", concurrency=1)
    assert wait_until(lambda: state(out, 0) == "RUNNING", 90), "nothing runs"
    assert search_spaces.stop(out, 0) == "asked: trial 0 stops (within seconds)"
    assert wait_until(lambda: state(out, 0) == "PRUNED", 20)
    assert rows(out)[0]["reason"].startswith("stopped by ")
    assert wait_until(lambda: state(out, 1) == "RUNNING", 60)
    assert search_spaces.enqueue(out, [f"{KEY}=1.5"]) == f"asked: {KEY}=1.5 is run next (within seconds)"
    assert wait_until(lambda: any(row[KEY] == 1.5 for row in rows(out).values()), 20)
    search_spaces.stop(out, 1)
    os.killpg(driver.pid, signal.SIGKILL)  # before or after it has seen that
    driver.communicate()
    assert wait_until(lambda: not [p for p in tagged(tag).items() if "ray" in p[1]], 30)

    driver = start_driver(values, out, "fake_runs:held", concurrency=1)
    asked = next(number for number, row in rows(out).items() if row[KEY] == 1.5)
    assert wait_until(lambda: state(out, asked) == "RUNNING" or driver.poll() is not None, 90)
    assert "ends with the trials that run now (within seconds)" in search_spaces.finish(out)
    assert driver.stdout is not None
    assert any("ends the sweep" in line for line in driver.stdout)
    (out / "go").touch()
    text, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, text
    assert "asked for it" in text
    found = rows(out)
    assert {number for number, row in found.items() if row["state"] == "COMPLETE"} == {asked}
    assert found[asked]["asked_by"].startswith("enqueued while running by ")
    assert found[0]["asked_by"].startswith("stopped by ")
    assert requests(out) == []
    with pytest.raises(InputError, match=r"trial 1 does not run \(running: none\)"):
        search_spaces.stop(out, 1)


def test_what_cannot_be_is_refused_before_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results folder"):
        search_spaces.finish(tmp_path)
    study = parse_study(sweep_values())
    write_study(tmp_path, study)
    (tmp_path / "trials").mkdir()
    for words, message in [
        (["model.router.threshold=1"], "did you mean 'model.router.threshold_init'"),
        ([f"{KEY}"], "valid: KEY=VALUE of"),
        ([f"{KEY}=1.0", f"{KEY}=1.5"], f"'{KEY}' is given twice"),
        ([f"{KEY}=7.0"], "is never 7.0 in this space"),
        ([f"{KEY}=word"], "word"),
    ]:
        with pytest.raises(InputError, match=message):
            search_spaces.enqueue(tmp_path, words)
    with pytest.raises(InputError, match="no sweep runs there now, so there is nothing to finish"):
        search_spaces.finish(tmp_path)
    assert requests(tmp_path) == []  # the next --resume runs what is missing
    with locked(tmp_path):
        assert "(within seconds)" in search_spaces.finish(tmp_path)
    write_study(tmp_path, parse_study(ablation_values()))
    with pytest.raises(InputError, match="an ablation runs what it declares"):
        search_spaces.enqueue(tmp_path, ["seed=1"])


def test_requests_of_a_strange_folder_are_data(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    for number, text in enumerate(
        ["[" * 200_000, "{}", "[]", "1", '{"what": "enqueue", "who": 1, "setting": []}', "\x00"]
    ):
        (folder / f"{number}.json").write_text(text)
    (folder / "9.json").write_text('{"what": "enqueue", "who": "x\\u001b[31m@\\ny", "setting": {"' + KEY + '": 99.0}}')
    study = parse_study(sweep_values())
    ledger = Ledger(str(tmp_path / "ledger.journal"), study.name, study.objectives)
    said, more = list[str](), list[str]()
    proposer = SimpleNamespace(space=blueprint(study).space)
    search: Any = SimpleNamespace(proposer=proposer, one_more=lambda: more.append("a worker"))
    shutil.copytree(folder, tmp_path / "running" / "requests")
    running = Requested(tmp_path / "running", ledger, Stopping(None), said.append, lambda: more.append("a trial"))
    assert not running.look(search, [])
    lines = settle_requests(ledger, tmp_path, blueprint(study).space)
    assert said == lines
    assert more == []  # a refused setting is no further trial
    assert lines == [f"x[31m@y asked for {KEY} = 99.0, which is not in the space: left out"]
    assert ledger.trials() == []
    ask(tmp_path / "running", ENQUEUE, setting={KEY: 1.5})
    running._next = 0.0
    assert running.look(search, []), "the tables have another row"
    assert more == ["a trial", "a worker"]
    assert [trial.state.name for trial in ledger.trials()] == ["WAITING"]
