"""Configuration of every model, free of torch, so that a study can be checked in milliseconds."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from routing.config.names import FULL_COMPUTE, PATCH_BASELINES, POST_HOC, RANDOM
from routing.config.registry import AGGREGATORS, ROUTERS
from routing.config.section import ModelSection, Section

RouterMode = Annotated[str, AfterValidator(ROUTERS.check), Field(json_schema_extra={"enum": list(ROUTERS)})]
AggregatorName = Annotated[str, AfterValidator(AGGREGATORS.check), Field(json_schema_extra={"enum": list(AGGREGATORS)})]
Widths = Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(max_length=8)]


class EncoderSection(Section):
    """The light convolutional encoder that looks at the whole image at low resolution."""

    pool: int = Field(default=2, ge=1, le=64, description="Average pooling before the first convolution.")
    channels: int = Field(default=16, ge=1, le=1024, description="Channels of every convolution.")


class ExpertsSection(Section):
    """The two branches a patch can take."""

    big: Widths = Field(default=(128, 128), description="Hidden widths of the big MLP.")
    small: Widths = Field(default=(8,), description="Hidden widths of the small MLP.")
    width: int = Field(default=64, ge=1, le=65536, description="Output width of both, D.")


class BudgetSection(Section):
    """How the router is held to its compute."""

    target: float = Field(default=0.3, gt=0, le=1, description="Wanted cost / cost of full_compute (see unit).")
    unit: Literal["flops", "ratio"] = Field(
        default="flops", description="flops: target is a share of compute; ratio: a share of patches."
    )
    loss: Literal["squared", "hinge", "l1", "none"] = Field(
        default="squared", description="squared is two-sided; hinge and l1 are ablation arms that may collapse."
    )
    weight: float = Field(default=10.0, ge=0, le=1e6, description="Weight of the budget loss.")


class RouterSection(Section):
    """Which patches go to the big branch."""

    mode: RouterMode = Field(default="learnable_threshold", description="How patches are chosen.")
    threshold_init: float = Field(default=0.0, ge=-100, le=100, description="First value of the learnable threshold.")
    threshold_jitter: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Noise on the threshold in training, one draw per batch, in standard deviations of its scores: "
        "flattens the curve of operating points.",
    )
    temperature: float = Field(default=1.0, gt=0, le=100, description="Softness of the gate in training.")
    training: Literal["counterfactual", "dense", "sparse"] = Field(
        default="counterfactual",
        description="What training computes. counterfactual: small branch on all patches, big only where routed; "
        "dense: both everywhere; sparse: only the branch taken.",
    )
    budget: BudgetSection = BudgetSection()


class PatchSection(ModelSection):
    """What routed model and baselines share: encoder, experts, aggregator."""

    full_compute: ClassVar[str | None] = FULL_COMPUTE

    encoder: EncoderSection = EncoderSection()
    experts: ExpertsSection = ExpertsSection()
    aggregator: AggregatorName = Field(default="score_weighted", description="How patch features become one.")

    def compared_with(self) -> tuple[str, ...]:
        """Random patches, the dense baselines, and post_hoc where the pooling has weights to route by."""
        post_hoc = (POST_HOC,) if self.aggregator == "score_weighted" else ()
        return (RANDOM, *PATCH_BASELINES, *post_hoc)


class AttentionRoutingSection(PatchSection):
    """Attention scores send each patch to a big or a small MLP."""

    builds: ClassVar[str] = "routing.models.patch.routed:AttentionRouting"

    name: Literal["attention_routing"] = "attention_routing"
    router: RouterSection = RouterSection()

    @property
    def label(self) -> str:
        """The router's mode."""
        return self.router.mode

    @model_validator(mode="after")
    def _post_hoc_has_weights_to_route_by(self) -> AttentionRoutingSection:
        if self.router.mode == POST_HOC and self.aggregator != "score_weighted":
            raise ValueError(
                "model.router.mode 'post_hoc' routes by the weights of the pooling: it needs model.aggregator "
                f"score_weighted, not '{self.aggregator}'"
            )
        return self


class BaselineSection(PatchSection):
    """A dense baseline of patch routing."""

    is_baseline: ClassVar[bool] = True


