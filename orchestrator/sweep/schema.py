"""A JSON Schema (draft 2020-12) of sweep files, so that editors complete and check them as they are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.study.annotations import is_path
from orchestrator.study.config_schema import Schema, config_schemas, documented
from orchestrator.study.documentation import stage_doc, summary
from orchestrator.study.function_stage import FunctionStage
from orchestrator.study.modules import Study
from orchestrator.sweep.spec import SweepSpec
from workers.stage import Stage

#: What an axis or the data fill in; everywhere in a config it may stand in the place of a value.
_REFERENCE: Schema = {"type": "string", "pattern": r"^\$"}
_REFER: Schema = {"$ref": "#/$defs/reference"}
#: A function that the sweep did not name yet when this was made.
_FUNCTION: Schema = {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"}
_FILE: Schema = {
    "type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"], "additionalProperties": False,
}  # fmt: skip
#: Before the name of a definition of a config, which may be that of one of the grammar.
_CONFIG = "config."
#: Fields that `shards:` fills in.
_SHARDS = frozenset({"shard", "shards"})


def sweep_schema(study: Study, stages: Mapping[str, Stage]) -> dict[str, Any]:
    """Return the schema.

    Args:
        study: the folder that modules are looked for in, too.
        stages: those that a sweep can name.

    Raises:
        StageError: a module cannot be read.
    """
    schema = SweepSpec.model_json_schema(schema_generator=documented(study))
    configs, made = config_schemas(study, [each.config for each in stages.values()], f"#/$defs/{_CONFIG}{{model}}")
    definitions = schema["$defs"]
    definitions |= {"reference": _REFERENCE} | {_CONFIG + name: _open(each) for name, each in made.items()}
    for (name, stage), config in zip(stages.items(), configs, strict=True):
        of_config = config["$ref"].removeprefix("#/$defs/")
        required = made[of_config.removeprefix(_CONFIG)].get("required", [])
        use = _use(stage, config, definitions[of_config], [each for each in required if each not in _SHARDS])
        definitions[f"stage.{name}"] = {"description": summary(stage_doc(study, stage.function))} | use
    entry = definitions["Entry"]
    described = {"description": entry["properties"]["stage"]["description"]}
    entry["properties"]["stage"] = described | {"anyOf": [{"enum": list(stages)}, _REFER, _FUNCTION]}
    entry["allOf"] = [_if({"properties": {"stage": {"const": name}}, "required": ["stage"]}, name) for name in stages]
    # Without `stage:`, the name of an entry is that of its stage.
    bare = {"not": {"required": ["stage"]}}
    schema["properties"]["stages"] |= {
        "properties": {name: {"allOf": [{"$ref": "#/$defs/Entry"}, _if(bare, name)]} for name in stages},
        "additionalProperties": {"allOf": [{"$ref": "#/$defs/Entry"}, {"required": ["stage"]}]},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "sweep"}


def _if(condition: Schema, stage: str) -> Schema:
    return {"if": condition, "then": {"$ref": f"#/$defs/stage.{stage}"}}


def _use(stage: Stage, config: Schema, fields: Schema, required: list[str]) -> Schema:
    """Return the schema of an entry of a stage, as far as it depends on the stage.

    Args:
        stage: the stage.
        config: the schema of its config.
        fields: the definition that this refers to. Nothing is required by it any more: a layer may have any fields.
        required: the fields that a config must have if it is not in layers.
    """
    fields.pop("required", None)
    needed = [name for name, each in stage.inputs.items() if not each.optional]
    if isinstance(stage, FunctionStage) and stage.signature:
        # What feeds no input is a file of the config.
        needed = []
        files = [each.name for each in stage.signature.parameters if is_path(each.annotation)]
        fields["properties"] = fields.get("properties", {}) | dict.fromkeys(files, _value(_FILE))
    inputs = {name: {"type": "string"} for name in stage.inputs}
    whole = {"allOf": [config, {"required": required}]} if required else config
    layers = {"type": "array", "items": {"anyOf": [config, _REFER]}}
    return {
        "properties": {
            "inputs": {"properties": inputs, "required": needed, "additionalProperties": False},
            "config": {"anyOf": [whole, _REFER, layers]},
        },
        "required": ["inputs"] * bool(needed) + ["config"] * bool(required),
    }


def _open(schema: Schema) -> Schema:
    """Let a reference stand in the place of every value inside."""
    opened = dict(schema)
    for several in ("properties", "patternProperties"):
        if several in schema:
            opened[several] = {name: _value(each) for name, each in schema[several].items()}
    for one in ("items", "additionalProperties"):
        if isinstance(schema.get(one), dict):
            opened[one] = _value(schema[one])
    if "prefixItems" in schema:
        opened["prefixItems"] = [_value(each) for each in schema["prefixItems"]]
    # Of several choices more than one may fit, where a reference stands for what tells them apart.
    if choices := schema.get("anyOf") or opened.pop("oneOf", None):
        opened["anyOf"] = [_open(each) for each in choices]
    return opened


def _value(schema: Schema) -> Schema:
    said = {name: schema[name] for name in ("description", "default") if name in schema}
    opened = _open({name: each for name, each in schema.items() if name not in said})
    choices = opened["anyOf"] if opened.keys() == {"anyOf"} else [opened]
    return said | {"anyOf": [*choices, _REFER]}
