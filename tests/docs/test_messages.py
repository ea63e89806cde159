"""Blocks in `console` are transcripts: every command is run here and must print what stands below it.

``…`` stands for anything. The commands are all bad input, so that nothing is trained; ``desk`` is the folder they are
given in.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import CONSOLE, PAGES, blocks, files_shown
from PIL import Image

from routing.cli import main
from routing.config.run import RunConfig
from search_spaces import load_study
from search_spaces.ledger.folder import locked, write_study

WITHOUT_WHEN = """\
kind: sweep
name: without_when
base: {dataset.name: digits}
space:
  model.name: [full_compute, attention_routing]
  model.router.mode: [top_k, random]
objectives: [{metric: val_accuracy, goal: maximize, reference: 0.1}]
trials: 2
"""


def transcripts() -> list[tuple[str, str, str]]:
    """Return (where, command, what it prints) of every command in a console block."""
    found = []
    for page in PAGES:
        for block in blocks(page, CONSOLE):
            for entry in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, printed = entry.partition("\n")
                found.append((str(block), command, printed))
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as readers of these pages have it: images, study files, a run, results."""
    folder = tmp_path_factory.mktemp("desk")
    for root in ("shapes", "odd", "damaged", "no_test"):
        paint(folder / root / "train", "cross", "plus")
    paint(folder / "odd" / "val", "cross", "pluss")
    (folder / "damaged" / "train" / "plus" / "000.png").write_text("not an image")
    (folder / "my_images.yaml").write_text(files_shown()["my_images.yaml"])
    (folder / "changed.yaml").write_text(files_shown()["my_images.yaml"].replace("num_epochs: 8", "num_epochs: 9"))
    (folder / "without_when.yaml").write_text(WITHOUT_WHEN)
    (folder / "runs" / "first").mkdir(parents=True)
    (folder / "runs" / "first" / "metrics.json").write_text('{"metrics": {}}')
    for name in ("my_images", "busy", "without_test", "unanalyzed"):
        write_study(folder / "results" / name, load_study(folder / "my_images.yaml"))
    (folder / "results" / "my_images" / "trials").mkdir()
    (folder / "results" / "my_images" / "trials.csv").write_text("number,state\n0,COMPLETE\n")
    points = "trial,is_default,val_accuracy,flops\n0,True,0.9,209536.0\n"
    (folder / "results" / "my_images" / "points.csv").write_text(points)
    (folder / "results" / "without_test" / "front.csv").write_text("trial,knob,knob_value,is_default,val_accuracy,flops\n0,,,True,0.9,1\n")
    trial = folder / "results" / "without_test" / "trials" / "0"
    trial.mkdir(parents=True)
    (trial / "metrics.json").write_text('{"metrics": {}}')
    no_test = RunConfig.from_dict({"dataset": {"name": "image_folder", "root": "no_test"}})
    (trial / "config.yaml").write_text(no_test.to_yaml())
    with locked(folder / "results" / "busy"):
        yield folder


def paint(folder: Path, *classes: str) -> None:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(folder / name / f"{index:03}.png")


@pytest.mark.parametrize(("where", "command", "printed"), transcripts(), ids=lambda value: value[:60])
def test_a_transcript_is_what_happens(
    where: str,
    command: str,
    printed: str,
    desk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(desk)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    files = sorted(desk.rglob("*"))
    program, *arguments = shlex.split(command)
    assert program == "routing"
    assert main(arguments) == 2
    captured = capsys.readouterr()
    pattern = ".*".join(re.escape(part) for part in printed.split("…"))
    assert re.fullmatch(pattern, captured.out + captured.err), f"{where}: $ {command}\n{captured.out}{captured.err}"
    assert sorted(desk.rglob("*")) == files, "bad input leaves no file behind"


def test_the_common_messages_are_there() -> None:
    assert len(transcripts()) >= 20
