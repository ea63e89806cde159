"""A run that is a command: started, listened to, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from routing.config.script import ScriptRun
from routing.errors import TrialFailed, shown
from routing.files.atomic import write_text

PROGRESS_FILE = "progress.jsonl"
"""Below {out}: a command may add a line per step, ``{"step": 1, "accuracy": 0.9}``."""
_PROCESS_FILE = ".process"
"""Below {out}, while a command runs: its process and when that was started."""
_POLL_SECONDS = 0.1


def run_command(config: ScriptRun, folder: Path, on_report: Callable[..., None]) -> Any:
    """Run a command to its end, its steps reported as it writes them; it is killed when the run ends before.

    One that an earlier run has left behind, killed itself, is ended first: two would write into the same folder.
    """
    _end_left(folder)
    progress, result = folder / PROGRESS_FILE, folder / config.result
    result.unlink(missing_ok=True)
    progress.unlink(missing_ok=True)
    errors = folder / "stderr.txt"
    with errors.open("wb") as stream:
        process = subprocess.Popen(config.arguments(folder), stderr=stream, start_new_session=True)
        write_text(folder / _PROCESS_FILE, f"{process.pid} {_started(process.pid)}")
        try:
            lines = _new_lines(progress)
            while (code := process.poll()) is None:
                _tell(next(lines), on_report)
                time.sleep(_POLL_SECONDS)
            _tell(next(lines), on_report)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            (folder / _PROCESS_FILE).unlink(missing_ok=True)
    if code != 0:
        said = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise TrialFailed(f"{config.script} ended with exit code {code}: {said[-1] if said else 'it says nothing'}")
    try:
        return json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrialFailed(f"{config.script}: {result.name} in {{out}} holds no metrics: {error}") from None


def _new_lines(path: Path) -> Iterator[list[str]]:
    """Yield the whole lines that a file has gained since it was last looked at."""
    place = 0
    while True:
        text = path.read_bytes()[place:] if path.exists() else b""
        end = text.rfind(b"\n") + 1
        place += end
        yield text[:end].decode("utf-8", errors="replace").splitlines()


def _tell(lines: list[str], on_report: Callable[..., None]) -> None:
    for line in lines:
        try:
            row = json.loads(line)
            step = row.pop("step")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise TrialFailed(f'{PROGRESS_FILE}: {shown(line)} (valid: {{"step": 1, metric: number, ...}})') from None
        on_report(step, **row)


def _end_left(folder: Path) -> None:
    """Kill the command of an earlier run in this folder, with its children, if it still runs on this machine."""
    try:
        pid, started = (folder / _PROCESS_FILE).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return
    if started != "0" and started == _started(int(pid)):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(int(pid), signal.SIGKILL)


def _started(pid: int) -> str:
    """Return when a process was started, which tells it from a later one of the same number; 0 where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "0"
    return fields[19]
