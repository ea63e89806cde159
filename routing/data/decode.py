"""An image file becomes 8-bit RGB as a person sees it: upright, its transparency on a background, one scale of grey."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from routing.errors import InputError

EXTENSIONS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM")
"""What Pillow may take a file for: it goes by content, and would call an external program for EPS."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns of odd EXIF and of images that are large, but allowed; neither warning names a file
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class DamagedImage(Exception):
    """A file that cannot be decoded; its text is the reason, without the file's name."""


def read_rgb(path: str, background: tuple[int, int, int], bit_depth: int, hint: int | None) -> Image.Image:
    """Return an image file in 8-bit RGB.

    Args:
        background: colour behind transparent pixels.
        bit_depth: bits of grey values that are stored in more than 8, the same for a whole data set.
        hint: pixels per side that will be needed; a larger JPEG is decoded smaller, never below; None: as it is.

    Raises:
        DamagedImage: the content is not an image that can be decoded.
        InputError: the file cannot be read, whatever it holds.
    """
    with open_image(path, hint) as image:
        return as_rgb(image, background, bit_depth)


@contextmanager
def open_image(path: str, hint: int | None = None) -> Iterator[Image.Image]:
    """Open an image file and decode it; see ``read_rgb``."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if hint is not None:
                image.draft("RGB", (hint, hint))
            image.load()
            yield image
    except (DamagedImage, InputError):
        raise
    except UnidentifiedImageError:
        raise DamagedImage(f"its content is none of {', '.join(FORMATS)}") from None
    except Exception as error:  # decoders meet broken content with exceptions of every kind
        raise _told(path, error) from None


def as_rgb(image: Image.Image, background: tuple[int, int, int], bit_depth: int) -> Image.Image:
    """Return a decoded image upright, flat and in 8 bits; see ``read_rgb``."""
    return _flat(_narrow(_upright(image), bit_depth), background)


def brightest(path: str) -> int:
    """Return the largest grey value of a file with more than 8 bits, 0 for all others and for damaged files."""
    try:
        with open(path, "rb") as file:
            head = file.read(26)
        if not (head[:1] == b"P" or head[:2] in (b"II", b"MM") or (head[:4] == b"\x89PNG" and head[24:25] == b"\x10")):
            return 0
        with Image.open(path, formats=FORMATS) as image:
            return int(np.asarray(image).max()) if image.mode.startswith("I") else 0
    except Exception:  # decoding the file will report the error
        return 0


def depth_of(value: int) -> int:
    """Return the bit depth (8, 10, 12, 14, 16) that holds the largest grey value of a data set."""
    return next((bits for bits in (8, 10, 12, 14) if value < 2**bits), 16)


def _told(path: str, error: Exception) -> Exception:
    if isinstance(error, MemoryError):
        return InputError(f"{path}: not enough memory to decode it")
    if isinstance(error, OSError) and error.errno is not None:  # decoders raise OSError without a number
        return InputError(f"{path}: cannot be read: {error.strerror}")
    text = " ".join(str(error).split())[:200]
    known = isinstance(error, (OSError, ValueError, SyntaxError, Image.DecompressionBombError))
    return DamagedImage(text if known and text else f"{type(error).__name__} while decoding {text}".strip())


def _upright(image: Image.Image) -> Image.Image:
    """Return an image rotated by its EXIF orientation; no other EXIF field is read, and nothing is written back."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # EXIF that cannot be parsed does not turn an image
        return image
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def _narrow(image: Image.Image, bit_depth: int) -> Image.Image:
    """Return wide grey values with 8 bits, by the scale of the data set: Pillow would cut them off at 255."""
    if image.mode == "F":
        raise ValueError("floating-point pixels; convert it to 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() >= 2**16:
        raise ValueError("pixels of more than 16 bits; convert it to 8 or 16")
    if values.max() >= 2**bit_depth:
        raise ValueError(f"a grey value of {values.max()} is above dataset.bit_depth {bit_depth}")
    narrow: NDArray[np.uint8] = (values.astype(np.int64) >> (bit_depth - 8)).astype(np.uint8)
    return Image.fromarray(narrow)


def _flat(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
