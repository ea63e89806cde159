"""Samplers: seeded by proposal, learning, refusing before training, going on after a restart."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from small_studies import sweep_values

from routing.constraints import Constraint
from routing.errors import InputError
from search_spaces.search.memory import Memory
from search_spaces.search.proposer import Proposer
from search_spaces.search.sampler import Sampler
from search_spaces.search.samplers.auto import Auto
from search_spaces.search.samplers.gp import GaussianProcess, at_the_end
from search_spaces.study.load import load_study, parse_study
from search_spaces.study.registry import SAMPLERS
from search_spaces.study.schema import Parameter, SamplerSection
from search_spaces.study.space import Space

STUDY = parse_study(sweep_values())
SPACE = Space(STUDY.space, STUDY.base)
X, Y = "model.router.threshold_init", "model.router.temperature"


def proposer(name: str, space: Space = SPACE, **options: Any) -> Proposer:
    return Proposer(space, STUDY.objectives, SamplerSection(name=name, seed=5, options=options))


def in_charge(proposer: Proposer) -> str:
    assert isinstance(proposer.sampler, Auto)
    return type(proposer.sampler.in_charge(proposer.memory)).__name__


def model(proposer: Proposer, seed: int) -> dict[str, Any]:
    assert isinstance(proposer.sampler, GaussianProcess)
    return proposer.sampler.best(seed, proposer.memory)


def anything(values: dict[str, Any]) -> str | None:
    return None


def run(sampler: Proposer, trials: int) -> list[dict[str, Any]]:
    """Maximise -(x - 1)^2 at a cost of x^2 + 1."""
    settings = []
    for _ in range(trials):
        proposal = sampler.propose(anything)
        assert proposal is not None
        settings.append(proposal.values)
        x = proposal.values[X]
        sampler.observe(proposal.handle, TrialState.COMPLETE, [-((x - 1) ** 2), x**2 + 1])
    return settings


@pytest.mark.parametrize("name", ["auto", "gp", "tpe", "nsga2", "random", "qmc", "grid"])
def test_same_seed_same_settings_inside_the_space(name: str) -> None:
    first, second = run(proposer(name), 14), run(proposer(name), 14)
    assert first == second
    assert all(-2 <= s[X] <= 2 and 0.1 <= s[Y] <= 3 for s in first)
    assert len({repr(s) for s in first}) == 14


def test_a_grid_proposes_what_another_sampler_has_not() -> None:
    """Proposals of the past count under any sampler; combinations not tried yet are still proposed."""
    space = Space(parse_study(sweep_values(space={"seed": {"int": [0, 4]}})).space, {})  # type: ignore[union-attr]
    sampler = proposer("grid", space)
    for index, seed in enumerate((3, 1, 3)):
        sampler.replay({"seed": seed}, TrialState.COMPLETE, [0.0, 1.0])
        sampler.next_index = index + 1
    asked = []

    def accept(values: dict[str, Any]) -> str | None:
        asked.append(values["seed"])
        return "not on a Sunday" if values["seed"] == 2 else None

    found = [sampler.propose(accept) for _ in range(3)]
    assert [proposal and proposal.values["seed"] for proposal in found] == [0, 4, None]
    assert [proposal and proposal.index for proposal in found] == [3, 4, None]
    assert asked == [0, 2, 4]
    assert sampler.exhausted == "every combination of the grid has been proposed; the last one was refused: " + (
        "not on a Sunday"
    )


@pytest.mark.parametrize("name", ["random", "qmc", "grid"])
def test_a_restart_goes_on_where_it_stopped(name: str) -> None:
    whole = run(proposer(name), 12)
    head = proposer(name)
    first = run(head, 5)
    tail = proposer(name)
    for settings in first:
        tail.replay(SPACE.labels(settings), TrialState.COMPLETE, [0.0, 1.0])
    tail.next_index = 5
    assert first + run(tail, 7) == whole


@pytest.mark.parametrize(("name", "trials"), [("gp", 24), ("tpe", 80), ("nsga2", 120)])
def test_models_learn_where_the_front_is(name: str, trials: int) -> None:
    # the front is x in [0, 1]; random puts a third of its trials within 0.15 of it
    settings = run(proposer(name), trials)[trials // 2 :]
    inside = np.mean([-0.15 <= s[X] <= 1.15 for s in settings])
    assert inside > 0.5


def test_a_past_outside_the_space_is_left_out() -> None:
    sampler = proposer("tpe")
    sampler.replay({X: 50.0, Y: 1.0}, TrialState.COMPLETE, [0.0, 1.0])
    sampler.replay({X: 0.5}, TrialState.COMPLETE, [0.0, 1.0])
    sampler.replay({"unknown": 0.5, X: 0.5, Y: 1.0}, TrialState.COMPLETE, [0.0, 1.0])
    assert sampler.memory.position == 0
    sampler.replay({X: 0.5, Y: 1.0}, TrialState.COMPLETE, [0.0, 1.0])
    assert sampler.memory.position == 1


def test_refused_settings_are_drawn_again_untrained() -> None:
    sampler = proposer("random")
    settings = [sampler.propose(lambda v: None if v[X] > 1 else "too low") for _ in range(20)]
    assert all(s is not None and s.values[X] > 1 for s in settings)


def test_when_all_is_refused_it_says_so() -> None:
    sampler = proposer("random")
    assert sampler.propose(lambda v: "never") is None
    assert sampler.exhausted == "200 proposals in a row were refused; the last one: never"


def test_a_given_setting_that_is_refused_comes_back_with_the_reason() -> None:
    proposal = proposer("gp").propose(lambda v: "too costly", fixed={X: 0.5})
    assert proposal is not None
    assert proposal.refused == "too costly"
    assert proposal.values[X] == 0.5
    assert 0.1 <= proposal.values[Y] <= 3


def test_what_given_settings_leave_open_differs_and_is_no_proposals_draw() -> None:
    first, second, again = (proposer("gp").propose(anything, {X: 0.5}, number) for number in (0, 1, 1))
    assert first is not None
    assert second is not None
    assert first.values[Y] != second.values[Y]
    assert second == again
    drawn = proposer("random").propose(anything)
    assert drawn is not None
    assert drawn.values[Y] != first.values[Y]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({X: 9.0}, "sampler 'outside' drew model.router.threshold_init = 9.0, which it never is in this space"),
        ({"model.router.temp": 1}, "sampler 'outside' drew 'model.router.temp', no key of the space; did you mean"),
    ],
)
def test_a_sampler_that_leaves_the_space_is_told_so(
    setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Outside(Sampler):
        def draw(self, index: int, attempt: int, memory: Memory) -> dict[str, Any]:
            return setting

    monkeypatch.setitem(SAMPLERS._entries, "outside", Outside)
    with pytest.raises(InputError, match=re.escape(message)):
        proposer("outside").propose(anything)


def test_settings_are_not_repeated_while_there_are_others() -> None:
    study = parse_study(
        sweep_values(space={"dataset.patch_grid_size": [4, 5, 8], "model.router.mode": ["top_k", "random"]})
    )
    space = Space(study.space, study.base)
    for name in ("random", "tpe", "gp", "qmc"):
        sampler = proposer(name, space)
        settings = []
        for _ in range(7):
            proposal = sampler.propose(anything)
            assert proposal is not None
            settings.append(repr(proposal.values))
            sampler.observe(proposal.handle, TrialState.COMPLETE, [0.5, 1.0])
        assert len(set(settings)) == 6, name


def test_grid_ends() -> None:
    study = parse_study(sweep_values(space={"dataset.patch_grid_size": [4, 5, 8]}, sampler={"name": "grid"}))
    sampler = proposer("grid", Space(study.space, study.base))
    values = [sampler.propose(anything) for _ in range(4)]
    assert [v.values["dataset.patch_grid_size"] for v in values if v is not None] == [4, 5, 8]
    assert values[3] is None
    assert sampler.exhausted == "every combination of the grid has been proposed"


def test_a_grid_is_walked_to_its_end_past_any_number_of_refused_settings() -> None:
    study = parse_study(sweep_values(space={"seed": {"int": [0, 449]}}))
    sampler = proposer("grid", Space(study.space, study.base))
    found = []
    while (proposal := sampler.propose(lambda values: None if values["seed"] >= 300 else "too costly")) is not None:
        found.append(proposal.values["seed"])
    assert found == list(range(300, 450))
    refusing = proposer("grid", Space(study.space, study.base))
    assert refusing.propose(lambda values: "too costly") is None
    assert refusing.exhausted == "every combination of the grid has been proposed; the last one was refused: too costly"


def test_a_grid_repeats_nothing() -> None:
    study = parse_study(sweep_values(space={"seed": {"int": [0, 149]}}))
    sampler = proposer("grid", Space(study.space, study.base))
    for seed in range(150):
        sampler.replay({"seed": seed}, TrialState.COMPLETE, [0.5, 1.0])
    assert sampler.propose(anything) is None


def test_auto_counts_what_was_observed_not_what_was_refused() -> None:
    sampler = proposer("auto", gp_trials=3)
    for done in range(3):
        assert in_charge(sampler) == "GaussianProcess"
        proposal = sampler.propose(lambda values: None if values[X] > 1 else "too low")
        assert proposal is not None
        sampler.observe(proposal.handle, TrialState.COMPLETE, [0.1 * done, 1.0])
    assert in_charge(sampler) == "Tpe"


def test_auto_hands_over_from_gp_to_tpe() -> None:
    sampler = proposer("auto", gp_trials=3)
    assert in_charge(sampler) == "GaussianProcess"
    run(sampler, 3)
    assert in_charge(sampler) == "Tpe"


def test_the_gaussian_process_is_seeded_by_proposal() -> None:
    # after a restart the same past gives the same proposal, whatever was asked before
    past = [({X: x / 3 - 1.5, Y: 1 + x / 9}, [0.1 * x, 2.0 - 0.1 * x]) for x in range(4)]
    found = []
    for asked_before in (0, 1):
        sampler = proposer("gp")
        for labels, values in past:
            sampler.replay(labels, TrialState.COMPLETE, values)
        for _ in range(asked_before):
            model(sampler, seed=1)
        found.append(model(sampler, seed=2))
    assert found[0] == found[1]
    assert found[0] != model(sampler, seed=3)


def test_gp_models_conditional_parameters_and_counts_stopped_trials() -> None:
    study = load_study("digits")
    sampler = Proposer(Space(study.space, study.base), study.objectives, SamplerSection(name="gp", seed=1))
    for i in range(14):
        proposal = sampler.propose(anything)
        assert proposal is not None
        state = TrialState.PRUNED if i % 3 == 0 else TrialState.COMPLETE
        sampler.observe(proposal.handle, state, [i / 20, 1e6 + i], {1: [i / 40, 1e6 + i]})
    assert sampler.propose(anything) is not None
    sampler.observe(sampler.propose(anything).handle, TrialState.FAIL, None)  # type: ignore[union-attr]


def test_a_stopped_trial_counts_with_what_it_would_have_reached() -> None:
    # at epoch 1 -> at the end; the gains are .3 .2 .1 .1 .0 .0, and .5 far away
    pairs = [(0.4, 0.7), (0.5, 0.7), (0.6, 0.7), (0.61, 0.71), (0.62, 0.62), (0.7, 0.7), (0.0, 0.5)]
    finished = [({1: [then, 1e6], 2: [then + 0.01, 1e6]}, [last, 1.1e6]) for then, last in pairs]
    # nearest five of .58: .6 .61 .62 .5 .7 with gains .1 .1 .0 .2 .0, median .1
    assert at_the_end({1: [0.58, 5e5]}, finished) == pytest.approx([0.68, 6e5])
    assert at_the_end({1: [0.3, 1e6], 2: [0.59, 1e6]}, finished)[0] == pytest.approx(0.68)  # type: ignore[index]
    assert at_the_end({3: [0.58, 5e5]}, finished) == [0.58, 5e5]  # no finished trial has a value at that epoch
    assert at_the_end({1: [0.58, 5e5]}, finished[:2]) == [0.58, 5e5]
    assert at_the_end({}, finished) is None


def test_gp_does_not_stay_where_trials_are_stopped() -> None:
    # one model is cheap and bad, the others costly and good; all of the cheap ones but the first are stopped at once
    study = load_study("digits")
    sampler = Proposer(Space(study.space, study.base), study.objectives, SamplerSection(name="gp", seed=1))
    cheap = []
    for _ in range(30):
        proposal = sampler.propose(anything)
        assert proposal is not None
        is_cheap = proposal.values["model.name"] == "cheap_compute"
        first, last = ([0.4, 1e5], [0.6, 1e5]) if is_cheap else ([0.7, 1e6], [0.9, 1e6])
        stopped = is_cheap and any(cheap)
        cheap.append(is_cheap)
        state, values = (TrialState.PRUNED, first) if stopped else (TrialState.COMPLETE, last)
        sampler.observe(proposal.handle, state, values, {1: first} if stopped else {1: first, 4: last})
    assert sum(cheap[10:]) <= 10


def test_asking_tpe_stays_quick() -> None:
    sampler = proposer("tpe")
    run(sampler, 150)
    begun = time.perf_counter()
    run(sampler, 5)
    assert (time.perf_counter() - begun) / 5 < 0.5


@pytest.mark.parametrize("name", ["auto", "gp", "tpe", "nsga2", "random", "qmc"])
def test_a_space_of_constants_is_proposed_again_and_again(name: str) -> None:
    space = Space({X: Parameter(value=0.5), Y: Parameter(value=2.0)}, {})
    assert run(proposer(name, space), 14) == [{X: 0.5, Y: 2.0}] * 14


def test_a_trial_that_ends_while_another_is_asked_does_not_change_the_proposal() -> None:
    """Ray's thread tells what has ended while the asker's thread draws."""
    memory = Memory(SPACE, ["maximize", "minimize"], seed=0)
    _, running = memory.ask(RandomSampler(seed=1))

    class Told(RandomSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            memory.tell(running, TrialState.COMPLETE, [0.5, 1e6], None, [0.2])
            return super().infer_relative_search_space(study, trial)

    told, _ = memory.ask(Told(seed=3))
    assert told == Memory(SPACE, ["maximize", "minimize"], seed=0).ask(RandomSampler(seed=3))[0]
    assert [past.violations for past in memory.trials()] == [[0.2], None]


def test_a_stopped_trial_never_becomes_cheaper_than_nothing() -> None:
    sampler = proposer("gp")
    for number in range(3):  # three that went from 1.5 M to 0.5 M, and one that was stopped at 0.4 M
        labels = {X: 0.1 * number, Y: 1.0}
        sampler.replay(labels, TrialState.COMPLETE, [0.9, 0.5e6], {1: [0.5, 1.5e6], 2: [0.9, 0.5e6]})
    sampler.replay({X: 1.0, Y: 1.0}, TrialState.PRUNED, None, {1: [0.6, 0.4e6]})
    assert isinstance(sampler.sampler, GaussianProcess)
    *_, (_, values) = sampler.sampler.known(sampler.memory)
    assert values is not None
    assert values[0] == pytest.approx(-1.0)
    assert 10 ** values[1] == pytest.approx(0.4e6 / 3)


@pytest.mark.parametrize(("name", "trials"), [("gp", 24), ("tpe", 80), ("nsga2", 120)])
@pytest.mark.parametrize("replayed", [False, True])
def test_samplers_keep_to_constraints(name: str, trials: int, replayed: bool) -> None:
    # the front is x in [0, 1], of which the constraint leaves [0.7, 1]
    limit = [Constraint.of("val_accuracy >= 0.5")]
    sampler = Proposer(SPACE, STUDY.objectives, SamplerSection(name=name, seed=5), constraints=limit)
    settings = []
    for _ in range(trials):
        if replayed and len(settings) == trials // 2:  # a restart: the past comes from the ledger
            former, sampler = (
                settings,
                Proposer(SPACE, STUDY.objectives, SamplerSection(name=name, seed=5), constraints=limit),
            )
            for values in former:
                x = values[X]
                reached = [-((x - 1) ** 2), x**2 + 1]
                sampler.replay(SPACE.labels(values), TrialState.COMPLETE, reached, None, [0.7 - x])
            sampler.next_index = len(former)
        proposal = sampler.propose(anything)
        assert proposal is not None
        settings.append(proposal.values)
        x = proposal.values[X]
        sampler.observe(proposal.handle, TrialState.COMPLETE, [-((x - 1) ** 2), x**2 + 1], None, [0.7 - x])
    late = [values[X] for values in settings[trials // 2 :]]
    assert np.mean([x > 0.65 for x in late]) > 0.5
