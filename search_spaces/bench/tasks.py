"""What searches are compared on: spaces whose trainings are answered at once, by a formula or from a recording.

* ``zdt1``, ``zdt2``: ten real numbers, a known front (Zitzler, Deb and Thiele, Evolutionary Computation 8, 2000).
* ``conditional``: three families of networks, 12 parameters of which seven or eight exist in a trial, costs over three
  decades; accuracy saturates with capacity, falls beside a learning rate that depends on the network, and is noisy.
* ``digits``: the recording of the default study, between whose trials a regression answers.
* ``photographs``, ``digits_points``: recordings of short trainings with all their operating points; likewise.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from routing.objectives import Objective, losses_of
from search_spaces.bench.recorded import DIGITS, RECORDED, Recorded, RecordedPoints, read_points, read_recorded
from search_spaces.search.memory import key_of
from search_spaces.study.load import load_study
from search_spaces.study.parameters import is_constant
from search_spaces.study.schema import Parameter, SweepStudy
from search_spaces.study.space import Space

Array = NDArray[np.float64]
_PLACES = 9
_NOISE = 0.003
"""Standard deviation of an accuracy of ``conditional``, that of a validation split of 10,000 images."""


@dataclass(frozen=True)
class Task:
    """A space, its objectives, and what a training of a setting measures: one value per objective."""

    name: str
    space: Space
    objectives: tuple[Objective, ...]
    measure: Callable[[dict[str, Any]], list[float]]
    curve: Callable[[dict[str, Any]], list[list[float]]] | None = None
    """What every operating point of a training measures; None where it has but the default one."""

    def points(self, setting: dict[str, Any]) -> list[list[float]]:
        """Return what a training of a setting measures at its operating points, the default one first."""
        return [self.measure(setting)] if self.curve is None else self.curve(setting)


def zdt(name: str) -> Task:
    """Return ``zdt1`` (a convex front) or ``zdt2`` (a concave one)."""
    power = {"zdt1": 0.5, "zdt2": 2.0}[name]
    parameters = {f"x{i}": Parameter.model_validate({"float": [0.0, 1.0]}) for i in range(10)}

    def measure(setting: dict[str, Any]) -> list[float]:
        first, *others = (setting[f"x{i}"] for i in range(10))
        height = 1 + 9 * sum(others) / 9
        return [first, height * (1 - (first / height) ** power)]

    objectives = (
        Objective(metric="f1", goal="minimize", reference=1.1),
        Objective(metric="f2", goal="minimize", reference=6.0),
    )
    return Task(name, Space(parameters, {}), objectives, measure)


_CONDITIONAL: dict[str, dict[str, Any]] = {
    "family": {"choice": ["conv", "patch", "attention"]},
    "learning_rate": {"float": [1e-4, 1e-1], "log": True},
    "weight_decay": {"float": [1e-5, 1e-1], "log": True},
    "augment": {"choice": ["none", "flip", "strong"]},
    "conv.width": {"int": [8, 128], "log": True, "when": {"family": "conv"}},
    "conv.depth": {"int": [1, 6], "when": {"family": "conv"}},
    "conv.kernel": {"choice": [3, 5, 7], "when": {"family": "conv"}},
    "patch.width": {"int": [8, 256], "log": True, "when": {"family": "patch"}},
    "patch.share": {"float": [0.02, 1.0], "log": True, "when": {"family": "patch"}},
    "attention.width": {"int": [16, 256], "log": True, "when": {"family": "attention"}},
    "attention.layers": {"int": [1, 8], "when": {"family": "attention"}},
    "attention.heads": {"choice": [1, 2, 4, 8], "when": {"family": "attention"}},
}


def conditional() -> Task:
    """Return the task of three families of networks."""
    space = Space({name: Parameter.model_validate(given) for name, given in _CONDITIONAL.items()}, {})
    objectives = (
        Objective(metric="val_accuracy", goal="maximize", reference=0.1),
        Objective(metric="flops", goal="minimize", reference=3e7),
    )
    return Task("conditional", space, objectives, _network)


def _network(setting: dict[str, Any]) -> list[float]:
    """Return accuracy and multiply-adds of a network of one of the families."""
    family = {"conv": _conv, "patch": _patch, "attention": _attention}[setting["family"]]
    cost, capacity, highest, growth, rate, lost = family(setting)
    accuracy = highest * (1 - math.exp(-growth * max(capacity - 1, 0.05))) - lost
    accuracy -= 0.09 * (math.log10(setting["learning_rate"]) - rate) ** 2
    accuracy -= 0.02 * (math.log10(setting["weight_decay"]) + (3.5 if setting["family"] == "conv" else 2.5)) ** 2
    accuracy -= {"none": 0.03, "flip": 0.0, "strong": 0.05 - 0.025 * (capacity - 2)}[setting["augment"]]
    drawn = np.random.default_rng(zlib.crc32(repr(sorted(setting.items())).encode())).standard_normal()
    return [float(np.clip(accuracy + _NOISE * drawn, 0.1, 1.0)), cost]


def _conv(setting: dict[str, Any]) -> tuple[float, ...]:
    """Return cost, capacity, highest accuracy, its growth, the best rate (log10), and what other choices lose."""
    width, depth, kernel = setting["conv.width"], setting["conv.depth"], setting["conv.kernel"]
    lost = {3: 0.0, 5: 0.01, 7: 0.03}[kernel] + 0.02 * abs(depth - 3)
    cost = 2.5 * width**2 * depth * kernel**2 + 2e4
    return cost, math.log10(width**2 * depth), 0.90, 0.62, -1.2 - 0.35 * math.log10(width), lost


def _patch(setting: dict[str, Any]) -> tuple[float, ...]:
    width, share = setting["patch.width"], math.log10(setting["patch.share"])
    cost = 60 * width**2 * setting["patch.share"] + 100 * width + 6e3
    return cost, 2 * math.log10(width) + 0.6 * share + 0.8, 0.84, 0.75, -1.8, 0.08 * max(0.0, -1.3 - share)


def _attention(setting: dict[str, Any]) -> tuple[float, ...]:
    width, layers, heads = setting["attention.width"], setting["attention.layers"], setting["attention.heads"]
    cost, lost = 19.2 * width**2 * layers + 4e4, 0.015 * abs(math.log2(width / heads) - 4)
    return cost, math.log10(width**2 * layers), 0.95, 0.42, -2.6 - 0.3 * math.log10(layers), lost


def digits() -> Task:
    """Return the task of the default study."""
    study = load_study("digits")
    assert isinstance(study, SweepStudy)
    model = Regression(read_recorded(DIGITS, [objective.metric for objective in study.objectives]), study)
    return Task("digits", model.space, study.objectives, model)


def of_points(name: str) -> Task:
    """Return the task of a recording with points, which lies beside its study."""
    study = load_study(RECORDED / f"{name}.yaml")
    assert isinstance(study, SweepStudy)
    model = CurveRegression(read_points(RECORDED / f"{name}.csv", [o.metric for o in study.objectives]), study)
    return Task(name, model.space, study.objectives, model, model.points)


TASKS: dict[str, Callable[[], Task]] = {
    "conditional": conditional,
    "zdt1": lambda: zdt("zdt1"),
    "zdt2": lambda: zdt("zdt2"),
    "digits": digits,
    "photographs": lambda: of_points("photographs"),
    "digits_points": lambda: of_points("digits_points"),
}


class Regression:
    """Answers any setting of a study's space from a recording: final task metric and realised FLOPs."""

    def __init__(self, trials: Sequence[Recorded], study: SweepStudy) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self.space, self.objectives = Space(study.space, study.base), study.objectives
        self.features = np.array([encode(self.space, trial.setting) for trial in trials])
        last = [[trial.curve[-1][objective.metric] for objective in self.objectives] for trial in trials]
        self.targets = np.stack(
            [o.loss(column) for o, column in zip(self.objectives, np.transpose(last), strict=True)], 1
        )
        self._trees = ExtraTreesRegressor(n_estimators=100, random_state=0).fit(self.features, self.targets)

    @cached_property
    def score(self) -> float:
        """R2 of the task metric under five-fold cross-validation."""
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.model_selection import KFold, cross_val_score

        trees, folds = ExtraTreesRegressor(n_estimators=100, random_state=0), KFold(5, shuffle=True, random_state=0)
        return float(cross_val_score(trees, self.features, self.targets[:, 0], cv=folds, scoring="r2").mean())

    def __call__(self, values: dict[str, Any]) -> list[float]:
        """Return the objectives of a setting."""
        found = self._trees.predict([encode(self.space, self.space.labels(values))])[0]
        return [float(o.value(loss)) for o, loss in zip(self.objectives, found, strict=True)]


