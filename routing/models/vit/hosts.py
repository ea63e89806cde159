"""One adapter per host model, and the choice among them.

Token pruning and attention analysis know models only through a ``Host``. Hosts: this project's ``VisionTransformer``,
torchvision's, timm's plain transformers, open_clip's vision towers (or a whole open_clip model, whose tower is taken),
transformers' ViT, DINOv2 and CLIP.

Shapes: B images, H heads, T tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from routing.errors import InputError
from routing.models.attention import SelfAttention
from routing.models.vit.host import Host, SdpaMasksHost, child, is_instance
from routing.models.vit.network import VisionTransformer
from routing.models.vit.timm_hosts import timm_host
from routing.models.vit.transformers_hosts import transformers_host

__all__ = ["Host", "OpenClipHost", "OwnHost", "TorchvisionHost", "host_of"]


class OwnHost(SdpaMasksHost):
    """This project's ``VisionTransformer``."""

    out_branch = ("out_proj",)
    attention_branch = ("dropout",)
    mlp_branch = ("norm_2", "mlp")

    def __init__(self, model: VisionTransformer) -> None:
        self.blocks = list(model.blocks)
        self.grid = (model.grid, model.grid)

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``norm_1`` and ``attention``."""
        return child(block, "norm_1"), child(block, "attention")

    def heads(self, attention: nn.Module) -> int:
        """H."""
        assert isinstance(attention, SelfAttention)
        return attention.heads

    def in_projection(self, attention: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The one linear layer."""
        assert isinstance(attention, SelfAttention)
        return attention.in_proj.weight, attention.in_proj.bias


class TorchvisionHost(Host):
    """``torchvision.models.VisionTransformer``."""

    out_branch = ("out_proj",)
    attention_branch = ("dropout",)
    mlp_branch = ("ln_2", "mlp")

    def __init__(self, model: nn.Module) -> None:
        self.blocks = list(child(child(model, "encoder"), "layers").children())
        side = int(model.image_size) // int(model.patch_size)
        self.grid = (side, side)

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``ln_1`` and ``self_attention``."""
        return child(block, "ln_1"), child(block, "self_attention")


class OpenClipHost(Host):
    """open_clip's ``VisionTransformer``, with its default or its custom blocks."""

    out_branch = ("ln_inner", "out_proj", "out_drop")
    attention_branch = ("ln_attn", "ls_1")
    mlp_branch = ("ln_2", "mlp", "ls_2")

    def __init__(self, model: nn.Module) -> None:
        transformer = child(model, "transformer")
        self.blocks = list(child(transformer, "resblocks").children())
        self.batch_first = bool(getattr(transformer, "batch_first", True))
        rows, columns = model.grid_size
        self.grid = (int(rows), int(columns))
        scaled = [block for block in self.blocks if getattr(child(block, "attn"), "logit_scale", None) is not None]
        if scaled:
            raise InputError("this open_clip model uses scaled cosine attention, which token pruning does not know")

    def parts(self, block: nn.Module) -> tuple[nn.Module, nn.Module]:
        """``ln_1`` and ``attn``."""
        return child(block, "ln_1"), child(block, "attn")

    def tokens_in(self, value: Tensor) -> Tensor:
        """Blocks of older models take (T, B, D)."""
        return value if self.batch_first else value.transpose(0, 1)

    def tokens_out(self, tokens_BTD: Tensor) -> Tensor:
        """Swapping back is the same."""
        return self.tokens_in(tokens_BTD)

    def normed_head(self, attention: nn.Module, values_BHRE: Tensor, index: int) -> Tensor:
        """Custom attention may normalise queries and keys."""
        norm = getattr(attention, ("ln_q", "ln_k")[index], None)
        return values_BHRE if norm is None else norm(values_BHRE)

    def attention_output(self, attention: nn.Module, normed_BTD: Tensor, mixed_BHTE: Tensor) -> Tensor:
        """Custom attention may scale its heads."""
        scale = getattr(attention, "head_scale", None)
        return super().attention_output(attention, normed_BTD, mixed_BHTE if scale is None else mixed_BHTE * scale)


def host_of(model: nn.Module) -> Host:
    """Return the adapter of a model.

    Raises:
        InputError: no adapter for it; the reason is named.
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    if isinstance(model, VisionTransformer):
        return OwnHost(model)
    if is_instance(model, "torchvision.models.vision_transformer", "VisionTransformer"):
        return TorchvisionHost(model)
    tower = getattr(model, "visual", model)
    if is_instance(tower, "open_clip.transformer", "VisionTransformer"):
        return OpenClipHost(tower)
    if is_instance(tower, "open_clip.timm_model", "TimmModel"):
        tower = child(tower, "trunk")
    found = timm_host(tower) or transformers_host(model)
    if found is not None:
        return found
    raise InputError(
        f"{type(tower).__name__}: token pruning and attention maps need a plain vision transformer, whose every block "
        "sees the same tokens (valid: this project's vit, torchvision's VisionTransformer, timm's VisionTransformer, "
        "Eva or Beit, open_clip's VisionTransformer tower or one of these of timm, transformers' ViTModel, Dinov2Model "
        "or CLIPVisionModel)"
    )
