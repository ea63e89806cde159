"""timm, an optional package: its models by name, and their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from routing.errors import InputError, MissingPackage, choices, nearest
from routing.models.pretrained import one_line
from routing.models.weight_files import FILE_TYPES, is_weights_file, read_state


def timm_with(name: str, model: str, pattern: str, valid: str) -> Any:
    """Return the package, which has a model of this name.

    Args:
        model: ``model.name`` that needs it.
        pattern: of the names among which the nearest is sought.
        valid: what a name should be of.

    Raises:
        MissingPackage: it is not installed.
        InputError: it has no such model.
    """
    try:
        import timm
    except ImportError:
        raise MissingPackage(f"model.name {model} needs timm: pip install 'routing-sweeps[timm]'") from None
    if not timm.is_model(name):
        raise InputError(
            f"model.architecture '{name}': timm {timm.__version__} has no such model"
            f"{nearest(name, timm.list_models(pattern))} (valid: {valid})"
        )
    return timm


def timm_state(architecture: str, source: str, key: str) -> dict[str, Tensor]:
    """Return timm's own weights for a name (``DEFAULT``), or those of a file.

    Args:
        key: the configuration's key that names ``source``, for errors.

    Raises:
        InputError: no such weights, or no network.
    """
    if is_weights_file(source):
        return read_state(Path(source), key)
    if source != "DEFAULT":
        raise InputError(f"{key} '{source}' (valid: DEFAULT, a run, or a {choices(FILE_TYPES)} file)")
    import timm

    try:
        state: dict[str, Tensor] = timm.create_model(architecture, pretrained=True).state_dict()
    except Exception as error:  # a hub that does not answer raises anything
        raise InputError(
            f"{key} DEFAULT: {architecture} has none that can be downloaded here ({one_line(error)}); give the path of "
            "a weights file"
        ) from None
    return state
