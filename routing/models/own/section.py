"""The section of a registered network, free of torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from routing.config.section import ModelSection
from routing.errors import InputError

if TYPE_CHECKING:
    from routing.data import DataInfo
    from routing.models.base import Formula, KnobValue


@dataclass(frozen=True)
class Registration:
    """What ``register_module`` was given; ``from_module`` is where it was called."""

    name: str
    factory: Callable[..., Any]
    keys: tuple[str, ...]
    knob: str | Callable[[Any, Any], None] | None
    knob_values: tuple[KnobValue, ...]
    closed_form: Callable[..., int] | None
    handles: Mapping[str, Formula]
    from_module: str


class OwnSection(ModelSection):
    """What every registered network is told; its keys are added to a subclass."""

    builds: ClassVar[str] = "routing.models.own.network:OwnNetwork"
    registration: ClassVar[Registration]
    tasks: ClassVar[tuple[str, ...]] = ("classification", "quality")

    def values(self) -> dict[str, Any]:
        """Return the values of the network's own keys."""
        return {key: getattr(self, key) for key in self.registration.keys}

    def check(self, info: DataInfo, plugins: Sequence[str]) -> None:
        """Raise ``InputError`` for a network that workers would not know, or that cannot be built."""
        if self.registration.from_module == "__main__" or not plugins:
            raise InputError(
                f"model '{self.name}' is registered in {self.registration.from_module}, which the workers of a sweep "
                "do not run; register it in a module of its own and name that in the base: plugins: [my_nets]"
            )
        self.build(info)
