"""The live view of a running study on a terminal: drawn from its ``SweepProgress``, erased when the study ends."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions
from rich.live import Live
from rich.text import Text

from routing.quantities import heading, in_words

if TYPE_CHECKING:
    from search_spaces.progress import Running, SweepProgress

_BETWEEN = " | "
_GAP = "  "


class LiveView:
    """Lines that stay, above a block that is drawn again and again."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live("", console=console, auto_refresh=False, transient=True)

    def start(self, progress: SweepProgress) -> None:
        """Begin to draw."""
        self._live.start()
        self.show(progress)

    def stop(self) -> None:
        """Erase the block; lines that were kept stay."""
        self._live.stop()

    def keep(self, line: str, failed: bool = False) -> None:
        """Print a line that stays in the terminal's memory; a failure is red."""
        self._console.print(Text(line, style="red" if failed else ""), soft_wrap=True)

    def show(self, progress: SweepProgress) -> None:
        """Draw the block anew, in the size the terminal has now."""
        width, height = self._console.size = terminal_size(self._console.file)
        lines = [*head(progress, width), *rows(progress, width)]
        kept = max(height - 1, 1)
        if len(lines) > kept:
            hidden = len(lines) - kept + 1
            lines = [*lines[: kept - 1], f"and {hidden} more"]
        text = Text("\n".join(lines), no_wrap=True, overflow="crop")
        text.stylize("bold", 0, len(lines[0]))
        self._live.update(text, refresh=True)


def terminal_size(stream: IO[str]) -> ConsoleDimensions:
    """Return columns and rows of the terminal behind a stream, 80 x 24 where it does not know them."""
    columns, lines = os.get_terminal_size(stream.fileno())
    return ConsoleDimensions(columns or 80, lines or 24)


def live_view(stream: IO[str]) -> LiveView | None:
    """Return a view on a terminal; None on one that cannot move its cursor."""
    console = Console(file=stream, highlight=False)
    return LiveView(console) if console.is_interactive else None


def head(progress: SweepProgress, width: int) -> list[str]:
    """Return the lines on the study: time left, trials, time so far; the best so far; the claim."""
    left, *others = progress.clock()
    counts = [f"{progress.done}/{progress.total} trials"]
    counts += [f"{progress.ends[state]} {word}" for state, word in progress.ENDS.items() if progress.ends[state]]
    lines = _packed([left, *counts, *others], width)
    return lines + _packed([progress.name, *progress.best.words()], width)


def rows(progress: SweepProgress, width: int) -> list[str]:
    """Return a line per running trial under its headings; what is too long for the width is the model's name."""
    if not progress.running:
        return []
    metrics = [objective.metric for objective in progress.objectives]
    table = [["trial", "model", "epoch", *map(heading, metrics)]]
    table += [_cells(trial, metrics) for trial in progress.running.values()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    fixed = sum(widths) - widths[1] + len(_GAP) * (len(widths) - 1)
    widths[1] = max(min(widths[1], width - fixed), 4)
    return [_GAP.join(_placed(cells, widths)).rstrip()[:width] for cells in table]


def _cells(trial: Running, metrics: Iterable[str]) -> list[str]:
    epoch = f"{int(trial.row['epoch']) if trial.row else 0}/{trial.epochs}"
    return [str(trial.number), trial.model, epoch, *(_value(trial.row, metric) for metric in metrics)]


def _value(row: Mapping[str, Any], metric: str) -> str:
    value = row.get(metric)
    return in_words(metric, float(value)) if isinstance(value, (int, float)) else "-"


def _placed(cells: list[str], widths: list[int]) -> list[str]:
    number, model, *others = cells
    name = model if len(model) <= widths[1] else f"{model[: widths[1] - 2]}.."
    right = [cell.rjust(width) for cell, width in zip(others, widths[2:], strict=True)]
    return [number.rjust(widths[0]), name.ljust(widths[1]), *right]


def _packed(parts: list[str], width: int) -> list[str]:
    """Return the parts in as few lines as hold them whole; one that is longer than a line is cropped."""
    lines = [parts[0]]
    for part in parts[1:]:
        together = f"{lines[-1]}{_BETWEEN}{part}"
        if len(together) <= width:
            lines[-1] = together
        else:
            lines.append(part)
    return [line[:width] for line in lines]
