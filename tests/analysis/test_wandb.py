"""Weights & Biases, offline: what is written for ``wandb sync`` is read back from its own record files."""

from __future__ import annotations

import json
import struct

import pandas as pd
import pytest

from analysis.findings.summary import summarise
from analysis.read.results import read_results
from routing.cli import main


@pytest.fixture
def offline(monkeypatch, tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "kept"


def payloads(content: bytes):
    """Yield the records of a file in LevelDB's log format behind W&B's header of seven bytes."""
    place, kept = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        kept += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield kept
            kept = b""


def records(folder):
    """Return the records of every run that was written, by the part of its id behind the folder's."""
    from wandb.proto import wandb_internal_pb2

    runs = {}
    for path in sorted(folder.glob("wandb/*/run-*.wandb")):
        found = [wandb_internal_pb2.Record.FromString(data) for data in payloads(path.read_bytes())]
        run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
        runs.setdefault(run.run_id.rpartition("-")[2], []).append((run, found))
    return runs


def test_every_ended_trial_becomes_a_run_once(make_results, offline, capsys, only_the_front):
    folder = make_results(trials=1)
    assert main(["analyze", str(folder), "--wandb", "fronts"]) == 0
    logged = int(capsys.readouterr().out.split("logged ")[1].split()[0])
    ended = read_results(folder).trials.query("state in ['COMPLETE', 'FAIL', 'PRUNED']")["number"].tolist()
    assert logged == len(ended)
    runs = records(offline)
    assert set(runs) == {*map(str, ended), "study"}
    run, found = runs["0"][0]
    assert (run.project, run.run_group, run.display_name) == ("fronts", "synthetic", "synthetic-0")
    config = {item.key: json.loads(item.value_json) for record in found for item in record.run.config.update}
    config |= {item.key: json.loads(item.value_json) for record in found for item in record.config.update}
    assert config["model.name"] == "full_compute"
    epochs = [
        {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(one["_step"], one["train_loss"]) for one in epochs] == [(1, 2.0), (2, 1.0), (3, 2 / 3), (4, 0.5)]
    summary = {}
    for record in found:
        for item in record.summary.update:
            summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
    trials = pd.read_csv(folder / "trials.csv").set_index("number")
    assert summary["val_accuracy"] == trials.loc[0, "val_accuracy"]
    assert summary["state"] == "COMPLETE"
    front = set(summarise(read_results(folder)).front["trial"])
    assert {int(name) for name, of in runs.items() if "front" in of[0][0].tags} == front
    assert any(
        record.WhichOneof("record_type") == "artifact" or record.request.WhichOneof("request_type") == "log_artifact"
        for _, found in runs["study"]
        for record in found
    )

    assert main(["analyze", str(folder), "--wandb", "fronts"]) == 0
    assert "logged 0 trials" in capsys.readouterr().out
    assert {name: len(of) for name, of in records(offline).items() if name != "study"} == dict.fromkeys(
        map(str, ended), 1
    )
