"""The command line: exit codes, one-line errors, instant help."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from routing.cli import cli, main
from routing.commands.guard import guarded

TINY = "--dataset.num_train 64 --dataset.num_val 32 --dataset.num_test 32 --training.num_epochs 1".split()


def run_main(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model.router.mod", "x"], "did you mean 'model.router.mode'?"),
        (["train", "--config", "none.yaml"], "none.yaml: no such file"),
        (["train", "word"], "'word' is not an override"),
        (["trian"], "No such command 'trian'"),
        (["evaluate", "nowhere"], "nowhere: no such folder"),
        (["analyze", "nowhere"], "nowhere"),
        (["export", "nowhere"], "nowhere"),
        (["sweep", "no_such_study"], "no_such_study"),
        (["schema", "model"], "'model' is not one of 'run', 'study'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_main(arguments, capsys)
    assert code == 2
    assert err.startswith("routing: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_train_then_evaluate(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    run = str(folder / "run")
    code, out, _ = run_main(["train", "--out", run, *TINY, "--model.router.threshold-init", "-1.5"], capsys)
    assert code == 0
    assert "epoch 1/1" in out
    code, _, err = run_main(["train", "--out", run, *TINY], capsys)
    assert code == 2
    assert "holds a finished run already" in err
    code, out, _ = run_main(["evaluate", run, "--split", "test", "--operating-points"], capsys)
    assert code == 0
    assert "test accuracy" in out
    assert (folder / "run" / "evaluation_test.json").is_file()


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.commands:
        code, out, _ = run_main([name, "--help"], capsys)
        assert code == 0
        assert "Usage: routing" in out


def test_no_command_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_main([], capsys)
    assert (code, err) == (0, "")
    assert "Commands:" in out


def test_bad_input_does_not_block_the_corrected_command(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    run = folder / "run"
    absent = ["--dataset.name", "image_folder", "--dataset.root", str(folder / "none")]
    mistakes = [
        absent,
        ["--model.router.budget.target", "0.01"],
        ["--device", "cuda:99"],
        ["--evaluation.knob_value", "abc"],
        ["--model.router.mode", "top_k", "--evaluation.knob_value", "-3"],
        ["--model.name", "full_compute", "--evaluation.knob_value", "0.5"],
        ["--model.name", "full_compute", "--training.schedule", "alternating"],
        ["--model.router.mode", "oracle", "--training.augment.flip", "true"],
        ["--model.name", "vit", "--model.weights", str(folder / "none")],
        ["--model.name", "vit", "--model.pruning.grid.start_layer", "[9]"],
        ["--model.name", "[vit]"],
    ]
    for mistake in mistakes:
        code, _, err = run_main(["train", "--out", str(run), *mistake], capsys)
        assert code == 2
        assert "unfinished" not in err
        assert not run.exists()


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    heavy = ("torch", "ray", "optuna", "pandas", "numpy")
    probe = f"import sys, routing.cli; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "routing", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # CPU seconds: a busy machine takes longer, and says nothing
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= 0.5


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError("Unable to allocate 64.0 GiB"), 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.\nmore"), 1),
        (RuntimeError("shapes do not fit"), None),
    ],
)
def test_memory_that_runs_out_is_one_line(
    error: Exception, code: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    if code is None:
        with pytest.raises(RuntimeError, match="shapes"):
            guarded(command)
        return
    assert guarded(command) == code
    printed = capsys.readouterr().err
    assert printed.startswith("routing: out of memory: ")
    assert printed.endswith("lower training.batch_size, evaluation.batch_size or the size of data and model\n")
    assert printed.count("\n") == 1


def test_a_reader_that_ends_early_leaves_no_traceback() -> None:
    """Nor is the process killed for it: a process that writes to one that has died must be able to say so."""
    program = "from routing.cli import main; code = main(['schema', 'run']); raise SystemExit(code)"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run([sys.executable, "-c", program], stdout=closed, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
