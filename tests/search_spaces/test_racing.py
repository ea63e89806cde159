"""Seeds go where a place on the front is open, and a race spends them better than equal shares do."""

from __future__ import annotations

import numpy as np
import pytest
from small_studies import ablation_values

from routing.errors import InputError
from search_spaces.bench.racing import Truth, simulate
from search_spaces.plan import blueprint, dry_run, planned_trials
from search_spaces.racing import doubts, next_seeds, race
from search_spaces.study.load import parse_study


def point(accuracies: list[float], cost: float) -> np.ndarray:
    return np.array([[-value, cost] for value in accuracies])


def test_places_that_are_clear_get_no_seed() -> None:
    clear = [point([0.90, 0.91, 0.92], 5), point([0.60, 0.61, 0.62], 2), point([0.30, 0.31, 0.32], 6)]
    assert doubts(clear).tolist() == [0, 0, 0]


def test_a_point_in_doubt_and_its_rival_get_seeds_and_nobody_else() -> None:
    alike = [point([0.90, 0.91, 0.92], 2), point([0.90, 0.91, 0.92], 5), point([0.30, 0.31, 0.32], 1)]
    found = doubts(alike)
    assert found[1] == pytest.approx(0.5, abs=0.1)  # the cheaper of two alike is on the front, the other on and off
    assert found[0] == pytest.approx(found[1] * 0.5, abs=0.1)
    assert found[2] == 0


def test_the_spread_is_that_of_all_points() -> None:
    """Three seeds that agree by luck do not look sure."""
    lucky = [point([0.905, 0.905, 0.905], 5), point([0.90, 0.90, 0.90], 2)]
    noisy = [*lucky, point([0.5, 0.6, 0.7], 1)]
    assert doubts([*lucky, point([0.6, 0.6, 0.6], 1)]).tolist() == [0, 0, 0]
    assert doubts(noisy)[0] > 0.3


def test_one_seed_more_for_the_most_doubtful_within_budget() -> None:
    counts, wanted = {"a": 3, "b": 3, "c": 4, "d": 8}, {"a": 0.1, "b": 0.0, "c": 0.4, "d": 0.5}
    assert next_seeds(counts, wanted, left=9, most=8) == {"a": 4, "b": 3, "c": 5, "d": 8}
    assert next_seeds(counts, wanted, left=1, most=8) == {"a": 3, "b": 3, "c": 5, "d": 8}
    assert next_seeds(counts, wanted, left=-2, most=8) == counts


def test_a_race_ends_when_all_is_decided_or_the_budget_is_spent() -> None:
    random, rounds, said = np.random.default_rng(0), list[dict[str, int]](), list[str]()
    means = {"a": 0.9, "b": 0.7, "c": 0.9}

    def train(counts: dict[str, int]) -> list[tuple[str, np.ndarray]]:
        rounds.append(counts)
        costs = {"a": 2, "b": 1, "c": 5}
        return [(n, point(list(random.normal(means[n], 0.01, size=k)), costs[n])) for n, k in counts.items()]

    race(dict.fromkeys(means, 3), 15, 12, train, said.append)
    assert rounds[0] == {"a": 3, "b": 3, "c": 3}
    assert rounds[-1]["b"] == 3
    assert sum(rounds[-1].values()) == 15
    assert said[-1] == "adaptive: 2 of 3 configurations in doubt, 15 of 15 trainings"
    means["c"] = 0.5
    race(dict.fromkeys(means, 3), 15, 12, train, said.append)
    assert said[-1] == "adaptive: none of 3 configurations in doubt, 9 of 15 trainings"


def test_a_race_has_fewer_wrong_places_than_equal_seeds_of_the_same_budget() -> None:
    accuracy = np.array([0.50, 0.60, 0.70, 0.80, 0.60, 0.90, 0.905, 0.50])  # one place in doubt
    truth = Truth(-accuracy, np.full(8, 0.01), np.arange(8.0))
    raced, equal = (simulate(truth, 8, adaptive=adaptive, repeats=25) for adaptive in (True, False))
    assert raced.seeds <= equal.seeds == 8
    assert raced.wrong < equal.wrong
    assert raced.right > 0.95
    assert raced.covered == pytest.approx(0.95, abs=0.03)


def test_an_ablation_can_train_an_arm_under_fewer_seeds() -> None:
    study = parse_study({**ablation_values(), "seeds_per_arm": {"mode=random": 1}})
    assert planned_trials(study) == 9
    every = [(setting["arm"], setting["seed"]) for setting in blueprint(study).enqueue]
    assert [arm for arm, seed in every if seed == 1] == [arm for arm, _ in every[:5] if arm != "mode=random"]
    assert "seeds 0, 1; mode=random: the first 1" in dry_run(study)
    for bad, why in [({"mode=rondom": 1}, "no arm 'mode=rondom'; did you mean"), ({"baseline": 3}, "3 of 2 seeds")]:
        with pytest.raises(InputError, match=f"seeds_per_arm.*{why}"):
            parse_study({**ablation_values(), "seeds_per_arm": bad})
