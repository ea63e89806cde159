"""Signs flip here and nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.read.objectives import DEFAULT, losses, measured, metrics, objectives_of, reference_losses
from routing.errors import InputError
from routing.objectives import Objective

ACCURACY, FLOPS = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.1),
    Objective(metric="flops", goal="minimize", reference=2e6),
)
TABLE = pd.DataFrame({"val_accuracy": [0.5, 0.9, None], "flops": [1e5, 1e6, 1e6]})


def test_losses_and_back():
    rows = TABLE[:2]
    np.testing.assert_allclose(losses(rows, [ACCURACY, FLOPS]), [[-0.5, 5], [-0.9, 6]])
    np.testing.assert_allclose(metrics(losses(rows, [ACCURACY, FLOPS]), [ACCURACY, FLOPS]), rows.to_numpy())
    linear = Objective(metric="flops", goal="minimize", reference=2e6, scale="linear")
    np.testing.assert_array_equal(losses(rows, [ACCURACY, linear]), [[-0.5, 1e5], [-0.9, 1e6]])
    np.testing.assert_array_equal(metrics(losses(rows, [ACCURACY, linear]), [ACCURACY, linear]), rows.to_numpy())


def test_reference_declared_or_worst_seen():
    vectors = losses(TABLE[:2], [ACCURACY, FLOPS])
    np.testing.assert_allclose(reference_losses(vectors, [ACCURACY, FLOPS]), [-0.1, np.log10(2e6)])
    np.testing.assert_allclose(
        reference_losses(vectors, [ACCURACY, Objective(metric="flops", goal="minimize")]), [-0.1, 6]
    )


def test_measured_needs_every_objective():
    assert measured(TABLE, [ACCURACY, FLOPS]).tolist() == [True, True, False]
    assert measured(TABLE, [ACCURACY, Objective(metric="train_seconds", goal="minimize")]).tolist() == [False] * 3
    assert measured(TABLE.iloc[:0], [ACCURACY, FLOPS]).tolist() == []


def test_objectives_of_a_study():
    study = {"objectives": [{"metric": "val_srcc", "goal": "maximize", "reference": 0}]}
    assert objectives_of(study) == (Objective(metric="val_srcc", goal="maximize", reference=0.0),)
    assert objectives_of({}) == DEFAULT


@pytest.mark.parametrize(
    ("objectives", "match"),
    [
        ("val_accuracy", "list of metric"),
        ([{"goal": "maximize"}], "names no metric"),
        ([{"metric": "flops", "goal": "less"}], "goal of flops is 'less'"),
        ([{"metric": "flops", "goal": "minimize", "reference": "big"}], "reference of flops is not a number"),
        ([{"metric": "flops", "goal": "minimize", "scale": "ln"}], "scale of flops is 'ln'"),
        ([{"metric": "flops", "goal": "minimize", "reference": 0, "scale": "log"}], "scale of flops is 'log'"),
    ],
)
def test_bad_objectives(objectives, match):
    with pytest.raises(InputError, match=match):
        objectives_of({"objectives": objectives})
