"""Stages described for whoever writes a sweep: what they read, make and return, and the fields of their configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.study.annotations import is_path, is_paths
from orchestrator.study.config_schema import documented
from orchestrator.study.documentation import argument_docs, prose, stage_doc, summary
from orchestrator.study.function_stage import FunctionStage, function_stage
from orchestrator.study.modules import Study
from orchestrator.study.signature import read_signature
from workers.stage import Stage


def describe(study: Study, name: str, stage: Stage) -> dict[str, Any]:
    """Describe a stage as JSON-like values.

    Returns:
        name, family, function, version (None: its source counts), summary and doc (the docstring of the function),
        makes (the kind of artifact), inputs (name -> kind, optional, many, file: whether a local file in the config may
        take its place, doc), config (a JSON Schema), metrics (None if unknown) and metrics_of: "all" configs,
        the "default" one of several possible, the "config" as it is written, the "run" if nothing declares them.

    Raises:
        StageError: a module cannot be read.
    """
    doc = stage_doc(study, stage.function)
    arguments = argument_docs(doc)
    metrics, of_config = _metrics(stage)
    return {
        "name": name,
        "family": family(stage),
        "function": stage.function,
        "version": stage.version,
        "summary": summary(doc),
        "doc": prose(doc),
        "makes": stage.output,
        "inputs": {
            each: {
                "kind": of.kind,
                "optional": of.optional,
                "many": of.many,
                "file": isinstance(stage, FunctionStage) and not of.many,
                "doc": arguments.get(each, ""),
            }
            for each, of in stage.inputs.items()
        },
        "config": stage.config.model_json_schema(schema_generator=documented(study)),
        "metrics": metrics,
        "metrics_of": of_config,
    }


def family(stage: Stage) -> str:
    """Return what a stage is listed under: a family of this package, or the module of somebody's own."""
    module = stage.function.partition(":")[0]
    return module.split(".")[1] if module.startswith("workers.") else module


def bare_function(
    study: Study, reference: str, version: int | None = None, declared: tuple[str, ...] | None = None
) -> FunctionStage:
    """Return the stage of a function as if each of its folders were fed by a sweep.

    Args:
        study: the folder that its module is looked for in, too.
        reference: "module:function".
        version: the version that a sweep gives it.
        declared: the metrics that a sweep declares.

    Raises:
        StageError: the function cannot be a stage.
    """
    parameters = read_signature(study, reference).parameters
    folders = [each.name for each in parameters if is_path(each.annotation) or is_paths(each.annotation)]
    return function_stage(study, reference, version, folders, declared)


def _metrics(stage: Stage) -> tuple[list[str] | None, str]:
    # Without any field, and then without those that have no default: metrics that depend on one ask for it in vain.
    for config, known in ((stage.config.__new__(stage.config), "all"), (stage.config.model_construct(), "default")):
        try:
            declared = config.declared()
        # Somebody's own config may raise anything for want of a field.
        except Exception:  # noqa: S112
            continue
        return (None, "run") if declared is None else (list(declared), known)
    return None, "config"


def type_text(schema: Mapping[str, Any]) -> str:
    """Write the type of a value as people would: `int ≥ 1`, `cut | leave_out`, `list of text`.

    Args:
        schema: a JSON Schema, of which the names of definitions are kept.
    """
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema or "const" in schema:
        return " | ".join(str(each) for each in schema.get("enum", [schema.get("const")]))
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " | ".join(dict.fromkeys(type_text(each) for each in schema[several]))
    kind = schema.get("type")
    if kind == "array":
        inside = schema.get("prefixItems")
        return f"[{', '.join(map(type_text, inside))}]" if inside else f"list of {type_text(schema.get('items', {}))}"
    if kind == "object":
        inside = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")][0]
        return f"mapping to {type_text(inside)}" if isinstance(inside, dict) else "mapping"
    words = {"integer": "int", "string": "text", "boolean": "true | false", None: "any"}
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema and schema[name] < 2**62]
    return " ".join([words.get(kind, str(kind)), ", ".join(limits)]).strip()
