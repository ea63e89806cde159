"""How well predicted quality agrees with measured quality: the four numbers of image-quality papers.

Shapes: N images.
"""

from __future__ import annotations

import logging
import warnings

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

TOLERANCES = {"ftol": 1e-7, "xtol": 1e-7, "gtol": 1e-7}  # a nearly straight curve never meets scipy's 1e-8

_log = logging.getLogger(__name__)


def agreement(predictions: Values, targets: Values) -> dict[str, float]:
    """Return ``srcc``, ``plcc``, ``plcc_logistic`` and ``rmse`` of predictions (N,) against targets (N,).

    Correlations are 0 where one side is constant (it orders nothing) and NaN where a prediction is no number.
    ``plcc_logistic`` is taken after ``logistic_mapping``, and is the raw PLCC where that cannot be fitted.
    """
    plcc = correlation(predictions, targets)
    mapped = logistic_mapping(predictions, targets)
    return {
        "srcc": rank_correlation(predictions, targets),
        "plcc": plcc,
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


def logistic(values: Values, high: float, low: float, middle: float, slope: float) -> Values:
    """Return ``(high - low) / (1 + exp(-(x - middle) / |slope|)) + low``: the 4-parameter curve of VQEG (2000)."""
    from scipy.special import expit

    return np.asarray((high - low) * expit((values - middle) / max(abs(slope), 1e-12)) + low)


def logistic_mapping(predictions: Values, targets: Values) -> Values | None:
    """Return predictions (N,) on the targets' scale by the best 4-parameter logistic curve.

    None, with one line in the log, where no curve can be fitted.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    if not np.isfinite(predictions).all() or np.ptp(predictions) == 0 or len(predictions) < 4:
        _log.warning("plcc_logistic is the raw plcc: predictions are constant, too few or not numbers")
        return None
    predictions = (predictions - predictions.mean()) / predictions.std()
    start = (targets.max(), targets.min(), 0.0, 0.5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # an uncertain curve still is the best one found
            # trf: the default method takes steps relative to a parameter, none at all from a middle of 0
            best, _ = curve_fit(logistic, predictions, targets, p0=start, method="trf", max_nfev=300, **TOLERANCES)
    except (RuntimeError, ValueError) as error:
        _log.warning("plcc_logistic is the raw plcc: the logistic fit failed (%s)", " ".join(str(error).split()))
        return None
    return logistic(predictions, *best)
