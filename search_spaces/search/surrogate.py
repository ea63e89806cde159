"""A Gaussian process with a length scale per parameter, fitted by maximum a posteriori.

Dimensions: N data, C candidates, D features, P parameters.

Ours because the priors decide how well few trials are used: length scales grow with the number of parameters (Hvarfner
et al., "Vanilla Bayesian Optimization Performs Great in High Dimensions", ICML 2024), and because a proposal may take a
fraction of a second.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

_NOISE = (-4.0, 1.0)
"""Mean and standard deviation of the logarithm of the noise's variance, as a share of the data's."""
_LENGTH_SD = math.sqrt(3.0)
_ITERATIONS = 40
_SQRT5 = math.sqrt(5.0)


class GaussianProcess:
    """Fitted to losses of settings.

    Args:
        features: (N, D).
        owner: (D,) parameter of each feature; its features share a length scale.
        losses: (N,).
    """

    def __init__(self, features: Array, owner: NDArray[np.intp], losses: Array) -> None:
        self._owner = owner
        self._mean, self._sd = float(losses.mean()), float(losses.std()) or 1.0
        self._fit((losses - self._mean) / self._sd, features)
        self._learn(features, losses)

    def _fit(self, targets: Array, features: Array) -> None:
        """Choose length scales and noise."""
        parameters = int(self._owner.max()) + 1
        squares = np.stack([_squares(features[:, self._owner == p]) for p in range(parameters)])
        typical = math.sqrt(2.0) + math.log(parameters) / 2
        center = np.array([*[typical] * parameters, _NOISE[0]])
        width = np.array([*[_LENGTH_SD] * parameters, _NOISE[1]])
        flat = squares.reshape(parameters, -1)

        def objective(logs: Array) -> tuple[float, Array]:
            value, slope = _negative_evidence(logs, flat, targets)
            away = (logs - center) / width
            return value + 0.5 * float(away @ away), slope + away / width

        start = np.array([*[typical - 1.0] * parameters, _NOISE[0]])
        bounds = [(-4.0, 8.0)] * parameters + [(-12.0, 0.0)]
        options = {"maxiter": _ITERATIONS}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        self._lengths, self._noise = np.exp(found.x[:-1])[self._owner], math.exp(found.x[-1])

    def _learn(self, features: Array, losses: Array) -> None:
        self._features = features / self._lengths
        kernel = _matern(_distances(self._features, self._features))
        kernel[np.diag_indices_from(kernel)] += self._noise + 1e-9
        self._lower = cholesky(kernel, lower=True)
        self._targets = (losses - self._mean) / self._sd
        self._weights = cho_solve((self._lower, True), self._targets)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation (C,) of the loss without its noise, of features (C, D)."""
        across = _matern(_distances(features / self._lengths, self._features))
        half = solve_triangular(self._lower, across.T, lower=True)
        variance = np.maximum(1.0 - (half * half).sum(axis=0), 1e-10)
        return across @ self._weights * self._sd + self._mean, np.sqrt(variance) * self._sd

    def believe(self, features: Array) -> None:
        """Take what is expected of settings (C, D) that still run as if it had been measured."""
        if len(features):
            means, _ = self.predict(features)
            known = np.concatenate([self._targets * self._sd + self._mean, means])
            self._learn(np.concatenate([self._features * self._lengths, features]), known)


def _negative_evidence(logs: Array, squares: Array, targets: Array) -> tuple[float, Array]:
    """Return minus the log marginal likelihood and its gradient.

    Args:
        logs: (P + 1,) logarithms of length scales and noise.
        squares: (P, N * N) squared distances by parameter.
        targets: (N,).
    """
    count = len(targets)
    inverse_squares, noise = np.exp(-2 * logs[:-1]), math.exp(logs[-1])
    distance = np.sqrt(inverse_squares @ squares).reshape(count, count)
    decay = np.exp(-_SQRT5 * distance)
    kernel = (1 + _SQRT5 * distance + 5 / 3 * distance * distance) * decay
    kernel[np.diag_indices(count)] += noise + 1e-9
    lower = cholesky(kernel, lower=True)
    weights = cho_solve((lower, True), targets)
    inverse = cho_solve((lower, True), np.eye(count))
    value = 0.5 * float(targets @ weights) + float(np.log(np.diag(lower)).sum())
    change = np.outer(weights, weights) - inverse
    slopes = (change * (5 / 3) * (1 + _SQRT5 * distance) * decay).ravel() @ squares.T * inverse_squares
    return value, -0.5 * np.append(slopes, noise * np.trace(change))


def _squares(columns: Array) -> Array:
    return np.asarray(((columns[:, None, :] - columns[None, :, :]) ** 2).sum(axis=2))


def _distances(left: Array, right: Array) -> Array:
    square = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None] - 2 * left @ right.T
    return np.sqrt(np.maximum(square, 0.0))


def _matern(distance: Array) -> Array:
    return np.asarray((1 + _SQRT5 * distance + 5 / 3 * distance * distance) * np.exp(-_SQRT5 * distance))
