"""The space: conditions, order, quantiles, grids, and the run a setting makes."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import create_trial

from routing.errors import InputError
from search_spaces.study.load import load_study
from search_spaces.study.parameters import at_quantile, contains, distribution, grid_values
from search_spaces.study.schema import Parameter
from search_spaces.study.space import Space


def parameter(**values: object) -> Parameter:
    return Parameter.model_validate(values)


TREE = {
    "leaf": parameter(float=[0.0, 1.0], when={"middle": "b"}),
    "root": parameter(choice=["x", "y"]),
    "middle": parameter(choice=["a", "b"], when={"root": ["x"]}),
    "constant": parameter(value=5, when={"root": "y"}),
}


def test_parents_are_decided_before_children() -> None:
    assert list(Space(TREE, {}).parameters) == ["root", "middle", "constant", "leaf"]


def test_a_child_of_an_inactive_parent_is_inactive() -> None:
    space = Space(TREE, {})
    assert space.decide(lambda name, p: at_quantile(p, 0.99)) == {"root": "y", "constant": 5}
    assert space.decide(lambda name, p: {"root": "x", "middle": "b", "leaf": 0.5}[name]) == {
        "root": "x",
        "middle": "b",
        "leaf": 0.5,
    }


def test_optuna_stores_active_parameters_only() -> None:
    space = Space(TREE, {})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(30):
        trial = study.ask()
        values = space.sample(trial)
        assert trial.params == space.labels(values)
        assert space.restore(trial.params) == values
        assert ("leaf" in values) == (values.get("middle") == "b")


def test_flattened_has_every_parameter() -> None:
    assert Space(TREE, {}).flattened({"root": "y"}) == {"root": "y", "middle": "a", "leaf": 0.5}


def test_lists_are_stored_as_text_and_come_back() -> None:
    space = Space({"model.experts.big": parameter(choice=[[64], [128, 128]])}, {})
    trial = create_trial(value=0.0, params={"model.experts.big": "[128, 128]"}, distributions=space.distributions())
    assert space.restore(trial.params) == {"model.experts.big": [128, 128]}
    assert space.config(space.restore(trial.params)).model.experts.big == (128, 128)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"choice": ["a", "b", "c", "d"]}, ["a", "b", "c", "d"]),
        ({"int": [3, 6]}, [3, 4, 5, 6]),
        ({"int": [2, 9], "step": 3}, [2, 5, 8]),
        ({"float": [0.0, 8.0]}, [0.0, 2.0, 4.0, 6.0]),
        ({"float": [0.0, 1.0], "step": 0.25}, [0.0, 0.25, 0.5, 0.75]),
        ({"float": [1.0, 10_000.0], "log": True}, [1.0, 10.0, 100.0, 1000.0]),
    ],
)
def test_quantiles(values: dict, expected: list) -> None:
    shares = [0.0, 0.25, 0.5, 0.75]
    if len(expected) == 3:
        shares = [0.0, 0.4, 0.9]
    assert [at_quantile(parameter(**values), u) for u in shares] == pytest.approx(expected)


def test_quantiles_of_a_log_int_stay_inside() -> None:
    drawn = [at_quantile(parameter(int=[1, 100], log=True), i / 1000) for i in range(1000)]
    assert min(drawn) == 1
    assert max(drawn) == 100
    assert drawn == sorted(drawn)
    # half of the range in logs: sqrt(0.5 * 100.5) = 7.09
    assert drawn[500] == 7


def test_optuna_agrees_on_what_is_inside() -> None:
    for values in ({"float": [0.1, 3.0], "log": True}, {"int": [2, 11], "step": 3}, {"float": [0.0, 1.0], "step": 0.3}):
        p = parameter(**values)
        for i in range(50):
            value = at_quantile(p, i / 50)
            assert contains(p, value)
            assert distribution(p)._contains(distribution(p).to_internal_repr(value))


def test_a_stepped_range_has_only_its_steps() -> None:
    whole, real = parameter(int=[32, 256], step=32), parameter(float=[0.0, 0.35], step=0.1)
    assert [value for value in (32, 50, 64, 256, 288) if contains(whole, value)] == [32, 64, 256]
    assert [value for value in (0.0, 0.1, 0.15, 0.3, 0.35) if contains(real, value)] == [0.0, 0.1, 0.3]
    assert grid_values(real, 5) == [0.0, 0.1, 0.2, 0.3]  # 3 * 0.1 is above 0.3 in binary, and outside for Optuna
    assert [at_quantile(real, u) for u in (0.0, 0.99)] == [0.0, 0.3]
    assert all(distribution(real)._contains(value) for value in grid_values(real, 5))


def test_grid_visits_each_branch_once() -> None:
    space = Space(TREE, {})
    settings = space.grid(points=3)
    # x-a, x-b with three leaves, y
    assert len(settings) == 1 + 3 + 1
    assert {"root": "x", "middle": "b", "leaf": 0.5} in settings
    assert grid_values(parameter(float=[1.0, 100.0], log=True), 3) == pytest.approx([1.0, 10.0, 100.0])


def test_a_grid_too_large_is_refused_before_it_is_built() -> None:
    fine = {"seed": parameter(float=[0.0, 1.0], step=1e-9)}
    with pytest.raises(InputError, match=r"a range of 1e\+09 values is too fine for a grid"):
        Space(fine, {}).grid(points=5)
    many = {name: parameter(int=[0, 999]) for name in ("a", "b", "c")}
    with pytest.raises(InputError, match="more than 1,000,000 combinations"):
        Space(many, {}).grid(points=5)


def test_corners_touch_every_choice_and_both_ends() -> None:
    corners = list(Space(TREE, {}).corners())
    for name, ends in (("root", {"x", "y"}), ("middle", {"a", "b"}), ("leaf", {0.0, 1.0})):
        assert {corner[name] for corner in corners if name in corner} == ends


def test_words_say_range_scale_and_condition() -> None:
    study = load_study("digits")
    text = "\n".join(Space(study.space, study.base).words())
    assert "model.router.temperature: a number from 0.1 to 3, on a log scale" in text
    assert "only where model.router.mode is learnable_threshold or sigmoid_gate" in text
