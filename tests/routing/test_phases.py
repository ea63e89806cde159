"""Phases: what is frozen stays bit-identical, what is joint stays as it was, and a run knows where it stands."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from routing.config.run import RunConfig
from routing.data import DataInfo, batches
from routing.errors import InputError
from routing.evaluation.tasks import Classification
from routing.models import build_model
from routing.models.base import CountedPart, ModelOutput, VisionModel
from routing.runner import run
from routing.training.loop import train_epoch
from routing.training.optimizer import learning_rate, make_optimizer
from routing.training.phases import Phase, Schedule, Turn, make_schedule, training_mode
from routing.training.seeding import epoch_order, prepare_process


def schedule(*phases: Phase, epochs: int = 9, cyclic: bool = False, patience: int | None = None) -> Schedule:
    return Schedule(phases, epochs, cyclic, patience, Classification())


def played(plan: Schedule, losses: list[float]) -> list[Turn]:
    """Return the turns of a run whose validation losses are these."""
    history: list[dict[str, Any]] = []
    turns = []
    while (turn := plan.turn(history)) is not None:
        turns.append(turn)
        history.append({"val_loss": losses[len(history)]})
    return turns


def names(turns: list[Turn]) -> str:
    return "".join(turn.phase.name for turn in turns)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Return the parts (first word of the key) in which any parameter or buffer is not bit-identical."""
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}


def prepared(keys: dict[str, Any]) -> tuple[RunConfig, VisionModel, Any]:
    config = RunConfig.from_dict(keys)
    prepare_process(config.seed, config.threads)
    data = config.dataset.load()
    return config, build_model(config.model, data.info), data


class TestSchedule:
    """Which epoch belongs to which phase, without any training."""

    def test_phases_in_order(self) -> None:
        turns = played(schedule(Phase("a", epochs=2), Phase("b"), epochs=5), [1.0] * 5)
        assert names(turns) == "aabbb"
        assert [turn.epoch for turn in turns] == [1, 2, 3, 4, 5]

    def test_each_phase_in_order_has_a_learning_rate_schedule_of_its_own(self) -> None:
        turns = played(schedule(Phase("a", epochs=2), Phase("b"), epochs=5), [1.0] * 5)
        assert [(turn.first_epoch, turn.num_epochs) for turn in turns] == [(1, 2)] * 2 + [(3, 3)] * 3

    def test_phases_that_alternate_share_the_schedule_of_the_run(self) -> None:
        turns = played(schedule(Phase("a", epochs=1), Phase("b", epochs=2), epochs=7, cyclic=True), [1.0] * 7)
        assert names(turns) == "abbabba"
        assert {(turn.first_epoch, turn.num_epochs) for turn in turns} == {(1, 7)}

    def test_patience_ends_a_phase(self) -> None:
        # a: best at epoch 2, then two epochs without a better one; b starts its own count: 0.7 is its best, then 2 more
        plan = schedule(Phase("a", patience=2), Phase("b", patience=2), epochs=9)
        assert names(played(plan, [0.9, 0.5, 0.6, 0.5, 0.7, 0.8, 0.9])) == "aaaabbb"

    def test_patience_of_the_run_ends_an_alternation(self) -> None:
        plan = schedule(Phase("a", epochs=1), Phase("b", epochs=1), epochs=9, cyclic=True, patience=3)
        assert names(played(plan, [0.9, 0.5, 0.6, 0.7, 0.8, 0.1])) == "ababa"

    def test_epochs_end_a_phase_that_keeps_improving(self) -> None:
        plan = schedule(Phase("a", epochs=3, patience=2), Phase("b"), epochs=4)
        assert names(played(plan, [0.9, 0.8, 0.7, 0.6])) == "aaab"

    def test_a_loss_that_is_not_a_number_is_no_improvement(self) -> None:
        assert names(played(schedule(Phase("a"), epochs=9, patience=2), [0.5, float("nan"), float("nan")])) == "aaa"

    def test_where_there_is_no_validation_loss_the_metric_is_watched(self) -> None:
        plan = schedule(Phase("a"), patience=2)
        history = [{"val_accuracy": value} for value in (0.5, 0.6, 0.6)]
        assert plan.turn(history) is not None
        assert plan.turn([*history, {"val_accuracy": 0.59}]) is None

    def test_where_a_run_stands_depends_on_its_history_alone(self) -> None:
        plan = schedule(Phase("a", patience=1), Phase("b", epochs=2), epochs=6, cyclic=True)
        losses = [0.9, 0.9, 0.8, 0.7, 0.6, 0.5]
        turns = played(plan, losses)
        for done in range(len(losses)):
            assert plan.turn([{"val_loss": loss} for loss in losses[:done]]) == turns[done]


WARM_UP = [
    {"name": "branches", "parts": ["big", "small", "head"], "losses": ["task"], "epochs": 1},
    {"name": "router", "parts": ["router", "attention", "encoder"], "epochs": 1},
]


