"""What a person sees of a running study, on terminals of three widths (emulated by pyte behind a pseudo-terminal)."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from routing.config.run import RunConfig
from routing.objectives import Objective
from search_spaces.pace import Pace
from search_spaces.progress import SweepProgress

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.0),
    Objective(metric="flops", goal="minimize", reference=1e7),
)
ROUTED = RunConfig.from_dict({"model.router.mode": "learnable_threshold", "training.num_epochs": 8})
DENSE = RunConfig.from_dict({"model": {"name": "full_compute"}, "training.num_epochs": 8})


class Terminal:
    """A pseudo-terminal: a stream to write to, and the screen and scroll-back a person sees."""

    def __init__(self, columns: int, lines: int = 24) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._emulator = pyte.Stream(self.screen)
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.set_blocking(self._master, False)
        self.stream = os.fdopen(slave, "w")
        self.raw = ""

    def lines(self) -> list[str]:
        self.stream.flush()
        while True:
            try:
                text = os.read(self._master, 65536).decode()
            except BlockingIOError:
                break
            self.raw += text
            self._emulator.feed(text)
        top = ["".join(line[i].data for i in range(self.screen.columns)) for line in self.screen.history.top]
        return [line.rstrip() for line in (*top, *self.screen.display)]

    def close(self) -> None:
        self.stream.close()
        os.close(self._master)


@pytest.fixture(params=[80, 100, 160])
def terminal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    found = Terminal(request.param)
    yield found
    found.close()


class Clock:
    """``time`` as the progress knows it."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


def watch(terminal: Terminal, out: Path, clock: Clock) -> SweepProgress:
    """A study of 44 trials, two at once: two have ended, one of them failed, two run."""
    progress = SweepProgress("digits", OBJECTIVES, 44, out, slots=2, stream=terminal.stream)
    progress.__enter__()
    for number, config in enumerate((DENSE, ROUTED)):
        progress.started(number, config)
    for epoch in range(1, 9):
        clock.now += 2
        progress.reported(0, {"epoch": epoch, "val_accuracy": 0.93, "flops": 3.4e6})
    progress.finished(0, "COMPLETE", "", [[0.93, 3.4e6]])
    (out / "trials" / "1").mkdir(parents=True)
    (out / "trials" / "1" / "error.txt").write_text("Traceback ...")
    progress.finished(1, "FAIL", "ValueError: no luck with this one", [])
    for number in (2, 3):
        progress.started(number, ROUTED)
    clock.now += 2
    progress.reported(2, {"epoch": 1, "val_accuracy": 0.924, "flops": 944_000.0})
    progress.refresh(force=True)
    return progress


def test_the_view_is_whole_at_every_width(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("search_spaces.progress.time", clock)
    progress = watch(terminal, tmp_path / "out", clock)
    lines = terminal.lines()
    block = lines[next(i for i, line in enumerate(lines) if line.startswith("about ")) :]
    assert block[0].startswith("about ")  # the time left is first, and whole: it is what a person looks for
    assert "left | 2/44 trials | 1 failed | 18 s elapsed" in block[0]
    text = "\n".join(block)
    assert "best 93.00 %, 3.40 M (full_compute) | hypervolume" in text
    assert "within 1 point of full_compute (93.00 %): 93.00 % at 100% of its compute" in text
    running = [line.split() for line in block if "/8" in line]
    assert [(cells[0], cells[2]) for cells in running] == [("2", "1/8"), ("3", "0/8")]
    assert running[0][-4:] == ["92.40", "%", "944", "k"]
    assert running[0][1] in ("attention_routing/learnable_threshold", "attention_routi..")
    assert all(len(line) <= terminal.screen.columns for line in lines)
    progress.__exit__()
    left = terminal.lines()
    assert not any("left |" in line for line in left)  # the block goes, what has ended stays
    assert left[0].startswith("[1/44] trial 0  full_compute  93.00 %, 3.40 M  (16 s)")
    assert "failed: ValueError: no luck with this one" in "".join(left)
    assert "out/trials/1/error.txt" in "".join(left)


def test_failures_are_red_unless_colours_are_off(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("search_spaces.progress.time", clock)
    watch(terminal, tmp_path / "coloured", clock).__exit__()
    terminal.lines()
    assert terminal.screen.buffer[1][0].fg == "red"
    assert terminal.screen.buffer[0][0].fg == "default"
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal(terminal.screen.columns)
    watch(plain, tmp_path / "plain", clock).__exit__()
    plain.lines()
    assert {plain.screen.buffer[y][0].fg for y in range(4)} == {"default"}
    plain.close()


def test_more_trials_than_rows_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    small = Terminal(80, lines=10)
    with SweepProgress("digits", OBJECTIVES, 44, tmp_path, slots=32, stream=small.stream) as progress:
        for number in range(32):
            progress.started(number, ROUTED)
        progress.refresh(force=True)
        shown = small.lines()
    assert shown[0].startswith("time left: known after an epoch | 0/44 trials")
    assert "and 27 more" in shown
    small.close()


def test_a_terminal_without_a_cursor_gets_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    dumb = Terminal(80)
    with SweepProgress("digits", OBJECTIVES, 3, tmp_path, stream=dumb.stream) as progress:
        progress.started(0, DENSE)
        progress.refresh(force=True)
        progress.finished(0, "COMPLETE", "", [[0.9, 1e6]])
    assert dumb.lines()[0].startswith("[1/3] trial 0  full_compute  90.00 %, 1.00 M  (0 s)  |  time left")
    assert "\x1b" not in dumb.raw
    dumb.close()


def test_time_left_is_known_after_the_first_epoch() -> None:
    pace = Pace(slots=2)
    pace.start(0, epochs=10, now=0)
    assert pace.seconds_left(3, now=1) is None
    pace.report(0, 1, now=2)  # 2 s, the start included: nothing better is known
    # 9 epochs of this one and 3 trials of 10, 2 s each, on two slots
    assert pace.seconds_left(3, now=2) == pytest.approx((18 + 60) / 2)
    pace.report(0, 3, now=4)  # 1 s an epoch
    assert pace.seconds_left(3, now=4) == pytest.approx((7 + 30) / 2)
    assert pace.seconds_left(0, now=5) == pytest.approx(6)  # alone it needs its own time, and one second has passed
    assert pace.end(0, now=4) == 4  # stopped after 3 epochs that took 3 s, 1 s around them
    assert pace.seconds_left(3, now=4) == pytest.approx(3 * (3 + 1) / 2)


def test_time_left_counts_on_early_stopping() -> None:
    pace = Pace(slots=1, expected_epochs=lambda epochs: epochs / 4)
    pace.start(0, epochs=8, now=0)
    pace.report(0, 2, now=2)
    assert pace.seconds_left(10, now=2) == pytest.approx(6 + 10 * 2)


def test_a_trial_that_was_lost_begins_anew() -> None:
    pace = Pace(slots=1)
    pace.start(0, epochs=4, now=0)
    pace.report(0, 2, now=2)
    pace.forget_running()
    assert pace.end(0, now=3) is None
    pace.start(0, epochs=4, now=10)
    pace.report(0, 3, now=11)  # it went on from its checkpoint
    assert pace.seconds_left(0, now=11) == pytest.approx(1 / 3)
