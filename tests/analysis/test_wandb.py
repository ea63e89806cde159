"""Weights & Biases, offline: what is written for ``wandb sync`` is read back from its own record files."""

from __future__ import annotations

import json
import struct
from datetime import datetime

import pandas as pd
import pytest

from analysis.exports.wandb_log import log_to_wandb
from analysis.findings.summary import summarise
from analysis.read.results import read_results
from routing.cli import main
from routing.errors import InputError


@pytest.fixture
def offline(monkeypatch, tmp_path):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir()
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    yield tmp_path / "kept"
    wandb.teardown()  # it reads its environment once per process


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
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # the end of a run is on the disk once its service has ended
    runs = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        found = [wandb_internal_pb2.Record.FromString(data) for data in payloads(path.read_bytes())]
        run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
        runs.setdefault(run.run_id.rpartition("-")[2], []).append((run, found))
    return runs


def test_every_ended_trial_becomes_a_run_once(make_results, offline, capsys, only_the_front):
    folder = make_results(trials=1)
    trials = pd.read_csv(folder / "trials.csv").assign(seconds=40.0)
    trials.to_csv(folder / "trials.csv", index=False)
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
    began, over = (datetime.fromisoformat(summary[name]).timestamp() for name in ("started", "ended"))
    assert over - began == pytest.approx(40)
    assert [one["_timestamp"] - began for one in epochs] == pytest.approx([10, 20, 30, 40])
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

    (best,) = front
    points = pd.read_csv(folder / "points.csv")
    points.assign(violates="flops<=1").to_csv(folder / "points.csv", index=False)
    study = (folder / "study.yaml").read_text() + "constraints: [flops <= 1]\n"
    (folder / "study.yaml").write_text(study)
    assert log_to_wandb(folder, "fronts") == 0  # no trial is new, one has left the front
    again = records(offline)
    assert {name: len(of) for name, of in again.items()} == dict.fromkeys([*map(str, ended), "study"], 1)
    assert list(again[str(best)][0][0].tags) == []
    assert sum(record.WhichOneof("record_type") == "history" for record in again[str(best)][0][1]) == 4


def test_a_name_that_is_none_and_wandb_that_is_switched_off(make_results, offline, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folder = make_results(trials=1)
    with pytest.raises(InputError, match="write PROJECT or ENTITY/PROJECT"):
        log_to_wandb(folder, "a/b/c")
    with pytest.raises(InputError, match="W&B is disabled here"):
        log_to_wandb(folder, "fronts")
    assert not (folder / "wandb.json").exists()
