"""Quantities of plugins: declared as class attributes of a metric or a task, and added to ``routing.quantities``."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from routing import quantities
from routing.errors import InputError
from routing.quantities import Quantity

OWN = {field.name for field in fields(Quantity)} - {"name", "goal", "kind"}
"""Fields of a quantity that a metric may set as class attributes; its goal follows from ``higher_is_better``."""


def declare_metric(name: str, metric: Any) -> None:
    """Add the quantity of a metric that is being registered.

    Raises:
        InputError: ``higher_is_better`` is missing, the name is taken, or an attribute has the wrong type.
    """
    given = {field: getattr(metric, field) for field in OWN if hasattr(metric, field)}
    quantities.declare(_of_class(name, metric, {"can_be_objective": True, "on_request": True, **given}))


def declare_task(name: str, task: Any) -> None:
    """Add the quantities of a task that is being registered: its ``metric``, and ``quantities`` where it has some.

    Raises:
        InputError: see ``declare_metric``; also a metric that exists already with the opposite goal.
    """
    for one in getattr(task, "quantities", ()):
        quantities.declare(replace(one, tasks=(*one.tasks, name)))
    known = quantities.find(task.metric)
    if known is None:
        quantities.declare(_of_class(task.metric, task, {"can_be_objective": True, "tasks": (name,)}))
        return
    if getattr(task, "higher_is_better", known.higher_is_better) is not known.higher_is_better:
        raise InputError(f"task '{name}': {known.name} is better the other way (its goal is to {known.goal})")
    quantities.add_task(known.name, name)


def _of_class(name: str, declared: Any, values: dict[str, Any]) -> Quantity:
    higher = getattr(declared, "higher_is_better", None)
    if not isinstance(higher, bool):
        raise InputError(f"metric '{name}': its class must say higher_is_better = True or False")
    try:
        return Quantity(name, "maximize" if higher else "minimize", **values)
    except (TypeError, ValueError) as error:
        raise InputError(f"metric '{name}': {error}") from None
