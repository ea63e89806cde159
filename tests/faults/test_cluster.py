"""Sweeps on real clusters of several nodes: resources, a lost node, a lost head, and the token at the door."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from faulty_runs import NODES_LOG, epochs_begun, tickets
from loopback_cluster import LoopbackCluster
from processes import DRIVER, start_driver, wait_until
from small_studies import sweep_values

from routing import __version__
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.results_folder import METRICS_FILE
from routing.trainable import RunTrainable
from search_spaces import sweep
from search_spaces.on_ray.reach import check_address
from search_spaces.on_ray.session import cluster_concurrency
from search_spaces.study.load import parse_study
from search_spaces.study.schema import ResourcesSection

SEEDS = list(range(100, 110))


def study(tiny: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return sweep_values(
        base={**tiny, "training.num_epochs": 3},
        space={"seed": {"choice": SEEDS}},
        enqueue=[{"seed": seed} for seed in SEEDS],
        trials=len(SEEDS),
        **changes,
    )


def completed(out: Path) -> int:
    ledger = out / "ledger.journal"
    return ledger.read_text().count('"datetime_complete"') if ledger.exists() else 0


def node_of(line: str) -> str:
    return line.split()[0]


def working_on(out: Path, node: str) -> bool:
    """Return whether a trial is being trained on a node."""
    logs = [path for path in out.glob(f"trials/*/{NODES_LOG}") if not (path.parent / METRICS_FILE).exists()]
    return any(node_of(line) == node for path in logs for line in path.read_text().splitlines()[-1:])


@pytest.mark.slow
def test_a_lost_node_and_a_lost_head(
    tmp_path: Path, tiny: dict[str, Any], cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_gcs_rpc_server_reconnect_timeout_s")  # after which Ray ends a driver without a word
    out = tmp_path / "out"
    values = study(tiny, resources={"cpu": 0.5, "custom": {"fast": 1}})
    cluster.start_head()
    check_address(cluster.address)
    for number in (1, 2):
        cluster.start_worker(number, "--num-cpus=1", "--resources", '{"fast": 1}')
    driver = start_driver(values, out, "faulty_runs:gated", address=cluster.address)
    try:
        nodes = ("127.0.2.1", "127.0.2.2")
        assert wait_until(lambda: all(working_on(out, node) for node in nodes) or driver.poll() is not None, 120)
        assert driver.poll() is None, driver.communicate()[0]
        cluster.kill_worker(1)
        tickets(out, 2)
        assert wait_until(lambda: completed(out) == 2 or driver.poll() is not None, 120)
        assert driver.poll() is None, driver.communicate()[0]
        cluster.kill_head()
        text, _ = driver.communicate(timeout=60)
    finally:
        driver.kill()
    finished = {path.parent.name: path.read_bytes() for path in out.glob("trials/*/metrics.json")}
    assert len(finished) == 2, text
    assert driver.returncode == 1, text
    assert "Ray has died (gcs_server)" in text
    assert text.rstrip().endswith("go on with --resume")

    cluster.kill_worker(2)  # it outlives its head by seconds: its run stands at the gate and would take a ticket
    tickets(out, len(SEEDS) - 2)
    cluster.start_head()
    cluster.start_worker(1, "--num-cpus=1", "--resources", '{"fast": 2}')
    driver = start_driver(values, out, "faulty_runs:gated", address=cluster.address)
    text, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, text
    rows = pd.read_csv(out / "trials.csv").query("state == 'COMPLETE'")
    assert sorted(rows["seed"]) == SEEDS
    for number, content in finished.items():
        assert (out / "trials" / number / "metrics.json").read_bytes() == content
    nodes = [node_of(line) for path in out.glob(f"trials/*/{NODES_LOG}") for line in path.read_text().splitlines()]
    assert set(nodes) == {"127.0.2.1", "127.0.2.2", "127.0.3.1"}
    epochs = {seed: epochs_begun(out, seed) for seed in SEEDS}
    assert all(sorted(set(begun)) == [1, 2, 3] for begun in epochs.values()), epochs
    # one trial was running on the lost node and one under the lost head: no other epoch was ever trained twice
    assert sum(len(begun) - 3 for begun in epochs.values()) <= 2, epochs


NODES = """
import json, os, sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes.add_node(num_cpus=2, num_gpus=1)
nodes.add_node(num_cpus=2, num_gpus=1, env_vars={"PYTHONPATH": ""})
nodes.add_node(num_cpus=2, resources={"fast": 1})
sys.argv[4] = json.dumps({"address": nodes.address})
try:
    exec(os.environ["DRIVER"])
