"""Tables that fit a terminal, and phases that are not silent."""

from __future__ import annotations

import io
import re
import time

import pytest

from routing.commands import console
from routing.commands.console import Phase, point_columns, table
from routing.commands.train import _Steps
from routing.config.run import RunConfig
from routing.runner import run

POINT = {
    "trial": 12, "model.name": "attention_routing", "model.router.mode": "learnable_threshold", "knob": "threshold",
    "knob_value": "0.318", "val_accuracy": 0.958, "flops": 944_000.0, "flops_p95": 1.1e6, "params": 25_000,
    "routing_ratio": 0.31, "ms_per_image": 0.21,
}  # fmt: skip


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What stands on the screen, without the codes for bold."""
    return [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(params=[80, 100, 160])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    return int(request.param)


def test_a_table_of_points_fits_and_names_what_it_leaves_out(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    columns = point_columns([POINT], ["val_accuracy", "flops"])
    table([POINT], columns, title="Front", keep=("val_accuracy", "flops"))
    lines = printed(capsys)
    assert max(map(len, lines)) <= width
    shown, dropped = lines[1], "".join(line.partition("no room for: ")[2] for line in lines)
    assert "val accuracy" in shown
    assert "multiply-adds" in shown
    assert all((head in shown) or (head in dropped) for head in columns.values())


def test_cells_of_several_words_are_whole_or_left_out(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    row = dict.fromkeys("abcdef", "9.67 [1.40, 44.61] over 3 seeds")
    table([row], {name: name for name in row})
    lines = printed(capsys)
    assert max(map(len, lines)) <= width
    assert "..." not in "".join(lines)
    assert lines[1].count("9.67 [1.40, 44.61] over 3 seeds") == (width + 2) // 33  # 31 wide, two between


def test_long_text_takes_several_lines(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    question = "How much compute does routing save on real digits, and at what loss of accuracy, if any at all? " * 2
    table([{"name": "digits", "question": question}], {"name": "study", "question": "question"}, wraps=("question",))
    lines = printed(capsys)
    assert max(map(len, lines)) <= width
    words = " ".join(lines[1:]).replace("digits", "", 1).split()  # the study's name
    assert words == question.split()


def test_what_is_piped_loses_no_column(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table([POINT], point_columns([POINT]))
    head, _ = capsys.readouterr().out.splitlines()
    assert all(name in head for name in point_columns([POINT]).values())


def test_a_long_phase_says_what_it_is_and_a_short_one_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_SILENT_SECONDS", 0.05)
    for seconds, said in ((0.3, "writing the report ...\n"), (0.0, "")):
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        with Phase("writing the report") as phase:
            time.sleep(seconds)
            phase.stop()
        time.sleep(0.1)
        assert stream.getvalue() == said


def test_an_epoch_says_its_step_and_its_rate(monkeypatch, capsys):
    moments = iter([0.0, *[100.0] * 3, *[102.0] * 2, *[200.0] * 3])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    with Phase("preparing") as phase:
        steps = _Steps(phase, epochs=8)
        steps(3, 10, 1500)  # a run that goes on after its second epoch
        steps(3, 20, 1500)
        steps(3, 500, 1500)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["epoch 3/8: step 10 of 1,500 ...", "epoch 3/8: step 500 of 1,500, 4.9 steps/s ..."]


def test_training_tells_every_update_of_every_epoch(tmp_path):
    keys = {"dataset.num_train": 64, "dataset.num_val": 64, "training.num_epochs": 2, "training.batch_size": 32}
    told = []
    run(RunConfig.from_dict(keys | {"model.name": "cheap_compute"}), on_step=lambda *step: told.append(step))
    assert told == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
