"""No search at all: two long-lived processes train random settings one after another. Usage: FOLDER TRIALS EPOCHS"""

from __future__ import annotations

import math
import multiprocessing
import random
import sys
from pathlib import Path

from search_spaces.bench.workload import RANGE, WORKERS, config_of, timed_run


def train(target: float, epochs: int, folder: str) -> None:
    """Train one run."""
    timed_run(config_of(target, epochs), Path(folder))


def main(folder: str, trials: int, epochs: int) -> None:
    """Run all trials."""
    rng = random.Random(0)
    low, high = (math.log(end) for end in RANGE)
    settings = [(math.exp(rng.uniform(low, high)), epochs, folder) for _ in range(trials)]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.starmap(train, settings, chunksize=1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
