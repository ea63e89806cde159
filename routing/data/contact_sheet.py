"""A contact sheet: samples of every class on one picture, as training sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_TILE, _GAP, _MARGIN = 96, 6, 12  # pixels
_INK, _PAPER = (30, 30, 30), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """A line of the sheet: a heading and uint8 images (M, C, H, W)."""

    heading: str
    images: NDArray[np.uint8]


def draw_sheet(rows: Sequence[Row], title: str, path: Path) -> Path:
    """Draw rows of images under each other, each below its heading; small images are enlarged pixel by pixel."""
    font = ImageFont.load_default(14)
    columns = max(len(row.images) for row in rows)
    width = max(2 * _MARGIN + columns * (_TILE + _GAP), 2 * _MARGIN + int(font.getlength(title)) + 1)
    line = 22 + _TILE + _GAP
    sheet = Image.new("RGB", (width, 2 * _MARGIN + 26 + line * len(rows)), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN), _shown(title), _INK, font)
    for number, row in enumerate(rows):
        top = _MARGIN + 26 + number * line
        pen.text((_MARGIN, top), _shown(row.heading), _INK, font)
        for column, pixels in enumerate(row.images):
            sheet.paste(_tile(pixels), (_MARGIN + column * (_TILE + _GAP), top + 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    shown = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")
    scale = _TILE / max(image.size)
    way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), way)


def _shown(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()  # the name of a folder need not be valid text