def test_joint_training_is_bit_identical_to_a_plain_loop(tiny: dict[str, Any]) -> None:
    """Twenty steps of the loop as one would write it by hand, against the loop that knows phases."""
    keys = {**tiny, "dataset.num_train": 640}
    config, model, data = prepared(keys)
    settings, task = config.training, Classification()
    turn = make_schedule(settings, model, task).turn([])
    assert turn is not None
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=False)
    optimizer = make_optimizer(model, settings)
    train_epoch(model, data["train"], data.info, task, optimizer, settings, turn=turn, seed=0, autocast=autocast)

    _, by_hand, _ = prepared(keys)
    optimizer = make_optimizer(by_hand, settings)
    by_hand.train()
    order = epoch_order(0, 1, 640)
    for step, batch in enumerate(batches(data["train"], data.info, 32, order)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, 20)
        output = by_hand(batch.images)
        loss = torch.stack([task.loss(output.prediction, batch.targets), output.losses["budget"]]).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), settings.grad_clip)
        optimizer.step()
    assert changed(state(model), state(by_hand)) == set()


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("attention",), "aacn"),
        (("decision",), "aacn"),
        (("backbone", "decision"), "aacn"),
        (("big", "small", "head"), "attention_routing"),
        (("router",), "attention_routing"),
    ],
)
def test_frozen_parts_are_bit_identical_batch_norm_included(
    tiny: dict[str, Any], parts: tuple[str, ...], name: str
) -> None:
    config, model, data = prepared({**tiny, "model.name": name})
    task, autocast = Classification(), torch.autocast("cpu", enabled=False)
    optimizer = make_optimizer(model, config.training)
    arguments = (model, data["train"], data.info, task, optimizer, config.training)
    everything = Turn(1, Phase("joint"), 1, 2)  # every parameter has gradients and momentum before it is frozen
    train_epoch(*arguments, turn=everything, seed=0, autocast=autocast)
    before = state(model)
    train_epoch(*arguments, turn=Turn(2, Phase("p", parts), 1, 2), seed=0, autocast=autocast)
    assert changed(before, state(model)) == set(parts)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_weight_decay_and_momentum_leave_frozen_parts_alone_and_are_kept_for_their_next_turn(
    tiny: dict[str, Any],
) -> None:
    config, model, data = prepared({**tiny, "model.name": "aacn", "training.weight_decay": 1.0})
    optimizer = make_optimizer(model, config.training)
    arguments = (model, data["train"], data.info, Classification(), optimizer, config.training)
    train_epoch(*arguments, turn=Turn(1, Phase("joint"), 1, 2), seed=0, autocast=torch.autocast("cpu", enabled=False))
    weight = model.get_parameter("decision.heads.mix")
    moments = {key: value.clone() for key, value in optimizer.state[weight].items()}
    turn = Turn(2, Phase("p", ("attention",)), 1, 2)
    train_epoch(*arguments, turn=turn, seed=0, autocast=torch.autocast("cpu", enabled=False))
    assert all(torch.equal(optimizer.state[weight][key], value) for key, value in moments.items())


def test_what_the_model_itself_never_trains_stays_so(tiny: dict[str, Any]) -> None:
    _, model, _ = prepared({**tiny, "model.name": "aacn"})
    fixed = model.get_parameter("attention.classifier.weight")
    fixed.requires_grad_(False)
    with training_mode(model, Phase("p", ("attention",))):
        assert not fixed.requires_grad
        assert not model.get_parameter("backbone.layers.0.0.weight").requires_grad
    assert not fixed.requires_grad


def test_parameters_of_the_model_itself_are_parts_too() -> None:
    class Tokens(VisionModel):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.head = nn.Parameter(torch.zeros(2)), nn.Linear(2, 2)

        def forward(self, images: torch.Tensor) -> ModelOutput:
            return ModelOutput(self.head(images + self.token))

        def counted_parts(self) -> dict[str, CountedPart]:
            return {"head": CountedPart(self.head, (torch.zeros(1, 2),), 4)}

    model = Tokens()
    assert list(model.parts()) == ["head", "token"]
    with training_mode(model, Phase("p", ("token",))):
        assert [name for name, p in model.named_parameters() if p.requires_grad] == ["token"]


def test_history_names_the_phase(tiny: dict[str, Any], folder: Path) -> None:
    config = RunConfig.from_dict({**tiny, "training.num_epochs": 2, "training.phases": WARM_UP})
    record = run(config, out=folder)
    assert [row["phase"] for row in record.history] == ["branches", "router"]
    with (folder / "history.csv").open() as file:
        assert [row["phase"] for row in csv.DictReader(file)] == ["branches", "router"]
    first, second = record.history
    assert first["train_loss"] == pytest.approx(first["train_loss_task"])  # the phase leaves the budget out
    assert second["train_loss"] == pytest.approx(second["train_loss_task"] + second["train_loss_budget"])


