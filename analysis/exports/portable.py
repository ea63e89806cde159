"""Exported models as one file for other programs: ONNX and torch.export, each run against PyTorch before it is kept.

The exported graph takes raw uint8 images (B, C, H, W), any B, and holds the normalisation; the file says how an image
becomes such pixels (``about``). Patch routing keeps its conditional form: rows are gathered by data-dependent index, so
that the big MLP still sees routed patches only.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from routing.data import DataInfo, normalise
from routing.errors import InputError, RoutingError, choices
from routing.saved import SavedRun

FILES = {"onnx": "model.onnx", "torch_export": "model.pt2"}
TOLERANCE = 1e-4
AGREEMENT = 0.98
BATCH = "batch"
BATCHES = (1, 7, 32)

Predict = Callable[[Tensor], Tensor]


class ExportFailed(RoutingError):
    """A model cannot be turned into this format; the text is the reason in one line."""


@dataclass(frozen=True)
class Verified:
    """How an exported file did against PyTorch on real validation images.

    ``agreeing`` of ``images`` predictions are equal to within 1e-4; ``largest`` is the largest difference among them.
    ``decides``: the model chooses patches or tokens. ``precision``: in what the run computes; the file has fp32.
    """

    path: Path
    images: int
    agreeing: int
    largest: float
    decides: bool = False
    precision: str = "fp32"

    def words(self) -> str:
        """Return the check as one sentence."""
        text = (
            f"`{self.path.name}`: {self.agreeing} of {self.images} validation images predicted as by PyTorch "
            f"(largest difference {self.largest:.1e})"
        )
        if self.precision != "fp32":
            text += f", both in fp32 (the run computed in {self.precision})"
        if self.decides and self.agreeing < self.images:
            text += (
                "; in the others a score lies within rounding of the threshold or of another score, and the patch or "
                "token goes the other way"
            )
        return text + "."


class FromPixels(nn.Module):
    """Raw images to predictions: normalisation, then the form of the model that can be traced."""

    def __init__(self, model: nn.Module, info: DataInfo) -> None:
        super().__init__()
        self.model, self.info = model, info

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes) or quality (B,) of uint8 images (B, C, H, W)."""
        prediction: Tensor = self.model(normalise(images, self.info))
        return prediction


def export_model(saved: SavedRun, images: Tensor, kind: str, folder: Path) -> Verified:
    """Write the model as ``kind`` into ``folder`` and check it on these images; a file that fails is removed.

    Args:
        saved: a trained model at the operating point to export.
        images: real validation images, uint8 (N, C, H, W), at least 40.
        kind: ``onnx`` (needs the extra ``export``) or ``torch_export``.

    Raises:
        InputError: an unknown kind, or the packages it needs are missing.
        ExportFailed: this model cannot be exported, looks at more than the one image, or the file does not predict the
            same.
    """
    if kind not in FILES:
        raise InputError(f"unknown export format '{kind}' (valid: {choices(FILES)})")
    if kind == "onnx":
        _need_onnx()
    precision = saved.config.precision
    saved = replace(saved, config=saved.config.replace(precision="fp32"))
    module = traceable(saved).eval().cpu()
    _check_each_image_alone(saved, images)
    path = folder / FILES[kind]
    with torch.no_grad(), _quiet():
        try:
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            # strict: reads the code, so that len(images) stays the batch dimension and scalar metrics drop out
            program = torch.export.export(module, (images[:4],), dynamic_shapes=shapes, strict=True)
            save = _save_onnx if kind == "onnx" else _save_program
            predict = save(program, path, about(saved))
        except Exception as error:  # torch.export fails in many ways; each means that this model has no such form
            path.unlink(missing_ok=True)
            raise ExportFailed(f"{saved.config.model.name} cannot be exported as {kind}: {_reason(error)}") from error
        verified = _verify(saved, predict, images, path)
    if verified.agreeing < AGREEMENT * verified.images:
        path.unlink()
        raise ExportFailed(
            f"{path.name} was removed: it predicts only {verified.agreeing} of {verified.images} validation images "
            "as PyTorch does"
        )
    routed = saved.model.routed
    chooses = saved.model.prunable is not None and saved.model.prunable.pruning is not None
    return replace(verified, decides=chooses or (routed is not None and routed.decides), precision=precision)