finally:
    nodes.shutdown()
"""


@pytest.mark.slow
def test_fractions_of_a_gpu_on_the_node_that_has_it_and_the_code(
    tmp_path: Path, tiny: dict[str, Any], cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIVER", DRIVER)
    values = study({**tiny, "device": "cpu"}, resources={"cpu": 0.5, "gpu": 0.5}) | {"trials": 3}
    values["enqueue"] = values["enqueue"][:3]
    command = [sys.executable, "-c", NODES, json.dumps(values), str(tmp_path / "out"), "faulty_runs:slow", "{}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_csv(tmp_path / "out" / "trials.csv")
    complete, moved = rows.query("state == 'COMPLETE'"), rows.query("state == 'FAIL'")
    assert sorted(complete["seed"]) == SEEDS[:3]
    assert moved["reason"].str.startswith("No module named 'faulty_runs' (on node ").all()
    assert len(moved) >= 1
    assert done.stderr.count("is left out: No module named 'faulty_runs'") == 1
    assert (complete[["routing_version", "torch_version"]] == [__version__, version("torch")]).all(axis=None)
    assert {path.read_text().split()[1] for path in tmp_path.glob(f"out/trials/*/{NODES_LOG}")} == {"0"}
    # two trials a GPU, as the sweep starts: the second node is left out only when a trial has failed there
    assert json.loads((tmp_path / "out" / "environment.json").read_text())["concurrency"] == 2 * 2


def test_room_is_counted_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 3.0, "GPU": 1.0}},
        {"Alive": True, "Resources": {"CPU": 3.0, "fast": 2.0}},
        {"Alive": False, "Resources": {"CPU": 64.0}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    for needs, room in [({"cpu": 2}, 2), ({"cpu": 0.5}, 12), ({"gpu": 0.25}, 3), ({"custom": {"fast": 0.5}}, 3)]:
        assert cluster_concurrency(ResourcesSection(**needs)) == room
    assert cluster_concurrency(ResourcesSection(cpu=0)) == 6
    with pytest.raises(InputError, match="a trial needs 4 CPU; none of the 2 nodes of the cluster has that"):
        cluster_concurrency(ResourcesSection(cpu=4))


def test_a_node_that_does_not_see_the_results_says_so(tmp_path: Path) -> None:
    trial = {"run": "faulty_runs:slow", "config": RunConfig().model_dump_json(), "out": str(tmp_path / "trials" / "0")}
    worker = RunTrainable(trial)
    assert f"{tmp_path}/trials is not on node" in worker.step()["failed"]
    assert list(tmp_path.iterdir()) == []


def test_a_ray_client_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ray://127.0.0.1:1: a sweep is no Ray client; give host:port of the head"):
        sweep(parse_study(sweep_values()), tmp_path / "out", address="ray://127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "127.0.0.1:99999"])
def test_nobody_answers(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=f"no Ray cluster answers at {address}: "):
        sweep(parse_study(sweep_values()), tmp_path / "out", address=address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"no Ray cluster answers at {address}: "):
        sweep(parse_study(sweep_values()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class _NoRay(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.mark.parametrize("kind", ["http", "silent", "closing", "stale auto"])
def test_something_else_listens(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.on_ray.reach._CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if kind == "http":
            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _NoRay)
            port = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
        elif kind == "closing":
            threading.Thread(target=lambda: silent.accept()[0].close(), daemon=True).start()
        address = f"127.0.0.1:{port}"
        if kind == "stale auto":
            monkeypatch.setattr("search_spaces.on_ray.reach._found_by_ray", lambda: f"127.0.0.1:{port}")
            address = "auto"
        begun = time.monotonic()
        with pytest.raises(InputError, match=f"no Ray cluster answers at {address}"):
            sweep(parse_study(sweep_values()), tmp_path / "out", address=address)
        assert time.monotonic() - begun < 5
        if kind == "http":
            server.shutdown()
            server.server_close()
    assert list(tmp_path.iterdir()) == []
