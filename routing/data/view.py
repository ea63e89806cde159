"""``View``: everything that decides how an image file becomes a tensor, in one place; a part of every cache key."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from routing.data.decode import DamagedImage, as_rgb, read_rgb

VERSION = 5
"""Raise it when the same view would give other pixels: cached arrays of an older version are then not used."""

_REDUCING_GAP = 2
"""A JPEG is decoded at no less than this multiple of the size that is wanted, so that resizing decides the pixels."""


Resize = Literal["stretch", "shortest", "longest_pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class View:
    """How a file becomes uint8 (3, ``height``, ``width``).

    ``background`` lies below transparent pixels; ``bit_depth`` is that of grey values in more than 8 bits, None: found
    from all files of the data set.

    ``resize``: ``stretch`` gives up the ratio of the sides; ``shortest`` fits the shorter side, and the centre is cut
    out; ``longest_pad`` fits the longer side and pads with ``fill``: timm's crop modes squash, center and border.
    ``crop_pct``: the share of the resized image's side that is cut out around the centre.
    """

    height: int
    width: int
    background: tuple[int, int, int] = (255, 255, 255)
    bit_depth: int | None = None
    resize: Resize = "stretch"
    crop_pct: float = 1.0
    interpolation: Interpolation = "bilinear"
    fill: tuple[int, int, int] = (0, 0, 0)

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return 3 * self.height * self.width

    def key(self) -> dict[str, Any]:
        """Return a key that distinguishes its pixels from those of other views."""
        since = ("resize", "crop_pct", "interpolation", "fill")  # left out at their defaults: older caches stay valid
        same = {name for name in since if getattr(self, name) == getattr(View, name)}
        return {"version": VERSION, **{name: value for name, value in asdict(self).items() if name not in same}}

    def settings(self) -> dict[str, Any]:
        """Return what another program needs to read an image in the same way, JSON-ready."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {**found, "resized_to": self._resized_to(self.width, self.height)[::-1]}

    def words(self) -> str:
        """Return how a file becomes pixels, as one sentence."""
        wide, high = self._resized_to(self.width, self.height)
        how = {
            "stretch": f"resized to {wide} x {high} pixels, whatever its shape",
            "shortest": f"resized until its shorter side fits {wide} x {high} pixels",
            "longest_pad": f"resized until its longer side fits {wide} x {high} pixels, on a ground of {self.fill}",
        }[self.resize]
        is_cut = self.crop_pct < 1 or self.resize == "shortest"
        cut = f", and the centre of {self.width} x {self.height} is cut out" if is_cut else ""
        return f"An image, in RGB and upright, is {how} ({self.interpolation}, antialiased){cut}."

    def boxes(self, shares: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return boxes (N, 4), top, left, height, width, in pixels of the view; nothing may be cut out of the image.

        Args:
            shares: of the sides of images (N, 4).
            sizes: of these images (N, 2), width and height in pixels.
        """
        assert self.crop_pct == 1
        assert self.resize != "shortest"
        resized = np.array([self._resized_to(width, height)[::-1] for width, height in sizes.astype(int).tolist()])
        corner = (np.array([self.height, self.width]) - resized) // 2
        return shares * np.tile(resized, 2) + np.pad(corner, ((0, 0), (0, 2)))

    def at_depth(self, bit_depth: int) -> View:
        """Return the view with the bit depth found."""
        return replace(self, bit_depth=bit_depth)

    def read(self, path: str) -> NDArray[np.uint8]:
        """Return the image of a file, uint8 (3, height, width).

        Raises:
            DamagedImage: the content is not an image that can be decoded.
            InputError: the file cannot be read, whatever it holds.
        """
        is_default = self.resize == "stretch" and self.crop_pct == 1 and self.interpolation == "bilinear"
        hint = _REDUCING_GAP * max(self.height, self.width) if is_default else None  # else one resize from the file
        return self._resized(read_rgb(path, self.background, self.bit_depth or 16, hint))

    def fit(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return a decoded image as a file with its pixels would be read.

        Raises:
            DamagedImage: grey values of more than 8 bits, and the view has no bit depth.
        """
        if image.mode.startswith(("I", "F")) and self.bit_depth is None:
            raise DamagedImage("more than 8 bits per value, and dataset.bit_depth is auto; convert it to 8 bits")
        try:
            return self._resized(as_rgb(image, self.background, self.bit_depth or 16))
        except ValueError as error:
            raise DamagedImage(str(error)) from None

    def _resized(self, image: Image.Image) -> NDArray[np.uint8]:
        method = Image.Resampling[self.interpolation.upper()]
        resized = self._cut(image.resize(self._resized_to(*image.size), method))
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))

    def _resized_to(self, width: int, height: int) -> tuple[int, int]:
        """Return the size (width, height) that an image is resized to, before its centre is cut out."""
        wide, high = math.floor(self.width / self.crop_pct), math.floor(self.height / self.crop_pct)
        if self.resize == "stretch":
            return wide, high
        if self.resize == "longest_pad":
            ratio = max(width / wide, height / high)
            return max(1, round(width / ratio)), max(1, round(height / ratio))
        whole = int if wide == high else round  # as timm and open_clip, through torchvision's resize of a square
        if width / wide <= height / high:
            return wide, max(high, whole(wide * height / width))
        return max(wide, whole(high * width / height)), high

    def _cut(self, image: Image.Image) -> Image.Image:
        """Return the centre of an image, padded where it is smaller."""
        missing = max(0, self.width - image.width), max(0, self.height - image.height)
        if any(missing):
            border = (missing[0] // 2, missing[1] // 2, (missing[0] + 1) // 2, (missing[1] + 1) // 2)
            image = ImageOps.expand(image, border, fill=self.fill)
        if image.size == (self.width, self.height):
            return image
        left, top = round((image.width - self.width) / 2), round((image.height - self.height) / 2)
        return image.crop((left, top, left + self.width, top + self.height))
