"""``make pictures``: the pictures of the README from a real sweep: its live view as SVG, its report in a browser as PNG.

    python docs/pictures/draw.py [--results FOLDER] [--trials N] [-- --base.training.num_epochs 1]

The sweep runs behind a pseudo-terminal, and the screen of a moment in its second half is what a person sees there. With
``--results`` only the report of that folder is photographed.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte
from PIL import Image
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
STUDY, COLUMNS, LINES = "digits", 100, 18
BADGES = {
    "python": ("python", "3.10+", "#306998"),
    "licence": ("licence", "MIT", "#3a7d44"),
    "ci": ("ci", "make check test", "#3a7d44"),
}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000")


def sweep(out: Path, trials: int, words: list[str]) -> list[str]:
    """Run the study and return the screen of its live view when two thirds of its trials had ended."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "routing", "sweep", STUDY, "--out", str(out), "--trials", str(trials), *words]
    environment = {**os.environ, "TERM": "xterm-256color"}
    driver = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    kept: list[str] = []
    while True:
        if select.select([ours], [], [], 1.0)[0]:
            try:
                stream.feed(os.read(ours, 65536))
            except OSError:  # the terminal is closed
                break
        ended = re.search(rf"(\d+)/{trials} trials", "\n".join(screen.display))
        is_moment = ended is not None and int(ended[1]) >= trials * 2 // 3 and _is_whole(screen.display)
        if is_moment and not kept:
            kept = [line.rstrip() for line in screen.display]
    if driver.wait() or not kept:
        raise SystemExit(f"the sweep ended with {driver.returncode}, with {len(kept)} lines of its view")
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _is_whole(lines: list[str]) -> bool:
    """Return whether the block of the view is drawn: its headings, and a trial below them that has a value."""
    found = [place for place, line in enumerate(lines) if line.lstrip().startswith("trial  ")]
    below = [line for line in lines[found[-1] + 1 :] if line.strip()] if found else []
    return any(not line.rstrip().endswith("-") for line in below)


def as_svg(lines: list[str], title: str) -> str:
    """Return a screen as SVG that loads nothing from elsewhere."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    bold = next((place for place, line in enumerate(lines) if " left" in line and " | " in line), -1)
    for place, line in enumerate(lines):
        console.print(Text(line, style="bold" if place == bold else ""), soft_wrap=True)
    svg = console.export_svg(title=title, unique_id="live")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "ui-monospace")


def badge(label: str, value: str, colour: str) -> str:
    """Return a badge as SVG; the widths are those of DejaVu Sans at 11 pixels, text is stretched to them elsewhere."""
    left, right = 7 * len(label) + 12, 7 * len(value) + 12
    texts = ((label, left / 2, left - 12), (value, left + right / 2, right - 12))
    words = "".join(f'<text x="{x:g}" y="14" textLength="{width}">{text}</text>' for text, x, width in texts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{label}: {value}">'
        f'<rect width="{left}" height="20" fill="#555"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        f'<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle">{words}</g></svg>\n'
    )


def photograph(page: Path, target: Path, width: int = 1280, height: int = 1400) -> None:
    """Open a page in a browser without a screen and write what is seen of it, in 128 colours."""
    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        raise SystemExit("no chromium on this machine: the report is not photographed")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "page.png"
        words = [f"--window-size={width},{height}", f"--screenshot={picture}", f"--user-data-dir={folder}/profile"]
        subprocess.run([browser, *FLAGS, *words, page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
        image = Image.open(picture).convert("RGB").quantize(128, method=Image.Quantize.MEDIANCUT)
        image.save(target, optimize=True)


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=Path)
    parser.add_argument("--trials", type=int, default=44)
    parser.add_argument("words", nargs="*", help="after --: further words of routing sweep")
    options = parser.parse_args()
    for name, words in BADGES.items():
        (IMAGES / f"badge_{name}.svg").write_text(badge(*words), encoding="utf-8")
    results = options.results
    if results is None:
        results = ROOT / "build" / "pictures" / STUDY
        shutil.rmtree(results, ignore_errors=True)
        started = time.monotonic()
        screen = sweep(results, options.trials, options.words)
        (IMAGES / "live.svg").write_text(as_svg(screen, " ".join(["routing sweep", STUDY, *options.words])), encoding="utf-8")
        print(f"wrote {IMAGES / 'live.svg'} after {time.monotonic() - started:.0f} s")
    photograph(results / "report.html", IMAGES / "report.png")
    print(f"wrote {IMAGES / 'report.png'}")


if __name__ == "__main__":
    main()
