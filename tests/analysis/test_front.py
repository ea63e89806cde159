"""Fronts: known answers, two implementations compared on unsorted data, and every awkward input."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure

from analysis.figures.drawing import log_ticks
from routing.pareto import front_order, is_on_front, non_domination_rank

INF = np.inf


def dominates(a, b):
    return bool(np.all(a <= b) and np.any(a < b))


def brute_front(losses):
    return np.array([not any(dominates(other, row) for other in losses) for row in losses], dtype=bool)


def brute_rank(losses):
    ranks = np.full(len(losses), -1)
    level = 0
    while (ranks < 0).any():
        left = np.flatnonzero(ranks < 0)
        ranks[left[brute_front(losses[left])]] = level
        level += 1
    return ranks


def test_known_front_unsorted():
    # (3, 1) and (1, 3) and (2, 2) trade off; (3, 3) and (2, 4) are worse than (2, 2) and (1, 3)
    losses = [[3, 3], [3, 1], [1, 3], [2, 4], [2, 2]]
    assert is_on_front(losses).tolist() == [False, True, True, False, True]
    assert non_domination_rank(losses).tolist() == [1, 0, 0, 1, 0]


def test_rank_is_not_order():
    # the newcomer dominates all: rank 0, and everyone else moves down one
    assert non_domination_rank([[5, 5], [4, 6], [6, 4], [1, 1]]).tolist() == [1, 1, 1, 0]


def test_all_copies_of_a_front_point_are_on_it_but_listed_once():
    losses = [[1, 2], [1, 2], [2, 1], [2, 2]]
    assert is_on_front(losses).tolist() == [True, True, True, False]
    assert front_order(losses, by=0).tolist() == [0, 2]
    assert front_order(losses, by=1).tolist() == [2, 0]


def test_tie_in_one_objective_is_dominated():
    assert is_on_front([[1, 2], [1, 3]]).tolist() == [True, False]


def test_infinite_losses():
    assert is_on_front([[1, INF], [0, INF], [INF, -INF], [INF, INF]]).tolist() == [False, True, True, False]


def test_empty_and_single():
    assert is_on_front(np.empty((0, 2))).shape == (0,)
    assert non_domination_rank(np.empty((0, 2))).shape == (0,)
    assert is_on_front([[7.0, 7.0]]).tolist() == [True]
    assert is_on_front([[3.0], [1.0], [1.0]]).tolist() == [False, True, True]


@pytest.mark.parametrize("function", [is_on_front, non_domination_rank])
def test_nan_raises_and_names_the_row(function):
    with pytest.raises(ValueError, match="NaN in row 1"):
        function([[1, 2], [np.nan, 1]])


@pytest.mark.parametrize("bad", [[1, 2], np.empty((3, 0)), np.zeros((1, 1, 1))])
def test_wrong_shape_raises(bad):
    with pytest.raises(ValueError, match="shape"):
        is_on_front(bad)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda m: arrays(
            float, st.tuples(st.integers(1, 40), st.just(m)), elements=st.sampled_from([-INF, 0, 1, 2, 3, INF])
        )
    )
)
def test_agrees_with_brute_force_on_ties_and_infinities(losses):
    np.testing.assert_array_equal(is_on_front(losses), brute_front(losses))
    np.testing.assert_array_equal(non_domination_rank(losses), brute_rank(losses))


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_agrees_with_brute_force_on_random_data(columns):
    losses = np.random.default_rng(0).normal(size=(200, columns))
    np.testing.assert_array_equal(is_on_front(losses), brute_front(losses))
    np.testing.assert_array_equal(non_domination_rank(losses), brute_rank(losses))


def test_a_million_points_in_two_seconds():
    losses = np.random.default_rng(0).random((1_000_000, 2))
    start = time.process_time()
    front = is_on_front(losses)
    assert time.process_time() - start < 2
    assert 1 < front.sum() < 100


def test_ticks_have_prefixes_above_a_thousand_only() -> None:
    axes = Figure().subplots()
    axes.set_xlim(0.1, 0.2)
    log_ticks(axes, "x", 2.0)
    formatter = axes.xaxis.get_major_formatter()
    assert [formatter(value) for value in (0.115, 5, 200, 2e5, 1.5e9)] == ["0.115", "5", "200", "200 k", "1.5 G"]
