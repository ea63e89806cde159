"""Configuration of early exits, free of torch."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, WithJsonSchema, model_validator

from routing.config.preprocessing import Preprocessing, own_preprocessing
from routing.config.registry import MODELS
from routing.config.section import ModelSection, Section, by_name
from routing.errors import choices

Network = Annotated[
    SerializeAsAny[ModelSection],
    BeforeValidator(by_name(MODELS, "conv_net")),
    WithJsonSchema({"type": "object", "properties": {"name": {"type": "string"}}}),
]
StageNumber = Annotated[int, Field(ge=1, le=1000)]


class ExitHeadSection(Section):
    """The classifier behind a stage."""

    pool: Literal["max", "mean"] = Field(default="max", description="How a map becomes one vector; tokens use CLS.")
    hidden: int = Field(default=0, ge=0, le=65536, description="Width of a Linear-GELU before the last layer; 0: none.")


class EarlyExitSection(ModelSection):
    """A classifier with heads after its stages: an image leaves at the first head that is confident."""

    builds: ClassVar[str] = "routing.models.exits.model:EarlyExit"

    name: Literal["early_exit"] = "early_exit"
    network: Network = Field(
        default_factory=lambda: MODELS.get("conv_net")(),
        description="The classifier that is cut into stages: conv_net, torchvision_net, timm_net or a transformer.",
    )
    exits: tuple[StageNumber, ...] = Field(
        default=(), max_length=64, description="Stages with a head behind them, from 1; empty: all but the last."
    )
    head: ExitHeadSection = ExitHeadSection()
    head_weight: float = Field(default=0.5, ge=0, le=100, description="Weight of each early head's loss; the last: 1.")
    distillation: float = Field(
        default=0.0, ge=0, le=100, description="Weight of each early head's divergence from the last head."
    )
    confidence: float = Field(
        default=0.8, ge=0, le=1, description="An image leaves where its highest probability is above; 1: never."
    )

    def recipe(self, task: str) -> dict[str, Any]:
        """That of the network."""
        return self.network.recipe(task)

    def with_library_config(self, config: dict[str, Any]) -> EarlyExitSection:
        """To the network."""
        return self.model_copy(update={"network": self.network.with_library_config(config)})

    def preprocessing(self) -> Preprocessing | None:
        """That of the network."""
        return own_preprocessing(self.network)

    @model_validator(mode="after")
    def _the_network_has_stages(self) -> EarlyExitSection:
        if not self.network.has_stages:
            fitting = [name for name in MODELS if MODELS.get(name).has_stages]
            raise ValueError(
                f"model.network.name '{self.network.name}' cannot be cut into stages (valid: {choices(fitting)})"
            )
        for key in ("resolutions", "width_fractions"):
            if getattr(self.network, key, ()):
                raise ValueError(
                    f"model.network.{key}: the knob of early_exit is the confidence; leave model.network.{key} empty"
                )
        pruning = getattr(self.network, "pruning", None)
        if pruning is not None and pruning.method != "none":
            raise ValueError(
                f"model.network.pruning.method '{pruning.method}': the knob of early_exit is the confidence "
                "(valid: none)"
            )
        return self
