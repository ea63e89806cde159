"""What Ray is told when a private cluster starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.on_ray.session import worker_environment
from search_spaces.on_ray.start import _SERVES_NO_SWEEP


def test_an_interpreter_whose_path_bash_would_split_is_quoted_where_bash_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spaced = "/home/a user/.venv/bin/python"
    assert worker_environment(spaced) is None  # workers that Ray starts beforehand are started without bash
    monkeypatch.delattr("ray.tune.execution.class_cache.DEFAULT_ENV_VARS")
    assert worker_environment("/usr/bin/python3") is None
    assert worker_environment(spaced) == {"py_executable": "'/home/a user/.venv/bin/python'"}


@pytest.mark.slow
def test_a_private_cluster_has_only_the_processes_that_trials_need(standing_ray: None) -> None:
    listed = _commands_of_children()
    assert "gcs_server" in listed
    assert "raylet" in listed
    assert "dashboard.py" not in listed
    assert "monitor.py" not in listed  # neither the autoscaler's nor the log's
    assert all(one.get().__name__ == one.name for one in _SERVES_NO_SWEEP)  # for other clusters


def _commands_of_children() -> str:
    """Return the whole commands: ps would cut them at the width of the terminal."""
    pids = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in pids)
