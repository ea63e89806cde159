"""``OwnNetwork``: a registered network as a model. Shapes: B batch, C channels, H height, W width."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from routing.data import DataInfo
from routing.errors import InputError, RoutingError, choices, shown
from routing.models.base import CountedPart, Formula, KnobValue, ModelOutput, VisionModel
from routing.models.own.section import OwnSection, Registration
from routing.models.pretrained import one_line

_PROBES = 4  # images that a new network is tried on
_FAR = (-1e9, 0.0, 1.0, 1e9)


class OwnNetwork(VisionModel):
    """A network of the user's.

    Args:
        section: of a registered network.
        info: of the data.

    Raises:
        InputError: the factory fails, the network does not take these images, its outputs have another shape, or its
            knob is no attribute or changes nothing.
    """

    def __init__(self, section: OwnSection, info: DataInfo) -> None:
        super().__init__()
        registration = section.registration
        self.name, self._keys, self._info = registration.name, section.values(), info
        self._operators = registration.handles
        self._image_shape = (info.channels, info.input_size, info.input_width or info.input_size)
        self.network = self._called("factory", registration.factory)
        if not isinstance(self.network, nn.Module):
            raise InputError(f"{self.name}: its factory returns {shown(self.network)}, not a torch.nn.Module")
        self._setting = _Setting(registration, self.network)
        self.knob = self._setting.name
        self._multiply_adds = self._tried()
        if self.knob is not None:
            self._check_that_the_knob_acts()
        self.has_closed_form = registration.closed_form is not None
        if registration.closed_form is not None:
            self._multiply_adds = self._called("closed_form", registration.closed_form)

    def _called(self, what: str, function: Callable[..., Any]) -> Any:
        try:
            return function(self._info, **self._keys)
        except RoutingError:
            raise
        except Exception as error:  # code of the user's
            raise InputError(f"{self.name}: its {what} fails: {one_line(error)}") from None

    @torch.no_grad()
    def _tried(self) -> int:
        """Return the multiply-adds of an image, as torch's own counter sees them; the shape of the outputs is right."""
        outputs, cost = self._probed(self._probes())
        expected = (_PROBES, self._info.num_outputs) if self._info.task == "classification" else (_PROBES,)
        if tuple(outputs.shape) != expected:
            raise InputError(
                f"{self.name}: outputs of shape {tuple(outputs.shape)} for {_PROBES} images; dataset with "
                f"{self._info.num_outputs} outputs needs {expected}"
            )
        return round(cost / _PROBES)

    def _probes(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(_PROBES, *self._image_shape, generator=generator)

    @torch.no_grad()
    def _probed(self, images: Tensor) -> tuple[Tensor, int]:
        """Return outputs and multiply-adds in inference; the network is left as it was."""
        modes = {part: part.training for part in self.network.modules()}
        try:
            with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
                outputs = self.eval()(images).prediction
        except InputError:
            raise
        except Exception as error:
            shape = " x ".join(map(str, self._image_shape))
            raise InputError(f"{self.name}: it cannot take images of {shape}: {one_line(error)}") from None
        finally:
            for part, training in modes.items():
                part.training = training
            self.training = True
        return outputs, counter.get_total_flops() // 2

    def _check_that_the_knob_acts(self) -> None:
        """On random images; at its values, or, as a confidence of untrained outputs is low, far from them."""
        trained, images = self._setting.value, self._probes()
        first = self._probed(images)
        try:
            for value in (*self._setting.values, *self._setting.far()):
                self._setting.move(value)
                try:
                    outputs, cost = self._probed(images)
                except InputError:
                    if value in self._setting.values:
                        raise
                    return  # out of its range: it is looked at
                if cost != first[1] or not torch.equal(outputs, first[0]):
                    return
        finally:
            self._setting.move(trained)
        raise InputError(
            f"{self.name}: its knob '{self.knob}' changes nothing: outputs and multiply-adds are the same at "
            f"{choices(self._setting.values)}"
        )

    def forward(self, images: Tensor) -> ModelOutput:
        """Predict; a network for one output per image may have it as a column."""
        prediction = _prediction(self.network(images), self.name)
        if self._info.task == "quality" and prediction.ndim == 2 and prediction.shape[1] == 1:
            prediction = prediction[:, 0]
        return ModelOutput(prediction)

    def handles(self) -> dict[str, Formula]:
        """Those it was registered with."""
        return dict(self._operators)

    def counted_parts(self) -> dict[str, CountedPart]:
        """The network as a whole; without a closed form, one unit is a multiply-add that it executes."""
        example = (torch.zeros(1, *self._image_shape),)
        if self.has_closed_form:
            return {"network": CountedPart(self.network, example, self._multiply_adds)}
        return {"network": CountedPart(self.network, example, 1, None)}

    def nominal_units(self) -> dict[str, float]:
        """As counted on random images before training, where there is no closed form."""
        return {} if self.has_closed_form else {"network": float(self._multiply_adds)}

    @property
    def default_knob_value(self) -> KnobValue | None:
        """The value in use."""
        return self._setting.value

    def knob_values(self, images: Sequence[Tensor]) -> list[KnobValue]:
        """Those it was registered with."""
        return [value for value in dict.fromkeys(self._setting.values) if value != self._setting.value]

    def check_knob(self, value: KnobValue) -> None:
        """A number for a number, one of the registered words for text."""
        super().check_knob(value)
        self._setting.fitting(value)

    def set_knob(self, value: KnobValue) -> None:
        """Move the knob."""
        self.check_knob(value)
        self._setting.move(self._setting.fitting(value))


class _Setting:
    """The knob of a network: its name, values, and where it stands."""

    def __init__(self, registration: Registration, network: nn.Module) -> None:
        self._model, self.values = registration.name, registration.knob_values
        self.name: str | None = None
        self.value: KnobValue | None = None
        knob = registration.knob
        if knob is None:
            return
        if isinstance(knob, str):
            self.name = knob.rpartition(".")[2]
            self.value = _attribute(network, knob, registration.name)
            self._set: Callable[[Any], None] = functools.partial(_assign, network, knob)
        else:
            self.name = getattr(knob, "__name__", "knob").replace("<lambda>", "knob")
            self._set = functools.partial(knob, network)
            self.move(self.values[0])

    def move(self, value: Any) -> None:
        """Set the value; what the user's function raises is one line."""
        try:
            self._set(value)
        except Exception as error:
            raise InputError(f"{self._model}: its knob '{self.name}' cannot be {value!r}: {one_line(error)}") from None
        self.value = value

    def far(self) -> list[KnobValue]:
        """Return values where a knob that acts at all does so, whatever the outputs of an untrained network are."""
        if isinstance(self.value, str) or self.value is None:
            return []
        return [int(value) for value in _FAR] if isinstance(self.value, int) else list(_FAR)

    def fitting(self, value: KnobValue) -> KnobValue:
        """Return a value as the network has it; ``InputError`` for one it cannot have."""
        if isinstance(self.value, str):
            if value not in self.values:
                valid = choices(self.values)
                raise InputError(f"evaluation.knob_value {value}: not a value of '{self.name}' (valid: {valid})")
            return value
        if isinstance(value, str):
            raise InputError(f"evaluation.knob_value {value!r}: '{self.name}' takes a number")
        return int(value) if isinstance(self.value, int) and float(value).is_integer() else value


def _attribute(network: nn.Module, path: str, model: str) -> KnobValue:
    """Return the value of an attribute, ``exits.threshold`` say, which is a number or text."""
    try:
        found: Any = functools.reduce(getattr, path.split("."), network)
    except AttributeError as error:
        raise InputError(f"{model}: its knob '{path}' is no attribute of {type(network).__name__}: {error}") from None
    if isinstance(found, bool) or not isinstance(found, (int, float, str)):
        raise InputError(
            f"{model}: its knob '{path}' is {shown(found)} (valid: an attribute that is a number or text; a function "
            "for anything else)"
        )
    return found


def _assign(network: nn.Module, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    setattr(functools.reduce(getattr, parents, network), last, value)


def _prediction(output: Any, model: str) -> Tensor:
    """Return the outputs of a network: a tensor, the first of a tuple, or what is called ``logits``."""
    found = output
    if isinstance(output, Mapping) and "logits" in output:
        found = output["logits"]
    elif not isinstance(output, Tensor):
        found = getattr(output, "logits", output[0] if isinstance(output, (tuple, list)) and output else output)
    if not isinstance(found, Tensor):
        raise InputError(f"{model}: it returns {type(output).__name__} (valid: a tensor, or what has logits)")
    return found
