"""Controls: routers that do not learn to route; each rules out one explanation of why a learned router works.

All of them route the same share of every image's patches, the share that meets the budget. Shapes: B batch, N patches.
"""

from __future__ import annotations

import torch
from torch import Tensor

from routing.models.patch.parts import Encoded
from routing.models.patch.routers import ShareRouter


class Random(ShareRouter):
    """Random patches: new ones at every training step, fixed ones in evaluation. Does it matter *which* are routed?"""

    EVALUATION_SEED = 20_240_917
    not_shipped = "draws patches at random"

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return uniform noise (B, N)."""
        scores_BN = encoded.scores_BN
        if self.training:
            return torch.rand(scores_BN.shape, device=scores_BN.device)
        generator = torch.Generator().manual_seed(self.EVALUATION_SEED)
        return torch.rand(scores_BN.shape, generator=generator).to(scores_BN.device, non_blocking=True)


class Permuted(ShareRouter):
    """The scores of the next image of the batch: does the choice depend on *this* image, or on patch positions only?

    A batch of one image has no other: its own scores decide.
    """

    not_shipped = "uses the scores of another image"

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return the scores (B, N), shifted by one image along the batch."""
        return encoded.scores_BN.detach().roll(1, dims=0)


class Centre(ShareRouter):
    """The patches nearest to the centre: photographers put the subject there."""

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return minus the squared distance of each patch from the centre, in patches."""
        places = torch.arange(self.grid.grid, device=encoded.scores_BN.device) - (self.grid.grid - 1) / 2
        distances_N = (places.unsqueeze(1) ** 2 + places.unsqueeze(0) ** 2).flatten()
        return -distances_N.expand_as(encoded.scores_BN)


class EdgeEnergy(ShareRouter):
    """The patches with the strongest edges: what a hand-written rule would choose."""

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return the mean squared difference of neighbouring pixels inside each cell, margin left out."""
        margin, end = self.grid.margin, self.grid.margin + self.grid.cell
        cells = encoded.patches[..., margin:end, margin:end].float()
        energy_Bgg = torch.zeros_like(cells[..., 0, 0, 0])
        for side in (-1, -2):
            if self.grid.cell > 1:
                energy_Bgg = energy_Bgg + cells.diff(dim=side).square().mean(dim=(-3, -2, -1))
        return energy_Bgg.flatten(1)


class Oracle(ShareRouter):
    """The patches that hold most of the object, from its annotated box: the upper bound of choosing by position."""

    needs = ("box",)
    not_shipped = "is told where the object is"

    def evidence(self, encoded: Encoded) -> Tensor:
        """Return the share of the box inside each cell."""
        return self.grid.covered_by(encoded.facts["box"])


class PostHoc(ShareRouter):
    """Trained as full_compute, without routing; in evaluation its own pooling weights choose the patches it sees.

    There is no small branch, as it would not have been trained. Unrouted patches are skipped, and the weights of the
    others sum to one.
    """

    routes_in_training = False
    skips_unrouted = True