def about(saved: SavedRun) -> dict[str, str]:
    """Return what an exported file says of itself: JSON by name.

    ``preprocessing`` is how an image file becomes pixels; mean and deviation are applied by the graph itself.
    ``operating_point`` is the model, its knob and the value of that; null is the value it was trained at.
    """
    info, view = saved.info, saved.config.dataset.view()
    size = {"channels": info.channels, "height": info.input_size, "width": info.input_width or info.input_size}
    normalised = {"mean": info.mean, "std": info.std, "normalised_by": "the graph", "dtype": "uint8"}
    preprocessing = {**size, **({} if view is None else view.settings()), **normalised}
    knob_value = saved.config.evaluation.knob_value
    point = {"model": saved.config.model.label, "knob": saved.model.knob, "knob_value": knob_value}
    said = {"preprocessing": preprocessing, "class_names": info.class_names, "operating_point": point}
    return {name: json.dumps(value) for name, value in said.items()}


def traceable(saved: SavedRun) -> nn.Module:
    """Return the module to trace.

    Raises:
        ExportFailed: a control that needs more than the image is no model to ship.
    """
    model, label = saved.model, saved.config.model.label
    if model.not_shipped is not None:
        raise ExportFailed(f"'{label}' {model.not_shipped}: it is a control, not a model to export")
    if model.needs:
        raise ExportFailed(f"'{label}' is told the {choices(model.needs)} of every image; an exported file gets pixels")
    return FromPixels(model.traceable(), saved.info)


@torch.no_grad()
def _check_each_image_alone(saved: SavedRun, images: Tensor) -> None:
    """Raise ``ExportFailed`` where a prediction changes with the order of the batch: it is not of the image alone."""
    agreeing = 0
    for batch in images.to(next(saved.model.parameters()).device).split(BATCHES[-1]):
        apart = (saved.output(batch).prediction - saved.output(batch.flip(0)).prediction.flip(0)).abs()
        agreeing += int((apart.reshape(len(batch), -1).amax(1) <= TOLERANCE).sum())
    if agreeing < AGREEMENT * len(images):
        raise ExportFailed(
            f"'{saved.config.model.label}' predicts otherwise where the same images come in another order: it looks at "
            "more than the one image"
        )


def _reason(error: BaseException) -> str:
    """Return the first line of the root cause in an exporter's chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _need_onnx() -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"--onnx needs {error.name}: pip install 'routing-sweeps[export]'") from None


def _save_onnx(program: Any, path: Path, said: dict[str, str]) -> Predict:
    import onnxruntime

    exported = torch.onnx.export(
        program,
        input_names=["images"],
        output_names=["prediction"],
        dynamo=True,
        verbose=False,
        custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
    )
    assert exported is not None
    _name_batch(exported.model)
    exported.model.metadata_props.update(said)
    exported.save(str(path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _name_batch(model: Any) -> None:
    """Call the first axis of the input, wherever it shows again, ``batch``; the exporter invents a name like ``s7``."""
    import onnx_ir

    found = str(model.graph.inputs[0].shape[0])
    values = {*model.graph.inputs, *(value for node in model.graph.all_nodes() for value in node.outputs)}
    for value in values:
        if value.shape is not None:
            dims = [
                dim if isinstance(dim, int) or dim.value is None else re.sub(rf"\b{found}\b", BATCH, dim.value)
                for dim in value.shape
            ]
            value.shape = onnx_ir.Shape(dims)


def _stable_sort(self: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Translate a stable sort, which torch's exporter lacks: ONNX's TopK puts the lower of equal indices first."""
    import onnxscript

    op: Any = onnxscript.opset18
    length = op.Gather(op.Shape(self), op.Constant(value_ints=[dim]))
    return op.TopK(self, length, axis=dim, largest=int(descending), sorted=1)


def _save_program(program: Any, path: Path, said: dict[str, str]) -> Predict:
    torch.export.save(program, path, extra_files={f"{name}.json": text for name, text in said.items()})
    loaded = torch.export.load(path).module()
    return lambda images: loaded(images)


def _verify(saved: SavedRun, predict: Predict, images: Tensor, path: Path) -> Verified:
    """Compare predictions batch by batch, in batches of several sizes."""
    agreeing, largest, start = 0, 0.0, 0
    while start < len(images):
        for size in BATCHES:
            batch = images[start : start + size]
            start += size
            if not len(batch):
                break
            ours = saved.output(batch.to(next(saved.model.parameters()).device)).prediction.cpu()
            apart = (predict(batch) - ours).abs().reshape(len(batch), -1).amax(1)
            close = apart <= TOLERANCE
            agreeing += int(close.sum())
            largest = max(largest, float(apart[close].max()) if close.any() else 0.0)
    return Verified(path, len(images), agreeing, largest)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own notes (versions, missing torchvision operators) off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
