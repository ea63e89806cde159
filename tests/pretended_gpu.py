"""A GPU for tests on a machine without one: tensors in host memory that say ``cuda:0``, and a record of every wait.

On a GPU the host waits wherever a value, or a shape that depends on values, is wanted on the host, and wherever memory
is copied between the two without ``non_blocking``. ``torch.cuda.set_sync_debug_mode`` says so on a real one.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

import routing

_OURS = Path(routing.__file__).parent
DEVICE = torch.device("cuda", 0)
_TO_HOST = {"item", "tolist", "numpy", "__float__", "__int__", "__bool__", "__index__", "__array__", "cpu", "equal"}
_SHAPE_BY_VALUE = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "allclose"}
_INDEXED = {"__getitem__", "__setitem__"}


class OnGpu(Tensor):
    """A tensor that says it is on the GPU; what is computed from it says so too."""

    device = DEVICE  # type: ignore[assignment]
    is_cuda = True


class PretendedGpu(TorchFunctionMode):
    """Inside, ``cuda:0`` can be used; ``waits`` are the calls and lines at which the host waited for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __enter__(self) -> PretendedGpu:
        self._captures = torch.cuda.is_current_stream_capturing
        torch.cuda.is_current_stream_capturing = lambda: False
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        torch.cuda.is_current_stream_capturing = self._captures
        super().__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        was_there = any(isinstance(value, OnGpu) for value in given)
        if name == "__get__":  # an attribute: shape, grad, data
            return _on_gpu(func(*args, **kwargs), was_there)
        wanted, args, kwargs = _device_taken_out(args, kwargs)
        if name in ("to", "cuda", "cpu", "copy_") and wanted in (None, "cpu", "cuda"):
            return self._moved(func, name, args, kwargs, wanted)
        if was_there and (name in _TO_HOST | _SHAPE_BY_VALUE or (name in _INDEXED and _by_mask(args[1:]))):
            self._wait(name)
        elif name == "__getitem__" and was_there and any(type(i) is Tensor and i.ndim for i in tree_leaves(args[1:])):
            self._wait("index on the host")
        if wanted == "cuda" and name in ("tensor", "as_tensor", "asarray"):
            self._wait(f"{name} from the host")
        out = func(*args, **kwargs)
        return _on_gpu(out, wanted == "cuda" or (was_there and wanted is None))

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any, wanted: str | None) -> Any:
        is_there = isinstance(args[0], OnGpu)
        if name == "copy_":
            from_there, goes_there = isinstance(args[1], OnGpu), is_there
        else:
            wanted = {"cuda": "cuda", "cpu": "cpu"}.get(name, wanted)
            other = next((value for value in args[1:] if isinstance(value, Tensor)), None)
            from_there = is_there
            stays = is_there if wanted is None else wanted == "cuda"
            goes_there = stays if other is None else isinstance(other, OnGpu)
        if from_there != goes_there and not kwargs.get("non_blocking"):
            self._wait(f"{name} to the {'device' if goes_there else 'host'}")
        given = [value for value in args if value is not None]  # a module hands on no dtype for what is no float
        out = args[0] if name in ("cuda", "cpu") else func(*given, **kwargs)
        if goes_there:
            return _on_gpu(out, True)
        return out.as_subclass(Tensor) if isinstance(out, OnGpu) else out

    def _wait(self, what: str) -> None:
        frames = traceback.extract_stack()
        if any(frame.filename.endswith("clip_grad.py") for frame in frames):
            return  # groups gradients by the device that they are really on
        own = [frame for frame in frames if Path(frame.filename).is_relative_to(_OURS)]
        where = f"{Path(own[-1].filename).relative_to(_OURS)}:{own[-1].lineno}" if own else "the test"
        self.waits.append(f"{what} at {where}")

    def send(self, given: Any) -> Any:
        """Return a tensor, or a module with parameters and buffers, that says it is on the GPU."""
        for part in given.modules() if isinstance(given, nn.Module) else ():
            for name, value in part._parameters.items():
                if value is not None:
                    part._parameters[name] = nn.Parameter(_on_gpu(value.detach(), True), value.requires_grad)
            for name, value in part._buffers.items():
                part._buffers[name] = _on_gpu(value, True)
        return _on_gpu(given, True)


def _on_gpu(value: Any, is_there: bool) -> Any:
    if not is_there:
        return value
    return tree_map_only(Tensor, lambda t: t if isinstance(t, OnGpu) else t.as_subclass(OnGpu), value)


def _device_taken_out(args: Any, kwargs: Any) -> tuple[str | None, Any, Any]:
    """Return the kind of device that a call names, and the call without it."""
    named = [value for value in args[1:] if isinstance(value, (torch.device, str))] + [kwargs.get("device")]
    if named[0] is None:
        return None, args, kwargs
    try:
        kind = torch.device(named[0]).type
    except RuntimeError:  # a string that says something else
        return None, args, kwargs
    if kind not in ("cpu", "cuda"):
        return kind, args, kwargs
    kwargs = {key: value for key, value in kwargs.items() if key != "device"}
    return kind, (*args[:1], *(value for value in args[1:] if value is not named[0])), kwargs


def _by_mask(index: Any) -> bool:
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in tree_leaves(index[0]))
