"""What the Gaussian process sampler stands on: settings as features, the fitted process, the expected improvement."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import check_grad

from routing.pareto import hypervolume
from search_spaces.search.encoding import Encoding
from search_spaces.search.improvement import boxes, log_improvement
from search_spaces.search.surrogate import GaussianProcess, _negative_evidence, _squares
from search_spaces.study.schema import Parameter
from search_spaces.study.space import Space

SPACE = Space(
    {
        "family": Parameter(choice=("conv", "patch")),
        "conv.width": Parameter(int=(8, 128), log=True, when={"family": ("conv",)}),
        "conv.kernel": Parameter(choice=(3, 5, 7), when={"family": ("conv",)}),
        "patch.share": Parameter(float=(0.02, 1.0), log=True, when={"family": ("patch",)}),
        "decay": Parameter(float=(0.0, 0.5), step=0.1),
        "depth": Parameter(int=(1, 6)),
        "fixed": Parameter(value=3),
        "rate": Parameter(float=(-1.0, 3.0)),
    },
    {},
)


def test_settings_come_back_from_the_cube() -> None:
    encoding, random = Encoding(SPACE), np.random.default_rng(0)
    for point in random.random((50, len(encoding.names))):
        setting = encoding.setting(point)
        again = encoding.setting(encoding.cube(SPACE.labels(setting)))
        assert again.keys() == setting.keys()
        for key, value in setting.items():
            assert again[key] == (pytest.approx(value) if isinstance(value, float) else value)


def test_inactive_parameters_tell_no_setting_from_another() -> None:
    encoding = Encoding(SPACE)

    def at(**places: float) -> NDArray[np.float64]:
        return np.array([places.get(name.partition(".")[2] or name, 0.5) for name in encoding.names])

    patch = at(family=0.9, width=0.1, kernel=0.1, share=0.2), at(family=0.9, width=0.7, kernel=0.9, share=0.2)
    np.testing.assert_array_equal(*encoding.features(np.stack(patch)))
    # options are equally far apart, and a stepped range has as many features as values: 0, .1, ..., .5
    conv = np.stack([at(family=0.1, kernel=0.16 * k, decay=k / 5) for k in range(6)])
    features = encoding.features(conv)
    kernel = features[:, encoding.owner == encoding.names.index("conv.kernel")]
    assert {round(float(d), 9) for d in ((kernel[:, None] - kernel[None]) ** 2).sum(axis=2).ravel()} == {0.0, 1.0}
    decay = features[:, encoding.owner == encoding.names.index("decay")][:, 0]
    np.testing.assert_allclose(decay, [0, 0.2, 0.4, 0.6, 0.8, 1])


def test_the_evidence_has_the_gradient_it_says() -> None:
    random = np.random.default_rng(1)
    features, targets = random.random((12, 3)), random.standard_normal(12)
    squares = np.stack([_squares(features[:, [p]]).ravel() for p in range(3)])
    error = check_grad(
        lambda logs: _negative_evidence(logs, squares, targets)[0],
        lambda logs: _negative_evidence(logs, squares, targets)[1],
        np.array([-0.5, 0.3, 1.0, -2.0]),
    )
    assert error < 1e-4


def test_the_process_learns_a_function_and_which_parameter_matters() -> None:
    random = np.random.default_rng(2)
    features = random.random((40, 3))
    losses = 100 * np.sin(4 * features[:, 0]) + 5
    process = GaussianProcess(features, np.arange(3), losses)
    new = random.random((30, 3))
    means, deviations = process.predict(new)
    np.testing.assert_allclose(means, 100 * np.sin(4 * new[:, 0]) + 5, atol=3)
    assert process._lengths[0] < process._lengths[1:].min() / 3
    assert (deviations < 10).all()
    assert GaussianProcess(features, np.arange(3), np.full(40, 7.0)).predict(new)[0] == pytest.approx(7.0)
    process.believe(new[:1])
    after, narrower = process.predict(new)
    np.testing.assert_allclose(after, means, atol=0.5)
    assert narrower[0] <= deviations[0]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_the_expected_improvement_is_that_of_drawn_losses(objectives: int) -> None:
    random = np.random.default_rng(3)
    front, reference = random.random((6, objectives)) * 0.6 + 0.3, np.full(objectives, 0.9)
    lower, upper = boxes(front, reference)
    mean, deviation = np.full((1, objectives), 0.35), np.full((1, objectives), 0.2)
    found = float(np.exp(log_improvement(mean, deviation, lower, upper))[0])
    before = hypervolume(front, reference)
    drawn = mean + deviation * random.standard_normal((4000, objectives))
    gains = [hypervolume(np.vstack([front, one]), reference) - before for one in drawn]
    assert found == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / 4000**0.5)


def test_the_improvement_keeps_its_slope_where_it_is_next_to_nothing() -> None:
    lower, upper = boxes(np.array([[0.2, 0.5], [0.5, 0.2]]), np.array([1.0, 1.0]))
    means = np.array([[5.0, 5.0], [6.0, 6.0]])
    near, far = log_improvement(means, np.full((2, 2), 0.01), lower, upper)
    assert np.isfinite([near, far]).all()
    assert near > far
    empty = boxes(np.empty((0, 2)), np.array([1.0, 1.0]))
    assert np.exp(log_improvement(np.zeros((1, 2)), np.full((1, 2), 1e-6), *empty)) == pytest.approx(1.0)
