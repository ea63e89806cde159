"""Results behind a URL, where no node sees the driver's folder."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from faulty_runs import NODES_LOG
from loopback_cluster import LoopbackCluster
from processes import start_driver
from small_studies import sweep_values

from routing.config.run import RunConfig
from routing.errors import InputError, RoutingError
from routing.files.mirror import Mirror
from routing.files.results_folder import CHECKPOINT_FILE, MODEL_FILE
from routing.runner import run
from routing.trainable import RunTrainable
from search_spaces import sweep
from search_spaces.driver import drop_models_not_kept
from search_spaces.ledger.folder import write_study
from search_spaces.study.load import parse_study


def test_another_node_goes_on_where_the_first_was_lost(tmp_path: Path, tiny: dict[str, Any]) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 3})
    mirror = Mirror(f"file://{tmp_path}/far")
    trial = {
        "run": "routing.runner:run",
        "config": config.model_dump_json(),
        "out": str(tmp_path / "elsewhere" / "trials" / "7"),
        "mirror": mirror.url,
    }
    lost = RunTrainable(trial)
    assert [lost.step()["epoch"] for _ in range(2)] == [1, 2]
    lost.stop()
    assert mirror.holds(f"trials/7/{CHECKPOINT_FILE}")
    found = RunTrainable(trial)
    assert [found.step()["epoch"] for _ in range(2)] == [2, 3]  # 2 is only said again
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


def test_the_working_folder_of_a_url_holds_its_sweep_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise RoutingError("Ray did not start")

    monkeypatch.setattr("search_spaces.driver.session", refused)
    monkeypatch.chdir(tmp_path)
    study, url, work = parse_study(sweep_values()), f"file://{tmp_path}/far/small", tmp_path / "results" / "small"

    def start(url: str, resume: bool = True) -> None:
        with pytest.raises(RoutingError, match="Ray did not start"):
            sweep(study, url, resume=resume)

    write_study(work, study)  # a sweep of this machine, without a URL
    for resume in (False, True):
        with pytest.raises(InputError, match=r"results/small, where a sweep to file:.*far/small works, holds another"):
            sweep(study, url, resume=resume)
    shutil.rmtree(work)
    start(url, resume=False)
    assert Mirror(url).read("mirror.txt") == (work / "mirror.txt").read_text()
    start(url)
    with pytest.raises(InputError, match="holds another sweep; rename that folder"):  # of the same last name
        sweep(study, f"file://{tmp_path}/farther/small", resume=True)
    work.rename(tmp_path / "kept")
    start(f"file://{tmp_path}/farther/small", resume=False)
    (tmp_path / "farther").rename(tmp_path / "again")
    shutil.rmtree(tmp_path / "far")
    (tmp_path / "again").rename(tmp_path / "far")  # another sweep lies behind the URL by now
    shutil.rmtree(work)
    (tmp_path / "kept").rename(work)
    with pytest.raises(InputError, match="holds another sweep; rename that folder"):
        sweep(study, url, resume=True)
    shutil.rmtree(work)  # as on another machine
    start(url)
    for folder in (work, tmp_path / "far" / "small"):  # as a version without marks has left both
        (folder / "mirror.txt").unlink()
    start(url)
    assert Mirror(url).read("mirror.txt") == (work / "mirror.txt").read_text()


@pytest.mark.parametrize(("keep", "left"), [("all", {"0", "1", "2"}), ("front", {"1"}), ("none", set())])
def test_models_that_are_not_kept_go_behind_the_url_too(keep: str, left: set[str], tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far" / "small"
    for number in range(3):
        (near / "trials" / str(number)).mkdir(parents=True)
        (near / "trials" / str(number) / MODEL_FILE).write_text("weights")
    mirror = Mirror(f"file://{far}")
    mirror.push(near)
    collector = SimpleNamespace(front_trials=lambda: {1})
    drop_models_not_kept(near, keep, collector, mirror)  # type: ignore[arg-type]
    for folder in (near, far):
        assert {path.parent.name for path in folder.glob(f"trials/*/{MODEL_FILE}")} == left


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
