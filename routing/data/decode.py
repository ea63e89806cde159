"""What every data set of image files does with a file it has opened."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image in 8-bit RGB, upright as its camera says; of 16-bit grey the upper eight bits.

    Pillow itself would make white of nearly all that has more than 8 bits.

    Raises:
        ValueError: pixels of another kind, floating-point ones for instance.
    """
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        values = np.asarray(upright)
        if values.min() < 0 or values.max() >= 2**16:
            raise ValueError("pixels of more than 16 bits; convert it to 8 or 16")
        wide = values.max() >= 2**8  # 8 bits in a wider container are what they are
        upright = Image.fromarray((values >> 8 if wide else values).astype(np.uint8))
    elif upright.mode == "F":
        raise ValueError("floating-point pixels; convert it to 8 or 16 bits")
    return upright.convert("RGB")
