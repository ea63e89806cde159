"""One run: configuration to data, model, training, evaluation, trial record.

saved = routing.load("results/digits/best/knee")
logits = saved.predict(images).prediction        # images: uint8 (B, C, H, W)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from routing.saved import load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # imports torch, so only when asked for
        from routing.saved import load

        return load
    raise AttributeError(f"module 'routing' has no attribute '{name}'")
