"""The part of a card that says how a model is used: from Python with this package, and from its ONNX file without."""

from __future__ import annotations

from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.data.view import View
from routing.files.results_folder import MODEL_FILE

_FROM_PYTHON = """`{file}` holds the weights. From Python:

```python
import routing

run = routing.load(".")  # this folder
found = run.predict("photo.png")  # or a PIL image, a uint8 array (H, W, C), a list of them
print(found.labels, found.probabilities, found.multiply_adds)
```

Images are resized and normalised as in training; floats, other channels and sizes that would have to be guessed are \
refused."""

_FROM_ONNX = """`model.onnx` needs neither this package nor PyTorch. Its input `images` is uint8 (batch, {channels}, \
{height}, {width}), any batch; the graph normalises. Its metadata hold the classes, the preprocessing and \
the operating point as JSON.

```python
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
image = ImageOps.exif_transpose(Image.open("photo.png")).convert("{mode}")
{prepare}pixels = np.asarray(image, np.uint8).reshape({height}, {width}, {channels}).transpose(2, 0, 1)
prediction = session.run(None, {{"images": pixels[None]}})[0]
{show}
```"""


def usage(config: RunConfig, info: DataInfo | None, has_onnx: bool) -> str:
    """Return the section in Markdown.

    Args:
        info: of the data that the weights were trained on; None: unknown, and there is no ONNX file.
        has_onnx: whether ``model.onnx`` lies beside the card.
    """
    view = config.dataset.view()
    parts = [_FROM_PYTHON.format(file=MODEL_FILE)]
    if view is not None:
        parts.append(f"{view.words()} Exported files take these pixels as uint8 and normalise them themselves.")
    if has_onnx and info is not None:
        width = info.input_width or info.input_size
        prepare = _prepare(view) if view is not None else f"# images of {width} x {info.input_size} pixels\n"
        show = "print(classes[prediction[0].argmax()])" if info.class_names else "print(prediction[0])"
        mode = "L" if info.channels == 1 else "RGB"
        sizes = {"channels": info.channels, "height": info.input_size, "width": width}
        parts.append(_FROM_ONNX.format(prepare=prepare, show=show, mode=mode, **sizes))
    return "\n\n".join(parts)


def _prepare(view: View) -> str:
    """Return the lines that resize a PIL image as the view does."""
    high, wide = view.settings()["resized_to"]
    method = f"Image.Resampling.{view.interpolation.upper()}"
    resize = {
        "stretch": f"image = image.resize(({wide}, {high}), {method})\n",
        "shortest": (
            f"scale = max({wide} / image.width, {high} / image.height)\n"
            f"size = max({wide}, int(image.width * scale)), max({high}, int(image.height * scale))\n"
            f"image = image.resize(size, {method})\n"
        ),
        "longest_pad": f"image = ImageOps.pad(image, ({wide}, {high}), {method}, color={view.fill})\n",
    }[view.resize]
    if view.resize == "shortest" or (wide, high) != (view.width, view.height):
        resize += (
            f"left, top = round((image.width - {view.width}) / 2), round((image.height - {view.height}) / 2)\n"
            f"image = image.crop((left, top, left + {view.width}, top + {view.height}))\n"
        )
    return resize
