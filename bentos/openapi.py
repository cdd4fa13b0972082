"""The OpenAPI document: BentoML's, corrected where the lane answers differently from BentoML's router.

Pure; every schema comes from the models that are read and sent, none is written here.
"""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from bentos.answers import Answer, BatchAnswer, ErrorBody, ModelCard
from bentos.intake import Batch
from feature_repo.schema import Transaction

REFERENCE = "#/components/schemas/{model}"

BODIES: dict[str, tuple[type[BaseModel], type[BaseModel]]] = {
    "/predict": (Transaction, Answer),
    "/predict_batch": (Batch, BatchAnswer),
}
"""What each operation reads and sends."""

REFUSALS = {
    "400": "The body is no JSON",
    "405": "Another method than POST",
    "413": "The body, or the batch, is too large",
    "415": "The body is not declared as JSON",
    "422": "JSON that breaks the schema; `problems` names each field, value and rule",
    "500": "The service failed; no decision was answered",
    "503": "The feature store or the decision log does not answer; no decision was answered. See Retry-After",
}


def amended(document: dict[str, Any], description: str) -> dict[str, Any]:
    """BentoML's document with exact schemas, the lane's refusals and `GET /model`; the given one is left as it is.

    BentoML flattens schemas and loses which fields may be null on the way.
    """
    document = copy.deepcopy(document)
    document["openapi"] = "3.1.0"  # pydantic writes JSON Schema 2020-12, which 3.0 is not
    built = str(document["info"]["version"])  # BentoML writes the text "None" outside a Bento
    version = "development" if built == "None" else built
    document["info"] = {"title": "Tollgate", "version": version, "description": description}
    document["components"] = {"schemas": _schemas()}
    for path, (read, sent) in BODIES.items():
        operation = document["paths"][path]["post"]
        operation["requestBody"] = {"required": True, "content": _content(read)}
        operation["responses"] = {"200": _response("The decision", sent)}
        operation["responses"] |= {status: _response(text, ErrorBody) for status, text in REFUSALS.items()}
    document["paths"]["/model"] = {"get": _model_operation(document["paths"]["/predict"]["post"]["tags"])}
    return document


def _model_operation(tags: list[str]) -> dict[str, Any]:
    return {
        "operationId": "tollgate__model",
        "tags": tags,
        "description": "The model in service: its name and version, columns, thresholds, and where it came from",
        "responses": {
            "200": _response("The model", ModelCard),
            "405": _response("Another method than GET", ErrorBody),
        },
    }


def _response(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": _content(model)}


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}


def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    for read, sent in BODIES.values():
        _add(schemas, read, "validation")
        _add(schemas, sent, "serialization")
    _add(schemas, ErrorBody, "serialization")
    _add(schemas, ModelCard, "serialization")
    return schemas


def _add(schemas: dict[str, Any], model: type[BaseModel], mode: JsonSchemaMode) -> None:
    schema = model.model_json_schema(ref_template=REFERENCE, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    schemas[model.__name__] = schema
