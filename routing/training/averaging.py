"""The exponential moving average of weights (Polyak averaging), which is what is evaluated and kept where it is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Keeps the average of every floating-point tensor of a model's state; other buffers are the model's own.

    After step t (from 1) the average is ``d * average + (1 - d) * weights`` with ``d = min(decay, t / (t + 9))``, so
    that a short training is not averaged with its first weights. Running statistics of batch norms are averaged as
    the weights that they belong to.

    Args:
        decay: 0 keeps no average; the model is then evaluated as it is.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors: dict[str, Tensor] = {}
        if decay:
            self.tensors = {key: value.clone() for key, value in _floating(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights after one more step into the average."""
        if not self.decay:
            return
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        weights = _floating(model)
        torch._foreach_lerp_(list(self.tensors.values()), [weights[key] for key in self.tensors], 1 - decay)

    def load(self, tensors: dict[str, Tensor], steps: int) -> None:
        """Go on with the average of a checkpoint; raises ``KeyError`` where it has none."""
        for key, value in self.tensors.items():
            value.copy_(tensors[key])
        self.steps = steps

    @torch.no_grad()
    def write_to(self, model: nn.Module) -> None:
        """Give the model the averaged weights."""
        state = _floating(model)
        for key, value in self.tensors.items():
            state[key].copy_(value)

    @contextmanager
    def in_place(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights for a while; it gets its own back to the last digit."""
        kept = {key: _floating(model)[key].clone() for key in self.tensors}
        self.write_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                state = _floating(model)
                for key, value in kept.items():
                    state[key].copy_(value)


def _floating(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if value.is_floating_point()}
