"""``--base.training.num_epochs 1``: keys of the command line laid over the base of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from routing.config.names import is_of_script
from routing.config.overrides import parse_overrides, split_overrides, switch_names
from routing.config.run import RunConfig
from routing.config.section import dotted, merge, nested
from routing.errors import InputError
from routing.files.yaml_io import parse_scalar

BASE = "base"


def with_base(values: dict[str, Any], overrides: Sequence[str], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a study file with keys of its base changed.

    A change of ``model.name`` drops the keys of the model before, as in a run.

    Args:
        overrides: ``["--base.training.num_epochs", "1"]``, read as the keys of a run are.
        changes: dotted keys of the run and their values.

    Raises:
        InputError: a key that is not below ``base``, or that the space decides about.
    """
    base = values.get(BASE) or {}
    if not isinstance(base, dict):
        return values  # what is wrong with it is said where the study is checked
    is_script = is_of_script(values)
    tree = nested(base)
    changed = {**_read(overrides, tree, is_script), **dotted(nested(dict(changes)))}
    searched = values.get("space")
    for key in changed:
        if isinstance(searched, dict) and key in searched:
            raise InputError(f"--{BASE}.{key}: the space of the study decides about {key}")
    kept = tree if is_script else switch_names(tree, changed)
    return {**values, BASE: dotted(merge(kept, nested(changed)))}


def _read(overrides: Sequence[str], base: dict[str, Any], is_script: bool) -> dict[str, Any]:
    words = {}
    for name, (key, text) in split_overrides(overrides).items():
        if not name.startswith(f"{BASE}."):
            raise InputError(f"{key}: not below base; write --{BASE}.KEY for a key of the study's base")
        words[name.removeprefix(f"{BASE}.")] = (key, text)
    if is_script:
        return {name: parse_scalar(text, f"value of {key}") for name, (key, text) in words.items()}
    return parse_overrides([f"--{name}={text}" for name, (_, text) in words.items()], RunConfig, base)
