"""``View``: everything that decides how an image file becomes a tensor, in one place; a part of every cache key."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from routing.data.decode import DamagedImage, as_rgb, read_rgb

VERSION = 5
"""Raise it when the same view would give other pixels: cached arrays of an older version are then not used."""

_REDUCING_GAP = 2
"""A JPEG is decoded at no less than this multiple of the size that is wanted, so that resizing decides the pixels."""


@dataclass(frozen=True)
class View:
    """How a file becomes uint8 (3, ``height``, ``width``).

    ``background`` lies below transparent pixels; ``bit_depth`` is that of grey values in more than 8 bits, None: found
    from all files of the data set.
    """

    height: int
    width: int
    background: tuple[int, int, int] = (255, 255, 255)
    bit_depth: int | None = None

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return 3 * self.height * self.width

    def key(self) -> dict[str, Any]:
        """Return a key that distinguishes its pixels from those of other views."""
        return {"version": VERSION, **asdict(self)}

    def at_depth(self, bit_depth: int) -> View:
        """Return the view with the bit depth found."""
        return replace(self, bit_depth=bit_depth)

    def read(self, path: str) -> NDArray[np.uint8]:
        """Return the image of a file, uint8 (3, height, width).

        Raises:
            DamagedImage: the content is not an image that can be decoded.
            InputError: the file cannot be read, whatever it holds.
        """
        hint = _REDUCING_GAP * max(self.height, self.width)
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
        resized = image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
