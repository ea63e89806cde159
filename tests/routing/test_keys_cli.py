"""``routing keys`` and the completion of shells."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from routing.cli import main


def test_keys_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "training.num_epochs"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "int, >= 0" in said
    assert main(["keys", "model.nothing"]) == 2
    assert "no key begins with 'model.nothing'" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_ROUTING_COMPLETE" in capsys.readouterr().out


def test_names_of_studies_are_completed() -> None:
    words = {"_ROUTING_COMPLETE": "bash_complete", "COMP_WORDS": "routing sweep routing_d", "COMP_CWORD": "2"}
    command = [sys.executable, "-c", "from routing.cli import main; main()"]
    done = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["plain,routing_digits"], done.stderr
