"""``register_module``: any network of the user's as a model of this project, its keys typed from plain defaults."""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model

from routing.config.registry import MODELS
from routing.config.section import ModelSection
from routing.errors import InputError, choices, nearest
from routing.models.own.section import OwnSection, Registration

if TYPE_CHECKING:
    from routing.models.base import Formula, KnobValue

_SCALARS = (bool, int, float, str)


def register_module(
    name: str,
    factory: Callable[..., Any],
    *,
    knob: str | Callable[[Any, Any], None] | None = None,
    knob_values: Sequence[KnobValue] = (),
    closed_form: Callable[..., int] | None = None,
    handles: Mapping[str, Formula] | None = None,
    **defaults: Any,
) -> type[ModelSection]:
    """Make ``model.name: NAME`` build the network that ``factory(info, **keys)`` returns.

    The network maps normalised images (B, C, H, W) to outputs (B, ``info.num_outputs``): a tensor, the first of a
    tuple, or what holds them as ``logits``. Its multiply-adds are those it executes, image by image where they depend
    on the image.

    Args:
        factory: called with the ``DataInfo`` of the data and the values of the keys.
        knob: what may be moved after training: an attribute of the network (``threshold``, ``exits.threshold``), or
            a function that is called with the network and a value.
        knob_values: an operating point each; of a function, the first is the value in training.
        closed_form: called like the factory, returns multiply-adds per image; every run then checks the two counts.
        handles: formulas for operators that torch's counter has none for, as in ``count_module``.
        defaults: keys of the configuration (``model.width``) and their defaults: numbers, text, truth values, lists of
            them, or None. Keyword arguments of the factory that have a default are keys too.

    Returns:
        The section of the configuration that was made.

    Raises:
        InputError: a taken name, a default that is no plain value, a key the factory does not take, a knob without
            values.
    """
    if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise InputError(f"register_module: {name!r} cannot name a model (valid: letters, digits, '_', '-')")
    where = f"register_module '{name}'"
    keys = {**_declared(factory, where), **defaults}
    _check_arguments(factory, keys, where)
    fields = {key: (_type_of(value, key, where), _field(key, value, name)) for key, value in keys.items()}
    _check_knob(knob, knob_values, where)
    from_module = sys._getframe(1).f_globals.get("__name__", "__main__")
    section: type[OwnSection] = create_model(  # type: ignore[call-overload]
        f"{name}Section",
        __base__=OwnSection,
        __doc__=f"The network that {_called(factory)} builds, with its keys.",
        name=(Literal[name], Field(default=name, description="Name of the model.")),
        **fields,
    )
    section.registration = Registration(
        name, factory, tuple(keys), knob, tuple(knob_values), closed_form, dict(handles or {}), from_module
    )
    if name in MODELS and _may_replace(MODELS.get(name), from_module):
        MODELS.remove(name)
    return MODELS.register(name)(section)


def _may_replace(entry: Any, from_module: str) -> bool:
    """A cell of a notebook that is run again registers its network again."""
    return isinstance(entry, type) and issubclass(entry, OwnSection) and entry.registration.from_module == from_module


def _called(factory: Callable[..., Any]) -> str:
    return getattr(factory, "__qualname__", type(factory).__name__)


def _parameters(factory: Callable[..., Any], where: str) -> list[inspect.Parameter]:
    if not callable(factory):
        raise InputError(f"{where}: the factory is {type(factory).__name__}, which cannot be called")
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # built in, without a signature: its keys are those given
        return [inspect.Parameter("info", inspect.Parameter.POSITIONAL_ONLY)]


def _declared(factory: Callable[..., Any], where: str) -> dict[str, Any]:
    """Return the keyword arguments of the factory that have a default; the first argument takes ``info``."""
    return {
        parameter.name: parameter.default
        for parameter in _parameters(factory, where)[1:]
        if parameter.default is not parameter.empty
    }


def _check_arguments(factory: Callable[..., Any], keys: Mapping[str, Any], where: str) -> None:
    parameters = _parameters(factory, where)
    if not parameters:
        raise InputError(f"{where}: {_called(factory)} takes no argument; it is called as factory(info, **keys)")
    named = [p.name for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in keys:
        if key not in named and not takes_all:
            raise InputError(
                f"{where}: {_called(factory)} takes no '{key}'{nearest(key, named)} (valid: {choices(named) or 'none'})"
            )
        if hasattr(ModelSection, key) or key in ModelSection.model_fields or key.startswith("_"):
            raise InputError(f"{where}: '{key}' cannot be a key of a model; give the argument another name")
    missing = [name for name in named if name not in keys]
    if missing:
        raise InputError(f"{where}: {_called(factory)} needs '{missing[0]}', which has no default; give one")


def _type_of(value: Any, key: str, where: str) -> Any:
    """Return the type that a default stands for."""
    if value is None:
        return bool | int | float | str | None
    if isinstance(value, (list, tuple)):
        kinds = {_type_of(item, key, where) for item in value}
        if kinds == {int, float}:
            kinds = {float}
        if len(kinds) > 1 or kinds - set(_SCALARS):
            raise InputError(f"{where}: the default of '{key}' mixes kinds of values (valid: a list of one kind)")
        return tuple[(kinds.pop() if kinds else Any), ...]  # type: ignore[misc]
    if type(value) not in _SCALARS or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(
            f"{where}: the default of '{key}' is {value!r}, no plain value (valid: a number, text, True or False, "
            "None, a list of them)"
        )
    return type(value)


def _field(key: str, value: Any, name: str) -> Any:
    default = tuple(value) if isinstance(value, list) else value
    return Field(default=default, description=f"{key} of {name}.")


def _check_knob(knob: Any, values: Sequence[KnobValue], where: str) -> None:
    if knob is None:
        if values:
            raise InputError(f"{where}: knob_values without a knob; name what they are values of")
        return
    if not isinstance(knob, str) and not callable(knob):
        raise InputError(f"{where}: knob is {knob!r} (valid: the name of an attribute, or a function)")
    bad = [value for value in values if isinstance(value, bool) or not isinstance(value, (int, float, str))]
    if bad or not values:
        found = f"{bad[0]!r} is none" if bad else "there are none"
        raise InputError(f"{where}: knob_values are numbers or text, one per operating point; {found}")