class FullComputeSection(BaselineSection):
    """Every patch through the big MLP; scores still weight the aggregator."""

    builds: ClassVar[str] = "routing.models.patch.baselines:FullCompute"

    name: Literal["full_compute"] = "full_compute"


class CheapComputeSection(BaselineSection):
    """Every patch through the small MLP; scores still weight the aggregator."""

    builds: ClassVar[str] = "routing.models.patch.baselines:CheapCompute"

    name: Literal["cheap_compute"] = "cheap_compute"


class NoRoutingSection(BaselineSection):
    """Every patch through the big MLP, then the average: no scores, no gate."""

    builds: ClassVar[str] = "routing.models.patch.baselines:NoRouting"

    name: Literal["no_routing"] = "no_routing"
    aggregator: Literal["mean"] = Field(default="mean", description="Without scores only the mean is defined.")


class MatchedBudgetSection(Section):
    """What dense_matched may cost."""

    target: float = Field(default=0.3, gt=0, le=1, description="Wanted cost / cost of full_compute.")


class DenseMatchedSection(BaselineSection):
    """One MLP for all patches, as wide as a budget allows: the same compute, spent evenly."""

    builds: ClassVar[str] = "routing.models.patch.baselines:DenseMatched"

    budget_key: ClassVar[str | None] = "budget.target"

    name: Literal["dense_matched"] = "dense_matched"
    budget: MatchedBudgetSection = MatchedBudgetSection()


class TrunkSection(EncoderSection):
    """The conv trunk that looks at the whole image: the feature of every patch, and its score."""

    channels: int = Field(default=32, ge=1, le=1024, description="Channels of every convolution.")


class ConvExpertsSection(Section):
    """The conv expert on cropped patches; the small branch is a linear layer on the trunk."""

    channels: Annotated[Widths, Field(min_length=1)] = Field(
        default=(32, 64, 64), description="Channels of the expert's convolutions; the patch is halved between them."
    )
    kernel: Literal[1, 3, 5, 7] = Field(default=3, description="Side of their kernels.")
    width: int = Field(default=64, ge=1, le=65536, description="Output width of both branches, D.")


class ConvPatchSection(PatchSection):
    """What routed_conv and its baselines share."""

    full_compute: ClassVar[str | None] = "full_conv"
    routed_model: ClassVar[str] = "routed_conv"

    encoder: EncoderSection = TrunkSection()
    experts: ConvExpertsSection = ConvExpertsSection()  # type: ignore[assignment]

    def recipe(self, task: str) -> dict[str, Any]:
        """AdamW as everywhere, shift and flip of photographs; the oracle's box would not move along."""
        router = getattr(self, "router", None)
        if task != "classification" or (router is not None and router.mode == "oracle"):
            return {}
        return {"batch_size": 128, "augment.crop": 2, "augment.flip": True}

    def compared_with(self) -> tuple[str, ...]:
        """Random patches, all and no patches through the expert, a plain conv net, and post_hoc where it can be."""
        post_hoc = (POST_HOC,) if self.aggregator == "score_weighted" else ()
        return (RANDOM, "full_conv", "cheap_conv", "conv_net", *post_hoc)


class RoutedConvSection(ConvPatchSection, AttentionRoutingSection):
    """A cheap conv trunk on every image, a conv expert on the cropped patches that the scores send there."""

    builds: ClassVar[str] = "routing.models.patch.conv:RoutedConv"

    name: Literal["routed_conv"] = "routed_conv"  # type: ignore[assignment]


class FullConvSection(ConvPatchSection):
    """Every patch through the conv expert of routed_conv."""

    builds: ClassVar[str] = "routing.models.patch.conv:FullConv"
    is_baseline: ClassVar[bool] = True

    name: Literal["full_conv"] = "full_conv"


class CheapConvSection(ConvPatchSection):
    """The conv trunk of routed_conv alone."""

    builds: ClassVar[str] = "routing.models.patch.conv:CheapConv"
    is_baseline: ClassVar[bool] = True

    name: Literal["cheap_conv"] = "cheap_conv"
