"""Studies of a training script under real faults: a kill, no shared folder, a command that outlives its run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from loopback_cluster import LoopbackCluster
from processes import wait_until

from routing.config.script import ScriptRun
from routing.script import run

SCRIPT = """
import pathlib, time

def train(config, report, seed, out):
    done = int((out / "done").read_text()) if (out / "done").exists() else 0
    for step in range(done + 1, 5):
        with (out / "begun.txt").open("a") as log:
            log.write(f"{step}\\n")
        time.sleep(0.3)
        (out / "done").write_text(str(step))
        report(step, error=config["lr"] / step, size=100 * config["lr"])
    return {"error": config["lr"] / 4, "size": 100 * config["lr"]}

def test(config, out):
    return {"error": int((out / "done").read_text()) + config["lr"]}
"""
STUDY = """
kind: sweep
name: own
run: a_script:train
evaluate: a_script:test
steps: 4
space: {lr: {float: [0.1, 1.0]}}
objectives:
  - {metric: error, goal: minimize, reference: 1.0}
  - {metric: size, goal: minimize, reference: 200}
sampler: {name: random}
scheduler: {name: none}
trials: 6
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "a_script.py").write_text(SCRIPT)
    (folder / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(folder)
    return folder


def start(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "routing", *words]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, start_new_session=True, **output)  # type: ignore[call-overload, no-any-return]


def ended(driver: subprocess.Popen[str]) -> str:
    text, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, text
    return text


def begun(folder: Path) -> list[int]:
    log = folder / "out" / "begun.txt"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


@pytest.mark.slow
@pytest.mark.usefixtures("tag")
def test_kill_9_keeps_what_is_finished_and_goes_on_from_the_scripts_own_checkpoint(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    trials, words = desk / "out" / "trials", ("sweep", "study.yaml", "--out", "out", "--concurrency", "2")
    driver = start(*words)

    def in_the_middle() -> bool:
        finished = [path.parent for path in trials.glob("*/metrics.json")]
        under_way = [folder for folder in trials.glob("*") if folder not in finished and len(begun(folder)) >= 2]
        return bool(finished) and bool(under_way)

    assert wait_until(lambda: in_the_middle() or driver.poll() is not None, 120)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    finished = {path: path.read_bytes() for path in trials.glob("*/metrics.json")}
    assert 0 < len(finished) < 6
    half = [int(folder.name) for folder in trials.glob("*") if folder / "metrics.json" not in finished]
    assert "lr=" in ended(start(*words, "--resume"))
    table = pd.read_csv(desk / "out" / "trials.csv").set_index("number", drop=False)
    rows = table.query("state == 'COMPLETE'")
    assert len(rows) == 6
    assert {path: path.read_bytes() for path in finished} == finished
    for number in half:  # an interrupted trial goes on under the number of its new row, and its folder with it
        again = rows[rows["config.lr"] == table.loc[number, "config.lr"]]
        steps = Counter(begun(trials / str(again["number"].item())))
        assert set(steps) == {1, 2, 3, 4}, steps
        assert sum(steps.values()) <= 5, "only the step under way is repeated"

    store = f"file:{desk / 'mlruns'}"
    assert f"logged {len(table)} trials of out to {store}" in ended(start("analyze", "out", "--mlflow", store))
    from mlflow.tracking import MlflowClient

    from analysis.exports.mlflow_log import TRIAL

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("own")
    runs = [run for run in client.search_runs([experiment.experiment_id]) if TRIAL in run.data.tags]  # not the study's
    assert len(runs) == len(table)
    runs = [run for run in runs if run.info.status == "FINISHED"]
    assert len(runs) == 6
    errors = {float(run.data.params["config.lr"]): run.data.metrics["error"] for run in runs}
    assert errors == pytest.approx(dict(zip(rows["config.lr"], rows["error"], strict=True)))


@pytest.mark.slow
def test_nodes_that_share_nothing(desk: Path, cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test have mounts of its own")
    code = desk.parent / "code"  # is on every node
    code.mkdir()
    (desk / "a_script.py").rename(code / "a_script.py")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(code), os.environ["PYTHONPATH"]]))
    cluster.environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    cluster.start_head()
    cluster.start_worker(1, "--num-cpus=2", blind_to=desk)
    url = f"file://{desk.parent}/far/own"
    ended(start("sweep", "study.yaml", "--out", url, "--address", cluster.address, "--trials", "3"))
    for folder in (desk.parent / "far" / "own", desk / "results" / "own"):
        assert (pd.read_csv(folder / "trials.csv")["state"] == "COMPLETE").all()
        assert [path.read_text() for path in folder.glob("trials/*/out/done")] == ["4"] * 3, "its own files travel too"
    ended(start("confirm", "results/own", "--seeds", "2"))  # beside the driver, as with our own models
    confirmed = pd.read_csv(desk / "results" / "own" / "confirm" / "confirm.csv")
    assert (confirmed["test_error_mean"] > 4).all(), "the test split is read in the folder of the training"


ENDLESS = """
import os, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
with (out / "pids").open("a") as file:
    file.write(f"{os.getpid()}\\n")
time.sleep(0 if len((out / "pids").read_text().split()) > 1 else 600)
(out / "result.json").write_text('{"error": 1}')
"""


def test_a_command_whose_run_was_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(ENDLESS)
    command = f"{sys.executable} {tmp_path / 'endless.py'} {{out}}"
    config = ScriptRun.from_dict({"command": command, "metrics": ["error"]})
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    program = (
        "from pathlib import Path; from routing.config.script import read_run; from routing.script import run;"
        "run(read_run(Path('config.yaml')), None, Path('trial'))"
    )
    first = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
    pids = tmp_path / "trial" / "out" / "pids"
    assert wait_until(lambda: (tmp_path / "trial" / "out" / ".process").exists() and pids.exists(), 60)
    first.kill()
    first.wait()
    left = int(pids.read_text().split()[0])
    assert Path(f"/proc/{left}").exists(), "it has outlived its run"
    assert run(config, None, tmp_path / "trial")["error"] == 1
    assert wait_until(lambda: not running(left), 10)
    assert not (tmp_path / "trial" / "out" / ".process").exists()


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
