"""What Ray is told when a private cluster starts."""

from __future__ import annotations

from search_spaces.ray_session import worker_environment


def test_an_interpreter_whose_path_bash_would_split_is_quoted() -> None:
    assert worker_environment("/usr/bin/python3") is None
    assert worker_environment("/home/a user/.venv/bin/python") == {"py_executable": "'/home/a user/.venv/bin/python'"}
