"""How good a front each search finds for a number of trials, ours and those of other libraries.

Every search runs under the same seeds, two trials at a time, each answered by the task; nothing is enqueued and nothing
stopped early. Searches learn the default operating point of a training; the hypervolume is that of all its points.
``python -m search_spaces.bench.searching FILE [--tasks ..] [--searchers ..] [--seeds N]`` adds one line per search to
FILE, leaves out those it holds, and prints the tables of what it holds: it can be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from routing.bench.tables import BenchTable, markdown
from routing.objectives import scales_in_words, volume_of
from search_spaces.bench.searchers import RIVALS, installed, searcher_of
from search_spaces.bench.tasks import TASKS, Task
from search_spaces.study.registry import SAMPLERS

OURS = ("auto", "tpe", "random")
BUDGETS = (20, 40, 80, 150)
ASKED = 100
"""Trials that have ended when a proposal's CPU time is taken."""
WORKERS = 2
SEEDS = 20
_RESAMPLES = 2000

Piece = dict[str, Any]
"""One search: task, searcher, seed, ``volumes`` by budget, ``ask`` (CPU seconds a proposal), ``ask_100``."""


def bench(quick: bool = False) -> list[BenchTable]:
    """Return a table per task; ``quick``: our samplers, two seeds and 40 trials."""
    names, seeds, trials = (OURS, 2, BUDGETS[1]) if quick else ((*OURS, *RIVALS), SEEDS, BUDGETS[-1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "searches.jsonl"
        add_missing(path, [*TASKS], names, seeds, trials)
        return tables(read_pieces(path))


def search(name: str, task: Task, seed: int, trials: int) -> Piece:
    """Run one search; ``ask_100`` is the mean CPU time of the proposals around the 100th, None before."""
    searcher = searcher_of(name, task, seed, trials)
    running: list[tuple[Any, list[list[float]]]] = []
    points: list[list[float]] = []
    ended = 0
    asking: list[float] = []
    volumes: dict[str, float] = {}
    while ended < trials:
        while len(running) < WORKERS and len(asking) < trials:
            begun = time.process_time()
            handle, setting = searcher.ask()
            asking.append(time.process_time() - begun)
            running.append((handle, task.points(setting)))
        handle, found = running.pop(0)
        searcher.tell(handle, found[0])
        points += found
        ended += 1
        if ended in BUDGETS:
            volumes[str(ended)] = volume_of(points, task.objectives)
    late = asking[ASKED - 10 : ASKED + 10] if len(asking) >= ASKED else []
    ask = {"ask": float(np.mean(asking)), "ask_100": float(np.mean(late)) if late else None}
    return {"task": task.name, "searcher": name, "seed": seed, "volumes": volumes, **ask}


def tables(pieces: Sequence[Piece]) -> list[BenchTable]:
    """Return one table per task: the hypervolume after each number of trials."""
    return [
        _table(name, [piece for piece in pieces if piece["task"] == name]) for name in dict.fromkeys(_tasks(pieces))
    ]


def _tasks(pieces: Iterable[Piece]) -> list[str]:
    return [name for name in TASKS if any(piece["task"] == name for piece in pieces)]


def _table(task: str, pieces: Sequence[Piece]) -> BenchTable:
    by_name: dict[str, dict[int, Piece]] = {}
    for piece in pieces:
        by_name.setdefault(piece["searcher"], {})[piece["seed"]] = piece
    budgets = [str(b) for b in BUDGETS if any(str(b) in piece["volumes"] for piece in pieces)]
    columns = {"searcher": "search", **{b: f"{b} trials" for b in budgets}}
    columns |= {f"above_{b}": f"above random, {b}" for b in budgets[-1:]} | {"ask": "CPU s a proposal"}
    columns |= {"ask_100": f"at {ASKED}", "n": "seeds"}
    rows = []
    for name, own in by_name.items():
        cells = {b: _cell(b, name, by_name) for b in budgets}
        above = {f"above_{b}": _above(b, own, by_name.get("random", {})) for b in budgets[-1:]}
        late = [piece["ask_100"] for piece in own.values() if piece["ask_100"] is not None]
        times = {"ask": float(np.mean([piece["ask"] for piece in own.values()]))}
        times |= {"ask_100": float(np.mean(late)) if late else ""}  # type: ignore[dict-item]
        rows.append({"searcher": name, **cells, **above, **times, "n": len(own)})
    scale = scales_in_words(TASKS[task]().objectives)
    title = f"search, {task}: median hypervolume ({scale}); = where the best is not surely better"
    return BenchTable(title, columns, rows)


def _volumes(budget: str, own: dict[int, Piece]) -> dict[int, float]:
    return {seed: piece["volumes"][budget] for seed, piece in own.items() if budget in piece["volumes"]}


def _cell(budget: str, name: str, by_name: dict[str, dict[int, Piece]]) -> str:
    """Return the median with a mark where the best search, paired by seed, does not surely lead (95 % bootstrap)."""
    found = {other: _volumes(budget, own) for other, own in by_name.items()}
    if not found[name]:
        return ""
    medians = {other: float(np.median([*volumes.values()])) for other, volumes in found.items() if volumes}
    best = max(medians, key=lambda other: medians[other])
    mark = " best" if name == best else " =" if not _leads(found[best], found[name]) else ""
    return f"{medians[name]:.4g}{mark}"


def _leads(best: dict[int, float], other: dict[int, float]) -> bool:
    """Return whether the mean lead over the same seeds is above 0 with 97.5 % of bootstrap samples."""
    lead = np.array([best[seed] - other[seed] for seed in best.keys() & other.keys()])
    if len(lead) < 2:
        return False
    means = np.random.default_rng(0).choice(lead, size=(_RESAMPLES, len(lead))).mean(axis=1)
    return bool(np.quantile(means, 0.025) > 0)


def _above(budget: str, own: dict[int, Piece], random: dict[int, Piece]) -> str:
    mine, theirs = _volumes(budget, own), _volumes(budget, random)
    both = mine.keys() & theirs.keys()
    return f"{sum(mine[seed] > theirs[seed] for seed in both)} of {len(both)}"


def read_pieces(path: Path) -> list[Piece]:
    """Return the searches that a file holds; a last line that is cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def add_missing(path: Path, tasks: Sequence[str], searchers: Sequence[str], seeds: int, trials: int) -> None:
    """Run the searches that a file does not hold, seed by seed, and add a line for each; say which cannot run."""
    searchers, left_out = installed(searchers)
    if left_out:
        print(left_out, file=sys.stderr)
    held = {(p["task"], p["searcher"], p["seed"]) for p in read_pieces(path)}
    made = {name: TASKS[name]() for name in tasks}
    for seed in range(seeds):
        for task in tasks:
            for name in searchers:
                if (task, name, seed) in held:
                    continue
                piece = search(name, made[task], seed, trials)
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(piece) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tasks", nargs="*", default=[*TASKS], choices=[*TASKS])
    parser.add_argument("--searchers", nargs="*", default=[*OURS, *RIVALS], choices=[*SAMPLERS, *RIVALS])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--trials", type=int, default=BUDGETS[-1])
    given = parser.parse_args(words)
    add_missing(given.file, given.tasks, given.searchers, given.seeds, given.trials)
    print("\n\n".join(map(markdown, tables(read_pieces(given.file)))))


if __name__ == "__main__":
    main()
