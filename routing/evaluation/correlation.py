"""How well predicted quality agrees with measured quality: the five numbers of image-quality papers.

Shapes: N images, G starts of a fit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

START_QUANTILES = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)
START_SLOPES = (0.001, 0.004, 0.015, 0.05, 0.15, 0.5, 1.5, 5.0)
REFINED_STARTS = 4
LOWEST_SLOPE = 1e-4
"""In standard deviations of the predictions; a steeper curve is a step, which no longer depends on the slope."""


def agreement(predictions: Values, targets: Values) -> dict[str, float]:
    """Return ``srcc``, ``plcc``, ``krcc``, ``plcc_logistic``, ``rmse`` of predictions (N,) against targets (N,).

    Correlations are 0 where one side is constant (it orders nothing) and NaN where a prediction is no number.
    ``plcc_logistic`` is taken after ``logistic_mapping``, and is the raw PLCC where that does not apply
    (``why_not_mapped``).
    """
    plcc = correlation(predictions, targets)
    mapped = logistic_mapping(predictions, targets)
    return {
        "srcc": rank_correlation(predictions, targets),
        "plcc": plcc,
        "krcc": pair_correlation(predictions, targets),
        "plcc_logistic": plcc if mapped is None else correlation(mapped, targets),
        "rmse": float(np.sqrt(np.mean((predictions - targets) ** 2))),
    }


def correlation(first: Values, second: Values) -> float:
    """Return Pearson's correlation (PLCC) of two (N,); 0 where one of them is constant."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.clip(first @ second / norms, -1, 1)) if norms > 0 else 0.0


def rank_correlation(first: Values, second: Values) -> float:
    """Return Spearman's correlation (SRCC) of two (N,); tied values share their mean rank."""
    from scipy.stats import rankdata

    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    return correlation(rankdata(first), rankdata(second))


def pair_correlation(first: Values, second: Values) -> float:
    """Return Kendall's correlation (KRCC, tau-b: ties are corrected for) of two (N,); 0 where one is constant."""
    from scipy.stats import kendalltau

    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(kendalltau(first, second).statistic)


def logistic(values: Values, high: float, low: float, middle: float, slope: float) -> Values:
    """Return ``(high - low) / (1 + exp(-(x - middle) / |slope|)) + low``: the 4-parameter curve of VQEG (2000)."""
    from scipy.special import expit

    return np.asarray((high - low) * expit((values - middle) / max(abs(slope), 1e-12)) + low)


def why_not_mapped(predictions: Values, targets: Values) -> str:
    """Return why ``plcc_logistic`` is the raw PLCC of these predictions; empty where the curve is fitted."""
    if not np.isfinite(predictions).all():
        return "predictions are no numbers"
    if len(predictions) < 4:
        return "fewer than 4 images"
    if np.ptp(predictions) == 0:
        return "predictions are constant"
    if correlation(predictions, targets) <= 0:
        return "predictions fall where quality rises, and the curve must rise"
    return ""


def logistic_mapping(predictions: Values, targets: Values) -> Values | None:
    """Return predictions (N,) on the targets' scale by the best rising 4-parameter logistic curve.

    Least squares from the best of several starts; every step keeps the best curve found, so that it never is worse
    than its start. The curve rises: a model that orders images the wrong way round is not turned into a good one.
    None where ``why_not_mapped`` names a reason.
    """
    from scipy.optimize import least_squares

    if why_not_mapped(predictions, targets):
        return None
    predictions = (predictions - predictions.mean()) / predictions.std()

    def curve(parameters: Values) -> Values:
        rise, low, middle, slope = parameters
        return logistic(predictions, low + rise, low, middle, slope)

    lowest, highest = [0.0, -np.inf, -np.inf, LOWEST_SLOPE], [np.inf] * 4
    fits = [
        least_squares(lambda parameters: curve(parameters) - targets, start, bounds=(lowest, highest), x_scale="jac")
        for start in _starts(predictions, targets)
    ]
    return curve(min(fits, key=lambda fit: fit.cost).x)


def _starts(predictions: Values, targets: Values) -> list[Values]:
    """Return the best starts (rise, low, middle, slope): where and how steep from a grid, the rest solved exactly."""
    from scipy.special import expit

    middles, slopes = np.meshgrid(np.quantile(predictions, START_QUANTILES), START_SLOPES)
    places = np.stack([middles.ravel(), slopes.ravel()], axis=1)
    steps_GN = expit((predictions - places[:, :1]) / places[:, 1:])
    centred_GN, centred_N = steps_GN - steps_GN.mean(axis=1, keepdims=True), targets - targets.mean()
    spread_G = np.maximum((centred_GN**2).sum(axis=1), 1e-12)
    rise_G = np.maximum(centred_GN @ centred_N / spread_G, 1e-6)
    low_G = targets.mean() - rise_G * steps_GN.mean(axis=1)
    error_G = ((low_G[:, None] + rise_G[:, None] * steps_GN - targets) ** 2).sum(axis=1)
    chosen = np.argsort(error_G, kind="stable")[:REFINED_STARTS]
    return [np.array([rise_G[g], low_G[g], *places[g]]) for g in chosen]
