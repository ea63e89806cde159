"""``ScriptRun``: one run of a training script of the user's: a function or a command, and free keys.

    run: my_train:train
    config: {lr: 0.1, layers: 2}
    seed: 0

Beside ``RunConfig``, the run of this project's own models; ``read_run`` reads either.
"""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, model_validator

from routing.config.names import is_of_script
from routing.config.plugins import import_plugins
from routing.config.run import RunConfig
from routing.config.section import Section, dotted, nested
from routing.errors import InputError, choices, nearest, shown
from routing.files.yaml_io import dump, load_file

CONFIG = "config"
GIVEN = ("report", "seed", "out")
"""Keyword arguments that a training function may declare."""
_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_PLACE = re.compile(r"\{([\w.]+)\}")


class ScriptRun(Section):
    """A run of a training script; its own keys are below ``config``."""

    run: str | None = Field(default=None, description="module:function that trains.")
    command: str | None = Field(default=None, description="Or a command; {key}, {seed} and {out} are filled in.")
    result: str = Field(default="result.json", description="File below {out} that a command writes its metrics to.")
    evaluate: str | None = Field(default=None, description="module:function that reads the test split, for confirm.")
    checked_by: str | None = Field(default=None, description="module:Class of pydantic or a dataclass with the keys.")
    metrics: tuple[str, ...] = Field(default=(), description="Metrics that the run must give.")
    steps: int | None = Field(default=None, ge=1, description="Steps it reports when nothing stops it.")
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed.")
    config: dict[str, Any] = Field(default_factory=dict, description="What the script is told.")

    @model_validator(mode="after")
    def _one_script(self) -> ScriptRun:
        if (self.run is None) == (self.command is None):
            raise ValueError("a run of a script has either run or command")
        return self

    @property
    def num_epochs(self) -> int:
        """Steps it reports when nothing stops it; 0 where that is not known."""
        return self.steps or 0

    @property
    def script(self) -> str:
        """What is run, in a word."""
        return self.run or shlex.split(self.command or "")[0]

    def dotted(self) -> dict[str, Any]:
        """Return ``{"seed": 0, "config.lr": 0.1, ...}``."""
        return {"seed": self.seed, **dotted(self.config, f"{CONFIG}.")}

    def to_yaml(self) -> str:
        """Return the run as YAML; ``read_run`` reads it back equal."""
        return dump(self.model_dump(mode="json", exclude_none=True))

    def is_same_run(self, other: AnyRun) -> bool:
        """Return whether both are one run."""
        return self == other

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str = "config") -> ScriptRun:
        """Check the values of a run, its own keys by the class that it names.

        Raises:
            InputError: in one line, which key and what would be valid.
        """
        try:
            run = cls.model_validate(nested(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise InputError(f"{where}: {key or 'run'}: {first['msg'].removeprefix('Value error, ')}") from None
        if run.checked_by is None:
            return run
        return run.model_copy(update={"config": _checked(run.checked_by, run.config, where)})

    def arguments(self, out: Path) -> list[str]:
        """Return the command, its places filled in."""
        values = {**dotted(self.config), "seed": self.seed, "out": out}

        def fill(place: re.Match[str]) -> str:
            return str(values[place[1]])

        return [_PLACE.sub(fill, word) for word in shlex.split(self.command or "")]


AnyRun = RunConfig | ScriptRun


def read_run(path: Path) -> AnyRun:
    """Read the config.yaml of a run of either kind; see ``RunConfig.from_yaml``."""
    values = load_file(path)[0]
    if isinstance(values, dict) and is_of_script(values):
        return ScriptRun.from_dict(values, str(path))
    return RunConfig.from_loaded(path, values)


def run_from_dict(values: dict[str, Any]) -> AnyRun:
    """Return a run of either kind; see ``RunConfig.from_dict``."""
    return ScriptRun.from_dict(values) if is_of_script(values) else RunConfig.from_dict(values)


def imported(path: str, what: str, source: Path | None = None) -> Any:
    """Return what ``module:name`` names, as plugins are found; ``InputError`` in one line where it is not there."""
    if not _PATH.fullmatch(path):
        raise InputError(f"{what} {path!r}: not a place of code (valid: module:name, as in my_train:train)")
    module, _, name = path.partition(":")
    try:
        import_plugins([module], source)
    except InputError as error:
        raise InputError(f"{what} {path}: {str(error).removeprefix('plugins: ')}") from None
    found = importlib.import_module(module)
    if not hasattr(found, name):
        known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{what} {path}: {module} has no '{name}'{nearest(name, known)} (it has: {choices(known)})")
    return getattr(found, name)


def function(path: str, what: str, given: tuple[str, ...] = GIVEN, source: Path | None = None) -> Callable[..., Any]:
    """Return a function that takes a config and none but the ``given`` arguments beside it."""
    found = imported(path, what, source)
    if not callable(found):
        raise InputError(f"{what} {path}: it is {type(found).__name__}, which cannot be called")
    parameters = list(inspect.signature(found).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    ):  # fmt: skip
        raise InputError(f"{what} {path}: it takes no config; it is called as {_call(given)}")
    for parameter in parameters[1:]:
        if parameter.default is parameter.empty and parameter.name not in given and "VAR" not in parameter.kind.name:
            raise InputError(f"{what} {path}: it needs '{parameter.name}'; it is called as {_call(given)}")
    return found


def called(found: Callable[..., Any], config: dict[str, Any], given: Mapping[str, Any]) -> Any:
    """Call a function with a config and those of the given arguments that it declares."""
    parameters = inspect.signature(found).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return found(config, **{name: value for name, value in given.items() if takes_all or name in parameters})


def _call(given: tuple[str, ...]) -> str:
    return f"f(config, {', '.join(f'{name}=..' for name in given)}), of which it declares what it uses"


def check_command(command: str, keys: Mapping[str, Any]) -> None:
    """Raise ``InputError`` for a place that no key fills, or a program that is not there."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise InputError(f"command: {error}") from None
    if not words or shutil.which(words[0]) is None:
        raise InputError(f"command: no program '{words[0] if words else ''}' is found here")
    known = [*keys, "seed", "out"]
    for name in _PLACE.findall(command):
        if name not in known:
            raise InputError(f"command: no key fills {{{name}}}{nearest(name, known)} (valid: {choices(known)})")
    if "{out}" not in command:
        raise InputError("command: {out} is missing; its metrics are read from a file there")


def _checked(path: str, config: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the keys as the user's class has them, defaults filled in."""
    found = imported(path, "config")
    if not (isinstance(found, type) and (issubclass(found, BaseModel) or is_dataclass(found))):
        raise InputError(f"config {path}: neither a pydantic model nor a dataclass")
    known = list(found.model_fields) if issubclass(found, BaseModel) else [field.name for field in fields(found)]
    for key in config:
        if key not in known:
            raise InputError(f"{where}: unknown key '{key}'{nearest(key, known)} (valid: {choices(known)})")
    adapter: TypeAdapter[Any] = TypeAdapter(found)
    try:
        values: dict[str, Any] = adapter.dump_python(adapter.validate_python(config), mode="json")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {key}: {first['msg'].lower()}, not {shown(first['input'])}") from None
    return values
