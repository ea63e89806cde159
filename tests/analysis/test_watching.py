"""A report that is written again while its study runs."""

from __future__ import annotations

import pandas as pd

from analysis import watching
from routing.cli import main


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

    monkeypatch.setattr(watching.time, "sleep", sleep)
    written = []
    monkeypatch.setattr(
        watching, "analyze", lambda *args, real=watching.analyze, **how: written.append(1) or real(*args, **how)
    )
    assert main(["analyze", str(folder), "--watch", "--every", "7"]) == 0
    assert waited == [7, 7, 1, 1]  # two looks at running trials, two at none
    assert len(written) == 2  # only when something had changed
    assert '<html lang="en" data-refresh="7">' in pages[0]
    assert "this page loads itself again every 7 s" in pages[0]
    assert "data-refresh=" not in (folder / "report.html").read_text()
    assert "Trials: 7 complete, 1 stopped early, 1 failed, 1 running, 1 waiting." in capsys.readouterr().out
