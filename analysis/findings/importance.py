"""Parameter importance as Optuna estimates it from the ledger: a hint where to look, not an ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from analysis.read.journal import open_journal
from analysis.read.results import Results
from routing.files.results_folder import COMPLETE, LEDGER_FILE, WARM_START_ATTR

MIN_TRIALS = 20
MAX_TRIALS = 1000
NOTE = (
    "Importance is estimated from the trials the search happened to run (Optuna's fANOVA). It is not an ablation: a "
    "parameter without any effect can score high because a search samples unevenly. Use an ablation study to claim "
    "an effect."
)


def importances(results: Results) -> pd.DataFrame:
    """Return the importance of the searched parameters for every objective; empty with too few trials, or no search.

    Columns: ``parameter`` and one per objective, each summing to 1; sorted by the first objective. Parameters that only
    some trials have come last, as NaN: they cannot be compared. At most the last 1,000 finished trials are used, none
    of a warm start. A ledger that cannot be read adds a line to ``results.problems``.
    """
    ledger = results.folder / LEDGER_FILE
    if results.kind != "sweep" or (results.trials["state"] == COMPLETE).sum() < MIN_TRIALS:
        return pd.DataFrame()
    if not ledger.is_file():
        results.problems.append(f"{ledger}: no such file (a sweep with --storage has none); no parameter importance")
        return pd.DataFrame()
    try:
        found = _from_ledger(ledger, [objective.metric for objective in results.objectives])
    except Exception as error:  # another version's or a damaged ledger fails in many ways; none may end the report
        results.problems.append(f"{ledger}: no importance: {type(error).__name__}: {error}".splitlines()[0])
        return pd.DataFrame()
    if found.empty:
        return found
    return found.sort_values(found.columns[0], ascending=False).rename_axis("parameter").reset_index()


def split_estimated(found: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of ``importances`` that have values, and the parameters that were left out."""
    left_out = found.drop(columns="parameter").isna().all(axis=1)
    return found[~left_out], [str(name) for name in found.loc[left_out, "parameter"]]


def _from_ledger(ledger: Path, metrics: list[str]) -> pd.DataFrame:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    study, _ = open_journal(ledger)
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in done if WARM_START_ATTR not in trial.user_attrs][-MAX_TRIALS:]
    if len(trials) < MIN_TRIALS:
        return pd.DataFrame()
    sample = optuna.create_study(directions=study.directions)
    sample.add_trials(trials)
    columns: dict[str, dict[str, float]] = {}
    for index, metric in enumerate(metrics[: len(study.directions)]):
        if len({trial.values[index] for trial in trials}) == 1:  # nothing varies, so nothing explains it
            continue
        columns[metric] = get_param_importances(
            sample, evaluator=FanovaImportanceEvaluator(seed=0), target=_value(index)
        )
    found = pd.DataFrame(columns)
    return found.reindex([*found.index, *sorted({key for trial in trials for key in trial.params} - set(found.index))])


def _value(index: int) -> Any:
    return lambda trial: trial.values[index]
