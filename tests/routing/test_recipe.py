"""A recipe belongs to a model: it fills what the user did not set, and a change of model brings the new one's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field

from routing.config.registry import MODELS
from routing.config.run import RunConfig
from routing.config.section import ModelSection
from routing.config.training import TrainingSection
from routing.errors import InputError
from search_spaces.study.load import parse_study
from search_spaces.study.space import Space

CONV = {"optimizer": "sgd", "learning_rate": 0.15, "batch_size": 256, "lr_schedule": "linear", "warmup_fraction": 0.2}


class ConvSection(ModelSection):
    """A model with a recipe of its own, which depends on its width."""

    tasks: ClassVar[tuple[str, ...]] = ("classification", "quality")

    name: Literal["conv_with_recipe"] = "conv_with_recipe"
    width: int = Field(default=8, ge=1, description="Channels.")

    def recipe(self, task: str) -> dict[str, Any]:
        """Return SGD, with smoothing where there are classes."""
        smoothing = {"label_smoothing": 0.1} if task == "classification" else {}
        rate = {"learning_rate": 0.01} if self.width > 64 else {}
        return {**CONV, "augment.crop": 2, "augment.flip": True, **smoothing, **rate}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    MODELS.register("conv_with_recipe")(ConvSection)
    yield
    del MODELS._entries["conv_with_recipe"]


def config(*overrides: str, file: str | None = None, folder: Path | None = None) -> RunConfig:
    if file is None:
        return RunConfig.from_yaml(None, list(overrides))
    assert folder is not None
    (folder / "run.yaml").write_text(file)
    return RunConfig.from_yaml(folder / "run.yaml", list(overrides))


def trained(run: RunConfig) -> dict[str, Any]:
    return {key: getattr(run.training, key) for key in (*CONV, "label_smoothing", "weight_decay")}


def test_a_model_brings_its_recipe_and_the_user_overrides_it() -> None:
    own = config("model.name=conv_with_recipe")
    assert trained(own) == {**CONV, "label_smoothing": 0.1, "weight_decay": 1e-4}
    assert (own.training.augment.crop, own.training.augment.flip) == (2, True)
    changed = config("model.name=conv_with_recipe", "training.batch_size=32", "training.augment.flip=false")
    assert (changed.training.batch_size, changed.training.learning_rate) == (32, 0.15)
    assert (changed.training.augment.crop, changed.training.augment.flip) == (2, False)
    assert config().training == TrainingSection()  # a model without one is trained as ever


def test_it_may_depend_on_the_model_and_on_the_task() -> None:
    assert config("model.name=conv_with_recipe", "model.width=128").training.learning_rate == 0.01
    assert config("model.name=conv_with_recipe", "dataset.name=quality").training.label_smoothing == 0
    assert config("model.name=conv_with_recipe").replace(**{"model.width": 65}).training.learning_rate == 0.01


def test_a_section_in_python_leaves_open_what_it_does_not_say() -> None:
    run = RunConfig(model=ConvSection(), training=TrainingSection(num_epochs=9))
    assert (run.training.num_epochs, run.training.batch_size) == (9, 256)


def test_a_written_run_holds_the_resolved_values_and_is_read_back_equal(tmp_path: Path) -> None:
    own = config("model.name=conv_with_recipe", "training.momentum=0.8")
    assert "learning_rate: 0.15" in own.to_yaml()
    assert config(file=own.to_yaml(), folder=tmp_path) == own
    assert RunConfig.from_dict(own.dotted()) == own


def test_another_model_takes_its_own_recipe_for_what_the_user_did_not_set(tmp_path: Path) -> None:
    """Neither the defaults of the first model nor its recipe go along; what the user set does."""
    for written in (False, True):  # in memory, or from the file of a run, which has every key
        first = config("training.num_epochs=7", "training.augment.crop=5")
        text = first.to_yaml()
        there = (
            config("model.name=conv_with_recipe", file=text, folder=tmp_path)
            if written
            else first.replace(**{"model.name": "conv_with_recipe"})
        )
        assert trained(there) == {**CONV, "label_smoothing": 0.1, "weight_decay": 1e-4}
        assert (there.training.num_epochs, there.training.augment.crop, there.training.augment.flip) == (7, 5, True)
        text = there.to_yaml()
        back = (
            config("model.name=attention_routing", file=text, folder=tmp_path)
            if written
            else there.replace(**{"model.name": "attention_routing"})
        )
        assert back == first


def test_a_value_that_the_user_set_stays_even_where_it_is_the_default() -> None:
    first = config("training.batch_size=64")  # what it would be anyway
    assert first == config()
    for other in (first.replace(seed=3), first):
        assert other.replace(**{"model.name": "conv_with_recipe"}).training.batch_size == 64


def test_a_sweep_over_models_trains_each_by_its_recipe() -> None:
    study = parse_study(
        {
            "kind": "sweep",
            "name": "models",
            "question": "which?",
            "base": {"training.num_epochs": 2},
            "space": {"model.name": ["attention_routing", "conv_with_recipe"]},
            "objectives": [
                {"metric": "val_accuracy", "goal": "maximize", "reference": 0.0},
                {"metric": "flops", "goal": "minimize", "reference": 1e7},
            ],
            "trials": 2,
        }
    )
    space = Space(study.space, study.base)  # type: ignore[union-attr]
    runs = [space.config({"model.name": name}) for name in ("attention_routing", "conv_with_recipe")]
    assert [run.training.optimizer for run in runs] == ["adamw", "sgd"]
    assert [run.training.num_epochs for run in runs] == [2, 2]


def test_a_recipe_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConvSection, "recipe", lambda self, task: {"lerning_rate": 1})
    with pytest.raises(InputError, match=r"unknown key 'training\.lerning_rate'; did you mean"):
        config("model.name=conv_with_recipe")


def test_smoothing_is_for_classes() -> None:
    with pytest.raises(InputError, match=r"training\.label_smoothing 0\.1 is for classes, and the task of .* quality"):
        config("dataset.name=quality", "model.name=hyperiqa", "training.label_smoothing=0.1")
