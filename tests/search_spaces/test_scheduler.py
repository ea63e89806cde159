"""Early stopping on unsorted, asymmetric data, with the answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from routing.objectives import Objective
from routing.pareto import non_domination_rank
from search_spaces.search.ranking import (
    crowding,
    dominated_by,
    keep,
    pareto_rank,
    rank,
    rungs,
    similar,
)
from search_spaces.search.rules import Rule, rule_of
from search_spaces.study.schema import SchedulerSection

OBJECTIVES = (
    Objective(metric="val_accuracy", goal="maximize", reference=0.0),
    Objective(metric="flops", goal="minimize", reference=1e9),
)
RULES = ["similar_cost", "dominance", "moasha", "asha"]


def rule(name: str, grace: int = 1, eta: float = 3) -> Rule:
    return rule_of(SchedulerSection(name=name, grace_period=grace, reduction_factor=eta), OBJECTIVES)


def row(accuracy: float, flops: float, epoch: int = 1) -> dict[str, float]:
    return {"epoch": epoch, "val_accuracy": accuracy, "flops": flops}


def test_rungs_lie_in_the_first_half() -> None:
    assert rungs(1, 3, 4) == [1]
    assert rungs(1, 3, 27) == [1, 3, 9]
    assert rungs(2, 2, 20) == [2, 4, 8]
    assert rungs(1, 3, 1) == []
    assert rungs(1, 1.5, 11) == [1, 2, 3, 5]  # 1, 1.5, 2.25, 3.375, 5.06 rounded: 1, 2, 2, 3, 5


def test_rank_counts_the_better_ones_not_the_position() -> None:
    # argsort of [3, 1, 2] is [1, 2, 0]; ranks are [2, 0, 1]
    losses = np.array([3.0, 1.0, 2.0])
    assert [rank(losses, i) for i in range(3)] == [2, 0, 1]
    assert [rank(np.array([5.0, 5.0, 1.0]), i) for i in range(3)] == [1, 1, 0]


def test_keep_one_in_eta_but_nobody_stops_in_a_small_group() -> None:
    assert [keep(n, 3) for n in (1, 2, 3, 5, 6, 9)] == [1, 2, 1, 1, 2, 3]


def test_similar_is_nearest_in_log_cost() -> None:
    # logs (base 10): 6, 3, 5, 4, 6.3; nearest third of 5 is 2, but at least eta = 3
    costs = np.log10([1e6, 1e3, 1e5, 1e4, 2e6])
    assert similar(costs, 0, 3).tolist() == [0, 2, 4]
    assert similar(costs, 1, 3).tolist() == [1, 2, 3]
    # 12 trials: a third is 4; distances in powers of two from 16
    costs = np.array([4.0, 9, 0, 5, 11, 3, 7, 1, 8, 6, 2, 10])
    assert similar(costs, 0, 3).tolist() == [0, 3, 5, 9, 10]  # 4, 5, 3, then 6 and 2 equally far


def test_domination_rank_of_unsorted_points() -> None:
    # (3,3) is dominated by (2,2) and (1,3)?: 1<=3, 3<=3, one strict: yes. (2,2) and (1,3), (4,1) are the first front.
    losses = np.array([[3.0, 3.0], [2.0, 2.0], [4.0, 1.0], [1.0, 3.0], [5.0, 5.0], [2.0, 2.0]])
    assert non_domination_rank(losses).tolist() == [1, 0, 0, 0, 2, 0]


def test_dominated_by_counts_the_dominating_rows() -> None:
    # (3,3): by (2,2) twice and (1,3); (5,5): by all five others; equal rows do not dominate each other
    losses = np.array([[3.0, 3.0], [2.0, 2.0], [4.0, 1.0], [1.0, 3.0], [5.0, 5.0], [2.0, 2.0]])
    assert dominated_by(losses).tolist() == [3, 0, 0, 0, 5, 0]


def test_dominance_lets_every_trial_on_the_front_go_on() -> None:
    judge = rule("dominance")
    front = [(0.5, 4e5), (0.9, 9e5), (0.7, 6e5), (0.6, 5e5), (0.8, 7e5), (0.3, 1e5)]
    for number, (accuracy, flops) in enumerate(front):
        verdict = judge.judge(number, row(accuracy, flops), max_epochs=9)
        assert verdict is not None
        assert verdict.goes_on
    # worse than 0.5 at 4e5 and than 0.3 at 1e5 only: rank 6 of 7, where 2 go on
    verdict = judge.judge(9, row(0.3, 4.5e5), max_epochs=9)
    assert verdict is not None
    assert (verdict.rank, verdict.goes_on) == (6, False)


def test_crowding_by_hand() -> None:
    # sorted along x: (0,10) (1,6) (4,5) (10,0); spans 10 and 10
    losses = np.array([[4.0, 5.0], [10.0, 0.0], [0.0, 10.0], [1.0, 6.0]])
    # (1,6): (4-0)/10 + (10-5)/10 = 0.9; (4,5): (10-1)/10 + (6-0)/10 = 1.5
    assert crowding(losses).tolist() == [1.5, np.inf, np.inf, 0.9]


def test_pareto_rank_takes_the_front_first_then_the_less_crowded() -> None:
    losses = np.array([[4.0, 5.0], [10.0, 0.0], [0.0, 10.0], [1.0, 6.0], [9.0, 9.0]])
    # both ends first (rank 0), then (4,5), then (1,6), then the dominated one
    assert [pareto_rank(losses, i) for i in range(5)] == [2, 0, 0, 3, 4]


@pytest.mark.parametrize("name", RULES)
def test_a_newcomer_that_dominates_all_is_never_stopped(name: str) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        judge = rule(name)
        for number in range(int(random.integers(1, 15))):
            judge.judge(number, row(random.uniform(0, 0.8), random.uniform(1e5, 1e6)), max_epochs=9)
        verdict = judge.judge(99, row(0.9, 0.9e5), max_epochs=9)
        assert verdict is not None
        assert verdict.rank == 0
        assert verdict.goes_on


@pytest.mark.parametrize("name", RULES)
def test_a_newcomer_dominated_by_all_is_stopped(name: str) -> None:
    judge = rule(name)
    for number, (accuracy, flops) in enumerate([(0.5, 4e5), (0.9, 2e5), (0.7, 8e5), (0.6, 1e5), (0.8, 3e5)]):
        judge.judge(number, row(accuracy, flops), max_epochs=9)
    verdict = judge.judge(9, row(0.1, 9e5), max_epochs=9)
    assert verdict is not None
    assert not verdict.goes_on


def test_similar_cost_spares_the_cheap_where_asha_stops_them() -> None:
    trials = [(0.90, 1.0e6), (0.30, 1.0e4), (0.88, 1.1e6), (0.92, 0.9e6), (0.28, 1.2e4), (0.26, 0.9e4)]
    cheap_and_good = row(0.40, 1.1e4)
    for name, goes_on in (("similar_cost", True), ("asha", False)):
        judge = rule(name)
        for number, (accuracy, flops) in enumerate(trials):
            judge.judge(number, row(accuracy, flops), max_epochs=9)
        verdict = judge.judge(9, cheap_and_good, max_epochs=9)
        assert verdict is not None
        assert verdict.goes_on is goes_on
        # asha: rank 3 of 7 (three accurate ones are better), 2 go on; similar_cost: rank 0 of the 3 nearest
        assert (verdict.rank, verdict.peers) == ((0, 3) if goes_on else (3, 7))


def test_expected_cost_stands_in_until_the_row_has_one() -> None:
    judge = rule("similar_cost")
    bare = {"epoch": 1, "val_accuracy": 0.5}
    assert judge.judge(0, bare, max_epochs=9) is None
    verdict = judge.judge(0, bare, max_epochs=9, cost=1e6)
    assert verdict is not None
    assert verdict.goes_on


def test_only_rungs_are_judged_and_none_never_stops() -> None:
    judge = rule("asha", grace=2)
    assert judge.judge(0, row(0.5, 1e6, epoch=1), max_epochs=9) is None
    assert judge.judge(0, row(0.5, 1e6, epoch=2), max_epochs=9) is not None
    assert judge.judge(0, row(0.5, 1e6, epoch=9), max_epochs=9) is None
    assert rule("none").judge(0, row(0.5, 1e6), max_epochs=9) is None


def test_cost_is_found_whatever_the_order_of_the_objectives() -> None:
    turned = rule_of(SchedulerSection(name="similar_cost"), OBJECTIVES[::-1])
    assert (turned.task_index, turned.cost_index) == (1, 0)
    alone = rule_of(SchedulerSection(name="similar_cost"), OBJECTIVES[:1])
    assert (alone.task_index, alone.cost_index) == (0, None)
    for number, accuracy in enumerate([0.5, 0.9, 0.7]):
        verdict = alone.judge(number, {"epoch": 1, "val_accuracy": accuracy}, max_epochs=9)
    assert verdict is not None
    assert (verdict.rank, verdict.peers, verdict.goes_on) == (1, 3, False)


def test_what_was_noted_counts_like_what_was_judged() -> None:
    shown = [(0.5, 4e5), (0.9, 2e5), (0.7, 8e5), (0.6, 1e5), (0.8, 3e5)]
    for name in RULES:
        judged, noted = rule(name), rule(name)
        for number, (accuracy, flops) in enumerate(shown):
            judged.judge(number, row(accuracy, flops), max_epochs=9)
            assert noted.note(number, row(accuracy, flops), max_epochs=9)
        newcomer = row(0.65, 2.5e5)
        assert noted.judge(9, newcomer, max_epochs=9) == judged.judge(9, newcomer, max_epochs=9)
    assert not noted.note(0, {**newcomer, "epoch": 2}, max_epochs=9)


def test_expected_flops_stand_in_for_flops_only() -> None:
    objectives = (OBJECTIVES[0], Objective(metric="routing_ratio", goal="minimize", reference=1.0))
    bare = {"epoch": 1, "val_accuracy": 0.5}
    for name, is_judged in (("moasha", False), ("similar_cost", False), ("asha", True)):
        judge = rule_of(SchedulerSection(name=name), objectives)
        assert (judge.judge(0, bare, max_epochs=9, cost=1e6) is not None) is is_judged
        assert judge.judge(1, {**bare, "routing_ratio": 0.3}, max_epochs=9, cost=1e6) is not None


def test_parameters_are_an_objective_like_any_other() -> None:
    objectives = (OBJECTIVES[0], Objective(metric="params", goal="minimize", reference=1e6))
    judge = rule_of(SchedulerSection(name="moasha", reduction_factor=2), objectives)
    rows = [{"epoch": 1, "val_accuracy": 0.5, "params": size} for size in (1000, 2000, 4000)]
    verdicts = [judge.judge(number, shown, max_epochs=9, cost=1e6) for number, shown in enumerate(rows)]
    assert [verdict.goes_on for verdict in verdicts if verdict is not None] == [True, False, False]