def test_joint_is_the_phase_of_a_run_without_phases(tiny: dict[str, Any]) -> None:
    assert [row["phase"] for row in run(RunConfig.from_dict(tiny)).history] == ["joint"]


def test_patience_ends_a_run_early(tiny: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    worse = iter([1.0, 0.5, 0.6, 0.7, 0.1, 0.1])
    monkeypatch.setattr(
        Classification, "metrics", lambda self, predictions, targets: {"accuracy": 0.5, "loss": next(worse)}
    )
    keys = {"training.num_epochs": 9, "training.patience": 2, "evaluation.operating_points": False}
    record = run(RunConfig.from_dict({**tiny, **keys, "model.name": "cheap_compute"}))
    assert [row["epoch"] for row in record.history] == [1, 2, 3, 4]
    assert record.metrics["epochs"] == 4


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"training.phases": [{"parts": ["rooter"]}]},
            r"'rooter': AttentionRouting has no part 'rooter'; did you mean 'router'\? "
            r"\(valid: encoder, attention, big, small, head, router\)",
        ),
        ({"training.phases": [{"parts": ["aggregator"]}]}, r"'aggregator': nothing to train in aggregator"),
        (
            {"training.phases": [{"parts": ["router"], "losses": ["budgte"]}]},
            r"no loss term 'budgte'; did you mean 'budget'\? \(valid: task, budget\)",
        ),
        (
            {"training.phases": [{"name": "b", "parts": ["big"], "losses": ["budget"]}]},
            r"'b': the loss \(budget\) does not depend on what is trained \(big\)",
        ),
        (
            {"model.name": "full_compute", "training.schedule": "alternating"},
            r"'alternating': FullCompute has no phases of its own; declare them in training\.phases "
            r"\(parts: encoder, attention, big, head\)",
        ),
        (
            {"model.name": "aacn", "model.attention.enabled": False, "training.schedule": "alternating"},
            r"AttentionAugmentedNet has no phases of its own.*\(parts: backbone, decision\)",
        ),
    ],
)
def test_a_schedule_the_model_cannot_follow_is_refused(
    tiny: dict[str, Any], keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(RunConfig.from_dict({**tiny, **keys}))


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"phases": [{"parts": ["a"], "epochs": 0}]}, r"training\.phases\.0\.epochs: .* equal to 1, not 0"),
        ({"phases": [{"parts": []}]}, r"training\.phases\.0\.parts: .*at least 1 item"),
        ({"phases": [{"parts": ["a"], "epoch": 1}]}, r"unknown key 'training\.phases\.0\.epoch'"),
        ({"phases": [{"parts": ["a"]}, {"parts": ["b"]}]}, r"'a' has neither epochs nor patience, so that no phase"),
        ({"phases": [{"parts": ["a"], "epochs": 3}]}, r"last 3 epochs in all, but training\.num_epochs is 4"),
        (
            {"phases": [{"parts": ["a"], "epochs": 4}, {"parts": ["b"]}]},
            r"4 fixed epochs of training\.num_epochs 4 leave none for 'b'",
        ),
        ({"schedule": "alternating", "phases": [{"parts": ["a"]}]}, r"'a' never ends; a phase that alternates needs"),
        ({"schedule": "alternate"}, r"training\.schedule: must be 'joint' or 'alternating'"),
        ({"num_epochs": 0}, r"training\.num_epochs"),
    ],
)
def test_phases_that_cannot_fill_a_run_are_refused(training: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RunConfig.from_dict({"training": {"num_epochs": 4, **training}})


def test_declared_phases_survive_yaml(folder: Path) -> None:
    config = RunConfig.from_dict({"training.num_epochs": 2, "training.phases": WARM_UP})
    (folder / "config.yaml").write_text(config.to_yaml())
    assert RunConfig.from_yaml(folder / "config.yaml") == config


def test_a_phase_is_named_after_its_parts_when_it_has_no_name() -> None:
    config = RunConfig.from_dict({"training.phases": [{"parts": ["big", "head"]}]})
    assert config.training.phases[0].label == "big+head"


@pytest.mark.parametrize("aggregator", ["score_weighted", "attention"])
def test_alternation_of_patch_routing_trains_every_parameter(tiny: dict[str, Any], aggregator: str) -> None:
    config = RunConfig.from_dict({**tiny, "model.aggregator": aggregator})
    model = build_model(config.model, config.dataset.info())
    turns = [name for parts in model.alternation().values() for name in parts]
    with_parameters = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert sorted(turns) == sorted(with_parameters)


def test_every_model_names_parts_that_hold_every_parameter(tiny: dict[str, Any]) -> None:
    info: DataInfo = RunConfig.from_dict(tiny).dataset.info()
    for name in ("attention_routing", "full_compute", "no_routing", "aacn"):
        model = build_model(RunConfig.from_dict({"model.name": name}).model, info)
        held = {
            id(p)
            for items in model.parts().values()
            for item in items
            for p in (item.parameters() if isinstance(item, nn.Module) else [item])
        }
        assert held == {id(p) for p in model.parameters()}
