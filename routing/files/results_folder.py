"""What a run's folder and a results folder are made of: names of files, states of trials, columns of tables.

Several packages write or read them; each name is defined here only. Folders made before stay readable: none may change.

    RUN      config.yaml  history.csv  metrics.json  model.safetensors  best.safetensors  library.json
             figures/  pictures/
    RESULTS  study.yaml  environment.json  ledger.journal  trials/<number>/ (a run each)  trials.csv  points.csv
             front.csv  figures/  tables/  report.html  best/<pick>/  confirm/ (a results folder with confirm.csv)
"""

from __future__ import annotations

from pathlib import Path

CONFIG_FILE = "config.yaml"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
MODEL_FILE = "model.safetensors"
BEST_FILE = "best.safetensors"
LIBRARY_FILE = "library.json"
"""Of a run whose model is of a library: what it was built with beside config.yaml."""
CHECKPOINT_FILE = "checkpoint.safetensors"
"""Of a running run; a finished one has none."""
PICTURES_FOLDER = "pictures"
"""Of a run with ``training.pictures_every``: what its model looked like from inside, epoch by epoch."""
ERROR_FILE = "error.txt"
LOG_FILE = "log.txt"
"""What a trial of a sweep printed."""
RAY_LOG_FILE = "ray.log"
"""Ends of Ray's own logs, where Ray has died under a sweep."""
SCRIPT_FOLDER = "out"
"""Folder of a training script of the user's inside that of its run."""
TEST_FILE = "confirm_test.json"
"""Operating points on the test split, written by ``confirm`` only: what a user evaluates stays out of every table."""

STUDY_FILE = "study.yaml"
ENVIRONMENT_FILE = "environment.json"
LEDGER_FILE = "ledger.journal"
TRIALS_FOLDER = "trials"
SET_ASIDE_FOLDER = "set_aside"
"""Finished trials that the ledger does not know, because its end was lost, and whose numbers it has given again."""
TRIALS_FILE = "trials.csv"
POINTS_FILE = "points.csv"
LOCK_FILE = ".lock"
ID_FILE = "ledger_id.txt"
MIRROR_FILE = "mirror.txt"
"""In a folder with a copy behind a URL, and in that copy: the URL, and a mark of the sweep that both belong to."""

FRONT_FILE = "front.csv"
FIGURES_FOLDER = "figures"
PAPER_FOLDER = "paper"
TABLES_FOLDER = "tables"
REPORT_FILE = "report.html"
BEST_FOLDER = "best"
CARD_FILE = "card.md"
CONFIRM_FOLDER = "confirm"
CONFIRM_FILE = "confirm.csv"
HYPERVOLUME_FILE = "hypervolume.json"
WANDB_FILE = "wandb.json"
"""What Weights & Biases has of a study: its project, and the tags of every trial logged there."""
VIOLATES = "violates"
"""Column of points.csv: the constraint that a point breaks, empty where it keeps to all."""
"""Of the confirmed front: mean, low and high."""

WAITING, RUNNING, COMPLETE, PRUNED, FAIL = "WAITING", "RUNNING", "COMPLETE", "PRUNED", "FAIL"
"""States in trials.csv, with Optuna's names; PRUNED is stopped early or refused before it started."""
WARM_START = "WARM_START"
"""State of a trial that another study has run: it informs the sampler and counts for nothing else."""
STATE_WORDS = {
    COMPLETE: "complete",
    PRUNED: "stopped early",
    FAIL: "failed",
    RUNNING: "running",
    WAITING: "waiting",
    WARM_START: "taken over",
}
"""States as people read them."""
WARM_START_REASON = "warm start: "
"""Begins the reason of such a trial; folders of before 0.1.0 have no other sign of it."""
WARM_START_ATTR = "warm_start"
"""Attribute of such a trial in the ledger."""

ARM = "arm"
BASELINE_ARM = "baseline"
"""Name of the arm of an ablation to which the others are compared, where its study names none."""
TRIAL_COLUMNS = ("number", "state", "reason", "seed")
"""First columns of trials.csv, and of an ablation ``arm``."""
ASKED_BY = "asked_by"
"""Column of trials.csv: who enqueued or stopped a trial while the sweep ran."""
REQUESTS_FOLDER = "requests"
"""What people ask of a running sweep."""
VERSION_COLUMNS = {"routing": "routing_version", "torch": "torch_version", "python": "python_version"}
"""Columns of trials.csv with what was installed on the node that ran a trial."""
OPERATING_POINT = ("knob", "knob_value", "is_default")
"""Columns that tell the operating points of one trained model apart."""
MEAN, LOW, HIGH = "_mean", "_low", "_high"
"""Ends of the columns of confirm.csv: mean over fresh seeds and its 95 % interval."""
SELECTED = "selected_"
"""Begins the column of confirm.csv with the value by which a point was chosen."""
DIFFERENCE, PAIRS, BASELINE = "difference", "pairs", "baseline"
"""Columns of confirm.csv: paired difference to the baseline (and ``MEAN`` ...), common seeds, its trial."""
ON_FRONT, OF_BASELINE = "on_front", "cost_of_baseline"
"""Columns of confirm.csv: probability of being on the front; cost as a share of the baseline's."""
WINNERS_CURSE = "winners_curse"
COMPUTE_CHECK, EXECUTED_ALONE = "compute_check", "as executed; no closed form checks them"
"""Column, and what it says of a network whose multiply-adds are counted one way only."""


def trial_folder(results: Path, number: int) -> Path:
    """Return the folder of one trial, a run's folder."""
    return results / TRIALS_FOLDER / str(number)


def is_results_folder(folder: Path) -> bool:
    """Return whether a sweep has written there: a study file alone may be the user's own."""
    written = (LEDGER_FILE, TRIALS_FOLDER, TRIALS_FILE, POINTS_FILE)
    return (folder / STUDY_FILE).exists() and any((folder / name).exists() for name in written)
