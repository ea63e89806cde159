"""Results behind s3://, kept by a server of the S3 protocol in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from processes import start_driver, tagged, wait_until
from small_studies import sweep_values

from routing.files.mirror import Mirror

pytest.importorskip("moto.server", reason="the server of the S3 protocol is moto's")

STORE = """
import sys
from pathlib import Path
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

objects, down, asked = DomainDispatcherApplication(create_backend_app), Path(sys.argv[2]), Path(sys.argv[3])

def store(environ, start_response):
    if down.exists():
        with asked.open("a") as file:
            file.write("x")
        start_response("503 Slow Down", [("Content-Length", "0")])
        return [b""]
    return objects(environ, start_response)

run_simple("127.0.0.1", int(sys.argv[1]), store, threaded=True)
"""
OUT = "s3://studies/small"


@dataclass
class Store:
    """While the file ``down`` exists it answers 503; ``asked`` grows by a byte with each such answer."""

    down: Path
    asked: Path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket ``studies``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = Store(tmp_path / "down", tmp_path / "asked")
    command = [sys.executable, "-c", STORE, str(port), str(found.down), str(found.asked)]
    with (tmp_path / "store.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    try:
        assert wait_until(lambda: answers(port), 60), (tmp_path / "store.log").read_text()
        _make_bucket(port)
        yield found
    finally:
        server.kill()
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _make_bucket(port: int) -> None:
    from urllib.request import Request, urlopen

    authorization = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"
    urlopen(Request(f"http://127.0.0.1:{port}/studies", method="PUT", headers={"Authorization": authorization}))


def epochs(results: Path) -> list[str]:
    log = results / "runs.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.slow
def test_a_killed_driver_and_a_silent_store(
    tmp_path: Path, store: Store, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = sweep_values(trials=6, base={"training.num_epochs": 4})
    first, second = (tmp_path / name / "results" / "small" for name in ("first", "second"))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    driver = start_driver(values, OUT, "fake_runs:logged", concurrency=1)
    assert wait_until(lambda: len(epochs(first)) >= 2 or driver.poll() is not None, 120)
    assert driver.poll() is None, driver.communicate()[0]
    store.down.touch()
    time.sleep(3)
    store.down.unlink()
    assert len(store.asked.read_text()) >= 2, "nothing was sent while the store was down"
    assert wait_until(lambda: len(epochs(first)) >= 10 or driver.poll() is not None, 120)
    assert driver.poll() is None, driver.communicate()[0]
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert wait_until(lambda: not [p for p in tagged(tag).items() if "ray" in p[1]], 30)

    Mirror(OUT).pull(tmp_path / "sent")
    monkeypatch.chdir(tmp_path / "second")  # as on another machine
    driver = start_driver(values, OUT, "fake_runs:logged", concurrency=1)
    text, _ = driver.communicate(timeout=180)
    assert driver.returncode == 0, text
    rows = pd.read_csv(second / "trials.csv")
    assert rows["state"].value_counts()["COMPLETE"] == 6
    known = epochs(tmp_path / "sent")  # the second driver fetches what the first has sent of its notes
    trained = Counter([*epochs(first), *epochs(second)[len(known) :]])
    assert len(trained) == 6 * 4
    assert sum(trained.values()) - len(trained) <= 1, "only the epoch that had not been sent is trained again"
    mirror = Mirror(OUT)
    mirror.pull(tmp_path / "copy")
    assert pd.read_csv(tmp_path / "copy" / "trials.csv")["number"].tolist() == rows["number"].tolist()
    assert all(mirror.holds(f"trials/{number}/metrics.json") for number in rows.query("state == 'COMPLETE'")["number"])
