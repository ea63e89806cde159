"""A report that is written again while its study runs."""

from __future__ import annotations

import os
from contextlib import ExitStack
from types import SimpleNamespace

import pandas as pd

from analysis import watching
from routing.cli import main
from search_spaces.ledger.folder import locked


def states(folder, state):
    trials = pd.read_csv(folder / "trials.csv")
    trials["state"] = trials["state"].where(~trials["state"].isin(["RUNNING", "WAITING"]), state)
    trials.to_csv(folder / "trials.csv", index=False)


def test_the_page_loads_itself_until_no_trial_runs(make_results, monkeypatch, capsys, only_the_front):
    folder = make_results(trials=7)
    pages, waited = [], []

    def sleep(seconds):
        waited.append(seconds)
        pages.append((folder / "report.html").read_text())
        if len(waited) == 2:
            states(folder, "FAIL")
        if len(waited) == 4:
            driver.close()

    monkeypatch.setattr(watching.time, "sleep", sleep)
    written = []
    monkeypatch.setattr(
        watching, "analyze", lambda *args, real=watching.analyze, **how: written.append(how) or real(*args, **how)
    )
    out = folder / "beside"
    with ExitStack() as driver:
        driver.enter_context(locked(folder))
        assert main(["analyze", str(folder), "--watch", "--every", "7", "--out", str(out)]) == 0
    assert waited == [7, 7, 7, 7]  # two looks at running trials, two in a gap in which none runs
    assert written == [{"refresh": 7, "out": out}] * 2  # only when something had changed
    assert '<html lang="en" data-refresh="7">' in pages[0]
    assert "this page loads itself again every 7 s" in pages[0]
    assert "data-refresh=" not in (folder / "report.html").read_text()
    assert "Trials: 7 complete, 1 stopped early, 1 failed, 1 running, 1 waiting." in capsys.readouterr().out


def test_a_watch_ends_where_a_driver_has_died_and_needs_no_table(tmp_path, monkeypatch):
    """A killed driver leaves trials that run for ever; before the first trial there is neither table."""
    left = SimpleNamespace(folder=tmp_path, states={"RUNNING": 1}, others=(), progress="", verdict="", report="")
    monkeypatch.setattr(watching, "analyze", lambda *args, **how: left)
    waited, said = [], []

    def sleep(seconds):
        waited.append(seconds)
        os.utime(tmp_path / "ledger.journal", (1, 1))

    monkeypatch.setattr(watching.time, "sleep", sleep)
    watching.watch([tmp_path], 7, said.append)
    (tmp_path / "ledger.journal").touch()
    watching.watch([tmp_path], 7, said.append)
    assert waited == [7]  # it changed a moment ago: its driver may be on another machine
    assert len(said) == 2
