"""``routing keys`` and the completion of shells."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from routing.cli import main
from routing.commands.keys import key_rows


def test_keys_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "training.num_epochs"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "int, >= 0" in said
    assert main(["keys", "model.nothing"]) == 2
    assert "no key begins with 'model.nothing'" in capsys.readouterr().err


def test_types_are_plain_words() -> None:
    types = {row["key"]: row["type"] for row in key_rows()}
    assert types["training.learning_rate_multipliers"] == "mapping of str to float"
    assert types["training.keep_rates"] == "list of 2 float | null"
    assert types["training.optimizer"] == "adamw | sgd"
    assert not [kind for kind in types.values() if "[" in kind or "(" in kind]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "_ROUTING_COMPLETE" in capsys.readouterr().out


def completed(line: str) -> tuple[list[str], float]:
    """Return what bash is offered at the end of a line, and the CPU seconds that this took."""
    words = {"_ROUTING_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    command = [sys.executable, "-c", "from routing.cli import main; main()"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True, timeout=60, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert not done.stderr
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [word.partition(",")[2] for word in done.stdout.split()], seconds


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("routing sweep routing_d", ["routing_digits"]),
        ("routing train --model.router.m", ["--model.router.mode"]),
        ("routing train --model.router.mode quan", ["quantile_threshold"]),
        ("routing train --model.name = full_", ["full_compute", "full_conv"]),
        ("routing train --model.name early_exit --model.network.na", ["--model.network.name"]),
        ("routing compare --model.name hyperiqa --model.fusion.mode conc", ["concat"]),
        ("routing train --training.channels_last t", ["true"]),
        ("routing train --seed ", []),
        ("routing sweep --bas", ["--base."]),
        ("routing sweep token_pruning --base.model.pruning.alp", ["--base.model.pruning.alpha"]),
        ("routing sweep digits --base.model.aggregato", ["--base.model.aggregator"]),
        ("routing sweep digits --base.training.optimizer ad", ["adamw"]),
    ],
)
def test_what_is_completed(line: str, offered: list[str]) -> None:
    assert completed(line)[0] == offered


def test_completion_follows_the_file_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("model: {name: aacn}")
    found = completed(f"routing train --config {tmp_path / 'run.yaml'} --model.decision.")[0]
    assert "--model.decision.dropout" in found
    assert completed(f"routing train --config {tmp_path / 'none.yaml'} --model.decision.")[0] == []


def test_a_tab_takes_a_third_of_a_second() -> None:
    assert min(completed("routing sweep digits --base.model.ro")[1] for _ in range(3)) < 0.4
