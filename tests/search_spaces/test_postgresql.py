"""The ledger in a real PostgreSQL server of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState
from small_studies import sweep_values

from routing.errors import InputError
from search_spaces.ledger.ledger import RETRY_OF, Ledger
from search_spaces.study.load import parse_study

STUDY = parse_study(sweep_values())
X, Y = "model.router.threshold_init", "model.router.temperature"


def program(name: str) -> str | None:
    """Return the newest server program of this name; Debian keeps them off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    initdb, control = program("initdb"), program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("no PostgreSQL server on this machine")
    user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

        def run(*command: str) -> None:
            subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=60)

        run(initdb, "--auth=trust", "--username=tester", "--no-sync", f"--pgdata={folder}/data")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(control, f"--pgdata={folder}/data", f"--options={options}", f"--log={folder}/log", "--wait", "start")
        try:
            yield f"postgresql://tester:secret@127.0.0.1:{port}/postgres"
        finally:
            run(control, f"--pgdata={folder}/data", "--mode=immediate", "stop")


def start(ledger: Ledger, threshold: float) -> int:
    from search_spaces.plan import blueprint

    return ledger.start({X: threshold, Y: 1.0}, blueprint(STUDY).space.distributions(), {})


def test_trials_are_kept_and_interrupted_ones_queued_again(url: str) -> None:
    ledger = Ledger(url, STUDY.name, STUDY.objectives)
    ledger.finish(start(ledger, 0.5), TrialState.COMPLETE, [0.75, 1e6])
    start(ledger, -1.0)  # running when the driver died
    again = Ledger(url, STUDY.name, STUDY.objectives, must_exist=True)
    [running] = again.trials((TrialState.RUNNING,))
    again.requeue(running, "interrupted")
    done, interrupted, queued = again.trials()
    assert (done.state, done.values, done.params[X]) == (TrialState.COMPLETE, [0.75, 1e6], 0.5)
    assert interrupted.state == TrialState.FAIL
    assert queued.state == TrialState.WAITING
    assert queued.user_attrs[RETRY_OF] == interrupted.number
    assert "secret" not in again.where


def test_two_studies_share_a_server(url: str) -> None:
    other = Ledger(url, "another", STUDY.objectives)
    assert other.trials() == []


def test_a_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(InputError, match=r"postgresql://tester:\*\*\*@127.0.0.1:1/x cannot be opened: ") as caught:
        Ledger("postgresql://tester:secret@127.0.0.1:1/x", STUDY.name, STUDY.objectives)
    assert "secret" not in str(caught.value)
