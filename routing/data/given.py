"""Images as a user has them, to pixels as a model was trained on: what would have to be guessed is refused.

Shapes: H height, W width, C channels of the model.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from routing.config.section import DatasetSection
from routing.data import DataInfo
from routing.data.decode import DamagedImage, open_image
from routing.errors import InputError

_VALID = "a path, a PIL image, a uint8 array (H, W, C), a list of them, or a uint8 tensor (B, C, H, W)"


def as_pixels(given: Any, info: DataInfo, section: DatasetSection) -> Tensor:
    """Return uint8 (B, C, H, W) of the model's size.

    Files, PIL images and arrays are resized as the data set resizes its own files, and refused at another size where it
    has none. A tensor is taken as it is.

    Args:
        given: a path, a PIL image, a uint8 array (H, W, C), a list of them, or a uint8 tensor (B, C, H, W).

    Raises:
        InputError: floats, other channels, a size or a bit depth that would have to be guessed, a damaged file.
    """
    if isinstance(given, Tensor):
        return _checked_tensor(given, info)
    if isinstance(given, np.ndarray) and given.ndim == 4:
        raise InputError(f"predict: an array of shape {given.shape} (valid: list(images), each (H, W, C))")
    if not isinstance(given, (list, tuple)):
        return _one(given, info, section, "the image").unsqueeze(0)
    if not len(given):
        raise InputError("predict: an empty list of images")
    return torch.stack([_one(image, info, section, f"image {number}") for number, image in enumerate(given)])


def _shape(info: DataInfo) -> tuple[int, int, int]:
    return info.channels, info.input_size, info.input_width or info.input_size


def _checked_tensor(images: Tensor, info: DataInfo) -> Tensor:
    if images.dtype != torch.uint8:
        how = "(images * 255).round().byte()" if images.is_floating_point() else ""
        raise InputError(f"predict: a tensor of {_dtype(images.dtype)}; {_pixels(how)}")
    if images.ndim != 4 or tuple(images.shape[1:]) != _shape(info):
        wanted = ", ".join(map(str, _shape(info)))
        raise InputError(
            f"predict: a tensor of shape {tuple(images.shape)}; this model takes (B, {wanted}), and a tensor is not "
            "resized (valid: paths, PIL images or arrays are, as in training)"
        )
    return images


def _one(image: Any, info: DataInfo, section: DatasetSection, what: str) -> Tensor:
    if isinstance(image, (str, os.PathLike)):
        what = os.fspath(image)
        if isinstance(what, str) and not os.path.exists(os.path.expanduser(what)):
            raise InputError(f"predict: {what}: no such file")
        try:
            fitted = section.read_file(os.path.expanduser(what))
            if fitted is None:
                with open_image(os.path.expanduser(what)) as opened:
                    return _of_image(opened, info, section, what)
        except DamagedImage as error:
            raise InputError(f"predict: {what}: not a readable image: {error}") from None
        return torch.from_numpy(fitted)
    if isinstance(image, np.ndarray):
        image = _of_array(image, info, what)
    if not isinstance(image, Image.Image):
        raise InputError(f"predict: {what} is {type(image).__name__} (valid: {_VALID})")
    return _of_image(image, info, section, what)


def _of_array(array: np.ndarray[Any, Any], info: DataInfo, what: str) -> Image.Image:
    if array.dtype != np.uint8:
        how = "(image * 255).round().astype(numpy.uint8)" if array.dtype.kind == "f" else ""
        raise InputError(f"predict: {what} is an array of {array.dtype}; {_pixels(how)}")
    shape = array.shape
    if info.channels == 1 and (array.ndim == 2 or shape[2:] == (1,)):
        return Image.fromarray(array.reshape(shape[:2]))
    if array.ndim != 3 or shape[2] != info.channels or info.channels != 3:
        raise InputError(f"predict: {what} is an array of shape {shape}; this model takes (H, W, {info.channels})")
    return Image.fromarray(array)


def _of_image(image: Image.Image, info: DataInfo, section: DatasetSection, what: str) -> Tensor:
    try:
        fitted = section.fit(image)
    except DamagedImage as error:
        raise InputError(f"predict: {what}: {error}") from None
    if fitted is not None:
        return torch.from_numpy(fitted)
    pixels = _channels(image, info, what)
    _, height, width = _shape(info)
    if pixels.shape[1:] == (height, width):
        return torch.from_numpy(pixels)
    resized = section.fit_array(pixels)
    if resized is None:
        raise InputError(
            f"predict: {what} has {pixels.shape[2]} x {pixels.shape[1]} pixels; this model was trained on images of "
            f"{width} x {height} that nothing resized (valid: that size)"
        )
    return torch.from_numpy(resized)


def _channels(image: Image.Image, info: DataInfo, what: str) -> np.ndarray[Any, Any]:
    """Return uint8 (C, H, W); grey is not made of colours, nor colours of grey."""
    grey = image.mode in ("1", "L")
    colours = np.asarray(image.convert("L" if grey else "RGB")) if image.mode in ("1", "L", "RGB") else None
    if colours is None:
        raise InputError(
            f"predict: {what} is a PIL image of mode {image.mode} (valid: {'L' if info.channels == 1 else 'RGB'})"
        )
    if not grey and info.channels == 1 and (colours == colours[..., :1]).all():
        colours, grey = colours[..., 0], True  # grey, stored three times
    if grey != (info.channels == 1):
        raise InputError(
            f"predict: {what} has {'one channel' if grey else 'colours'}; this model takes {info.channels} "
            f"channel{'s' if info.channels > 1 else ''}"
        )
    return np.array(colours[None] if grey else colours.transpose(2, 0, 1), order="C")  # a copy: torch may write


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _pixels(how: str) -> str:
    return "this model takes uint8 pixels from 0 to 255" + (f" (of values from 0 to 1: {how})" if how else "")
