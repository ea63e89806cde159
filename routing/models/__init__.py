"""Models: one file per mechanism; ``build_model`` is the one door to all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routing.config.section import ModelSection
    from routing.data import DataInfo
    from routing.models.base import VisionModel


def build_model(section: ModelSection, info: DataInfo) -> VisionModel:
    """Return the untrained model of a configuration for data of this shape.

    Raises:
        InputError: the settings cannot be met, a budget below the cheapest cost of the model, say.
    """
    return section.build(info)
