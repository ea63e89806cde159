"""The JSON Schema of a study file, for YAML editors: ``routing schema study``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, TypeAdapter

from routing.config.names import SCRIPT_HEADS
from search_spaces.study.registry import SAMPLERS
from search_spaces.study.schema import AblationStudy, SamplerSection, SweepStudy
from search_spaces.study.script import ScriptAblationStudy, ScriptSweepStudy

_OF_RUNS = Annotated[SweepStudy | AblationStudy, Discriminator("kind")]
_OF_SCRIPTS = Annotated[ScriptSweepStudy | ScriptAblationStudy, Discriminator("kind")]
_SCRIPTS = [{"required": [head]} for head in SCRIPT_HEADS]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study file: of runs, or of a training script where it says ``run`` or ``command``."""
    runs, scripts = TypeAdapter(_OF_RUNS).json_schema(), TypeAdapter(_OF_SCRIPTS).json_schema()
    definitions: dict[str, Any] = {**runs.pop("$defs"), **scripts.pop("$defs")}
    for study in (SweepStudy, AblationStudy, ScriptSweepStudy, ScriptAblationStudy):
        _as_it_may_be_written(definitions[study.__name__]["properties"])
    condition = {"type": ["array", "string", "number", "boolean", "null"]}
    definitions["Parameter"]["properties"]["when"]["additionalProperties"] = condition
    definitions["SamplerSection"]["allOf"] = [_options_schema(name) for name in SAMPLERS]
    which = {"if": {"anyOf": _SCRIPTS}, "then": {**scripts, "allOf": [{"oneOf": _SCRIPTS}]}}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Study", "$defs": definitions}
    return {**head, **which, "else": runs}


def _as_it_may_be_written(properties: dict[str, Any]) -> None:
    """Add the short forms that are turned into long ones before a study is checked."""
    short = [{"$ref": "#/$defs/Parameter"}, {"type": "array"}, {"type": ["string", "number", "boolean"]}]
    duration = {"anyOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}], "default": None}
    levels = {"anyOf": [{"type": "array"}, {"type": "object", "additionalProperties": {"type": "object"}}]}
    properties["trial_timeout"] = {**properties["trial_timeout"], **duration}
    for name, written in (("space", {"anyOf": short}), ("factors", levels)):
        if name in properties:
            properties[name]["additionalProperties"] = written


def _options_schema(sampler: str) -> dict[str, Any]:
    """Return the JSON Schema of a sampler section's options when it has this name."""
    named: dict[str, Any] = {"properties": {"name": {"const": sampler}}}
    if sampler != SamplerSection.model_fields["name"].default:
        named["required"] = ["name"]
    options = SAMPLERS.get(sampler).options_type.model_json_schema()
    return {"if": named, "then": {"properties": {"options": options}}}
