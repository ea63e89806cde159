"""Models and points of a running study in few words, as the live view and the lines per trial show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from routing.claim import claim_of
from routing.config.script import CONFIG, ScriptRun
from routing.objectives import losses_of, volume_of
from routing.quantities import find, heading, in_words

if TYPE_CHECKING:
    from routing.config.script import AnyRun
    from routing.objectives import Objective


FoundPoint = tuple[str, list[float]]
"""What was trained, and one value per objective."""


def of_model(config: AnyRun, varied: Sequence[str] = ()) -> str:
    """Return what a run trains: ``patch_routing/top_k``, or the model alone where nothing is routed.

    Args:
        varied: keys by which runs of a script are told apart, ``config.lr``; without any its script is named.
    """
    keys = config.dotted()
    if isinstance(config, ScriptRun):
        told = [f"{key.removeprefix(f'{CONFIG}.')}={_short(keys[key])}" for key in varied if key in keys]
        return " ".join(told) or config.script
    return "/".join(str(keys[key]) for key in ("model.name", "model.router.mode") if keys.get(key))


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def of_value(metric: str, value: float) -> str:
    """Return a value with its unit, ``95.80 %`` or ``944 k``; one without a unit with its name."""
    known = find(metric)
    says_itself = known is not None and (known.is_count or known.unit == "%")
    return in_words(metric, value) if says_itself else f"{heading(metric)} {in_words(metric, value)}"


def of_values(objectives: Sequence[Objective], values: Sequence[float]) -> str:
    """Return a point, one value per objective: ``95.80 %, 944 k``."""
    return ", ".join(of_value(o.metric, value) for o, value in zip(objectives, values, strict=True))


class Best:
    """The points found so far, and statements on the best of them.

    Args:
        points: those known at the start.
    """

    def __init__(self, objectives: Sequence[Objective], points: Iterable[FoundPoint] = ()) -> None:
        self._objectives = objectives
        self._points = list(points)
        self._words: list[str] | None = None

    def add(self, model: str, points: Iterable[list[float]]) -> None:
        """Add the operating points of a trained model."""
        self._points += [(model, point) for point in points]
        self._words = None

    def words(self) -> list[str]:
        """Return the best point by the first objective, the hypervolume, and the claim against the dense model."""
        if self._words is None:
            self._words = [*self._of_best(), *self._of_claim()]
        return self._words

    def _of_best(self) -> list[str]:
        if not self._points:
            return []
        losses = losses_of([point for _, point in self._points], self._objectives).tolist()
        model, best = self._points[losses.index(min(losses))]
        volume = volume_of([point for _, point in self._points], self._objectives)
        scale = "log" if any(objective.in_logs for objective in self._objectives) else "linear"
        said = f"best {of_values(self._objectives, best)}" + f" ({model})" * bool(model)
        return [said, f"hypervolume {volume:.4g} ({scale})"]

    def _of_claim(self) -> list[str]:
        metrics = [objective.metric for objective in self._objectives]
        known = find(metrics[0])
        if known is None or known.unit != "%" or not known.higher_is_better or "flops" not in metrics:
            return []
        values, costs = ([point[metrics.index(m)] for _, point in self._points] for m in (metrics[0], "flops"))
        found = claim_of([model for model, _ in self._points], values, costs)
        if found is None:
            return []
        dense, point = (in_words(metrics[0], values[place]) for place in (found.dense, found.point))
        return [f"within 1 point of full_compute ({dense}): {point} at {found.share:.0%} of its compute"]