class CurveRegression:
    """Answers any setting from a recording with points: the default operating point, and the curve of all of them.

    A curve is learned at ``_PLACES`` places along its order by cost.
    """

    def __init__(self, trials: Sequence[RecordedPoints], study: SweepStudy) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self.space, self.objectives = Space(study.space, study.base), study.objectives
        features = [encode(self.space, trial.setting) for trial in trials]
        targets = [self._target(trial) for trial in trials]
        self._trees = ExtraTreesRegressor(n_estimators=50, random_state=0).fit(features, targets)
        self._answers: dict[str, list[list[float]]] = {}

    def _target(self, trial: RecordedPoints) -> Array:
        losses = np.array(losses_of([trial.default, *trial.points], self.objectives))
        curve = losses[1:][np.argsort(losses[1:, -1], kind="stable")]
        places = np.linspace(0, len(curve) - 1, _PLACES)
        along = [np.interp(places, np.arange(len(curve)), column) for column in curve.T]
        return np.concatenate([losses[0], np.stack(along, axis=1).ravel()])

    def points(self, values: dict[str, Any]) -> list[list[float]]:
        """Return the objectives of every operating point of a setting, the default one first."""
        key = key_of(values)
        if key not in self._answers:
            found = self._trees.predict([encode(self.space, self.space.labels(values))])[0]
            rows = found.reshape(-1, len(self.objectives))
            self._answers[key] = [
                [float(o.value(loss)) for o, loss in zip(self.objectives, row, strict=True)] for row in rows
            ]
        return self._answers[key]

    def __call__(self, values: dict[str, Any]) -> list[float]:
        """Return the objectives of the default operating point of a setting."""
        return self.points(values)[0]


def encode(space: Space, labels: dict[str, Any]) -> list[float]:
    """Return choices one-hot, ranges as numbers (in logs where the space says so); inactive ones are -1."""
    row: list[float] = []
    for name, parameter in space.parameters.items():
        if is_constant(parameter):
            continue
        if parameter.choice is not None:
            row += [float(labels.get(name) == label) for label in parameter.choice]
        elif name not in labels:
            row.append(-1.0)
        else:
            row.append(float(np.log(labels[name]) + 10) if parameter.log else float(labels[name]))
    return row
