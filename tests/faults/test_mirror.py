"""Results behind a URL, where no node sees the driver's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faulty_runs import NODES_LOG
from loopback_cluster import LoopbackCluster
from processes import start_driver
from small_studies import sweep_values

from routing.config import RunConfig
from routing.errors import InputError
from routing.mirror import Mirror
from routing.run import run
from routing.trainable import RunTrainable
from routing.training.checkpoint import CHECKPOINT_FILE
from search_spaces import sweep
from search_spaces.load import parse_study


def test_another_node_goes_on_where_the_first_was_lost(tmp_path: Path, tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 3})
    mirror = Mirror(f"file://{tmp_path}/far")
    trial = {
        "run": "routing.run:run",
        "config": config.model_dump_json(),
        "out": str(tmp_path / "elsewhere" / "trials" / "7"),
        "mirror": mirror.url,
    }
    lost = RunTrainable(trial)
    assert [lost.step()["epoch"] for _ in range(2)] == [1, 2]
    lost.stop()
    assert mirror.holds(f"trials/7/{CHECKPOINT_FILE}")
    found = RunTrainable(trial)
    assert found.step()["epoch"] == 3
    final = json.loads(found.step()["final"])
    found.stop()
    assert final["metrics"]["val_loss"] == run(config).metrics["val_loss"]
    assert mirror.holds("trials/7/metrics.json")
    assert not mirror.holds(f"trials/7/{CHECKPOINT_FILE}")
    assert [path.name for path in tmp_path.iterdir()] == ["far"]


def test_a_url_nobody_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"nosuch://bucket/results: .*valid: s3://"):
        sweep(parse_study(sweep_values()), "nosuch://bucket/results")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_nodes_that_share_nothing(tmp_path: Path, cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test have mounts of its own")
    work, out = tmp_path / "work", Path(f"file://{tmp_path}/far/small")
    work.mkdir()
    monkeypatch.chdir(work)
    cluster.start_head()
    cluster.start_worker(1, "--num-cpus=2", blind_to=work)

    def finished(trials: int) -> pd.DataFrame:
        driver = start_driver(sweep_values(trials=trials), out, "faulty_runs:noted", address=cluster.address)
        text, _ = driver.communicate(timeout=120)
        assert driver.returncode == 0, text
        rows = pd.read_csv(work / "results" / "small" / "trials.csv")
        assert list(rows["state"]) == ["COMPLETE"] * trials
        return rows

    first = finished(4)
    notes = [path.read_text().split() for path in (work / "results" / "small").glob(f"trials/*/{NODES_LOG}")]
    assert len(notes) == 4
    assert {node for node, _ in notes} == {"127.0.2.1"}
    assert not any(folder.startswith(str(work)) for _, folder in notes)

    shutil.rmtree(work / "results")  # another machine goes on
    with pytest.raises(InputError, match="far/small holds a sweep already; go on with --resume"):
        sweep(parse_study(sweep_values()), out)
    second = finished(6)
    pd.testing.assert_frame_equal(first, second[:4][first.columns], check_dtype=False)
    assert pd.read_csv(tmp_path / "far" / "small" / "trials.csv").equals(second)
