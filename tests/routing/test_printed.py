"""What a run prints goes to a file of its own, whoever prints it, and nowhere afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from routing.files.printed import printed_to


def test_python_c_and_child_processes_print_to_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "deep" / "log.txt"
    print("before")
    with pytest.raises(ValueError, match="no luck"), printed_to(path):  # noqa: PT012 - it ends in the midst of it
        print("from Python")
        os.write(2, b"from C\n")
        subprocess.run([sys.executable, "-S", "-c", "print('from a child')"], check=True)
        print("to standard error", file=sys.stderr)
        raise ValueError("no luck")
    print("after")
    with printed_to(path):
        print("again")
    assert path.read_text() == "from Python\nfrom C\nfrom a child\nto standard error\nagain\n"
    assert capfd.readouterr().out == "before\nafter\n"


def test_no_file_where_nothing_is_printed(tmp_path: Path) -> None:
    with printed_to(tmp_path / "log.txt"):
        pass
    assert not (tmp_path / "log.txt").exists()
